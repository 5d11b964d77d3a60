"""A small ballast: tests make many homes."""

from collections.abc import Iterator

import pytest

from replicator.provider.ballast import Ballast


@pytest.fixture(autouse=True, scope="session")
def _small_ballast() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ballast, "size", 64 << 10)
        yield
