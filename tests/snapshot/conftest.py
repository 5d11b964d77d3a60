import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.snapshot.support import NOBODY, MemorySink


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that any user may enter and that belongs to the one without rights."""
    path = tempfile.mkdtemp(prefix="replicator-test-")
    os.chmod(path, 0o755)  # noqa: S103 - other users are what it is for
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    yield Path(path)
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)  # a user cannot remove what is in a read-only folder
    shutil.rmtree(path)
