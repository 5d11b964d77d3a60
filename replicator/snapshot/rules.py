"""What a dataset leaves out of the folders it names, besides what cannot be saved at all."""

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from replicator.config import format_size
from replicator.snapshot.tree import escape

if TYPE_CHECKING:
    from replicator.snapshot.walk import Folder

CACHE_TAG: Final = b"CACHEDIR.TAG"
CACHE_SIGNATURE: Final = b"Signature: 8a477f597d28d172789f06886806bc55"
"""What the tag's file begins with (bford.info/cachedir)."""
SKIPPED_CACHE: Final = "what is in a cache folder (CACHEDIR.TAG)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Chosen for a dataset. None of them ever leaves out a root itself.

    ``exclude`` are patterns (:mod:`replicator.snapshot.exclude`). ``markers`` are names: of a folder that holds one,
    nothing but that is saved. Files of more than ``largest`` bytes are left out.
    """

    exclude: Sequence[bytes | str] = ()
    one_file_system: bool = False
    keep_caches: bool = False
    markers: Sequence[bytes] = ()
    largest: int | None = None

    def marker(self, folder: "Folder", names: Sequence[bytes]) -> tuple[bytes, str] | None:
        """Return the one name that is saved of a folder and why, if all others in it are left out."""
        if not self.keep_caches and CACHE_TAG in names and _is_cache(folder):
            return CACHE_TAG, SKIPPED_CACHE
        for marker in self.markers:
            if marker in names:
                return marker, f"what is beside a file called {escape(marker)}"
        return None

    @property
    def too_large(self) -> str:
        """Why a file above the limit is left out."""
        return "" if self.largest is None else f"larger than {format_size(self.largest)}"


def _is_cache(folder: "Folder") -> bool:
    """Return whether a tag is a true one: a regular file that begins as it has to."""
    begin = bytearray(len(CACHE_SIGNATURE))
    try:
        if not stat.S_ISREG(folder.status(CACHE_TAG).st_mode):
            return False
        file = folder.open(CACHE_TAG)
        try:
            filled = 0
            while filled < len(begin) and (count := file.read_into(memoryview(begin)[filled:])):
                filled += count
        finally:
            file.close()
    except OSError:
        return False  # a tag that cannot be read says nothing, so everything is saved
    return begin == CACHE_SIGNATURE
