"""An open catalog in a folder of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.catalog.catalog import Catalog
from replicator.fs import PosixFs


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """Open, and close at the end."""
    found = Catalog(str(tmp_path / "catalog.db"), PosixFs())
    yield found
    found.close()


@pytest.fixture
def readers(tmp_path: Path) -> Iterator[Catalog]:
    """One that knows places, as a keeper's."""
    found = Catalog(str(tmp_path / "readers.db"), PosixFs(), places=True)
    yield found
    found.close()
