"""What a seen-index needs of a file system for what must survive a power cut.

The interface is a part of `replicator.fs.Fs`, so that crash tests can stop it at each step. Immutable runs are
read directly: reading changes nothing, and an open descriptor outlives the file's name.
"""

from typing import Protocol


class WriteHandle(Protocol):
    """A new file being written; nothing is durable before fsync returns."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append all of `data`."""

    def fsync(self) -> None:
        """Make the bytes durable."""

    def close(self) -> None:
        """Close; idempotent."""


class Files(Protocol):
    """Paths are absolute strings."""

    def create(self, path: str) -> WriteHandle:
        """Create a new file; FileExistsError if the name is taken."""
        ...

    def replace(self, source: str, target: str) -> None:
        """Rename over whatever is there."""

    def unlink(self, path: str) -> None:
        """Remove a name; FileNotFoundError if there is none."""

    def fsync_dir(self, path: str) -> None:
        """Make the entries of a folder durable."""

    def makedirs(self, path: str) -> None:
        """Make a folder and its parents; no error if it is there. Durable on return."""

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes `[offset, offset + length)`, short at the end of the file."""
        ...

    def list_files(self, path: str) -> list[tuple[str, int]]:
        """(name, size) of the regular files in a folder, unsorted; empty if there is no folder."""
        ...
