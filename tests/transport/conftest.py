"""Providers that close refused connections soon, and a small ballast: tests start many."""

from collections.abc import Iterator

import pytest

from replicator.provider.ballast import Ballast
from replicator.transport import server


@pytest.fixture(autouse=True, scope="session")
def _swift() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ballast, "size", 64 << 10)
        patch.setattr(server, "LINGER_S", 0.05)
        yield
