"""A settled provider for each test, with a small ballast: tests make many homes."""

from collections.abc import Iterator

import pytest

from replicator.provider.ballast import Ballast
from tests.provider.stand import Stand


@pytest.fixture(autouse=True, scope="session")
def _small_ballast() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ballast, "size", 64 << 10)
        yield


@pytest.fixture
def stand(tmp_path: str) -> Iterator[Stand]:
    """A settled provider."""
    found = Stand(str(tmp_path))
    yield found
    found.provider.close()
