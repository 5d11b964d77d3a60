"""What can go wrong with a seen-index on disk.

    ChunkerError
    └── SeenIndexError   the folder's: what lies there cannot be trusted; rebuild it from the packs' directories

A failing disk raises OSError as it is. After any failed write the index refuses further use until it is opened
again, because what the disk holds is then unknown.
"""

from chunker.errors import ChunkerError


class SeenIndexError(ChunkerError):
    """The index in `folder` cannot be used; `reason` says why. No data is lost: it is a cache."""

    def __init__(self, folder: str, reason: str) -> None:
        super().__init__(folder, reason)
        self.folder = folder
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.folder}: the seen-index {self.reason}; rebuild it from the packs' directories"
