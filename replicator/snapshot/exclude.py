"""What a dataset leaves out, by shell patterns.

A pattern is matched as :mod:`fnmatch` does (``*`` and ``?`` match ``/`` too, ``[...]`` a set, case matters):

- against the path relative to the root and against the last name alone: ``*.tmp``, ``node_modules``,
  ``projects/*/build``;
- against the full path if it begins with ``/``: ``/home/anna/.cache``;
- if it ends with ``/``, folders only: ``cache/``.

What is in an excluded folder is not looked at. A root itself is never excluded. Patterns are bytes: a string
is encoded as the file system's names are.
"""

import fnmatch
import os
import re
from collections.abc import Sequence


class Excludes:
    """Patterns made ready; matches nothing if there are none."""

    def __init__(self, patterns: Sequence[bytes | str] = ()) -> None:
        self._anchored: list[tuple[re.Pattern[bytes], bool]] = []
        self._relative: list[tuple[re.Pattern[bytes], bool]] = []
        for pattern in map(os.fsencode, patterns):
            folders_only = len(pattern) > 1 and pattern.endswith(b"/")
            plain = pattern[:-1] if folders_only else pattern
            group = self._anchored if plain.startswith(b"/") else self._relative
            # Latin-1 keeps every byte a character of its own, as fnmatch itself does for bytes.
            group.append((re.compile(fnmatch.translate(plain.decode("latin-1")).encode("latin-1")), folders_only))

    def __bool__(self) -> bool:
        """Whether there is any pattern."""
        return bool(self._anchored or self._relative)

    def match(self, relative: bytes, path: bytes, *, folder: bool) -> bool:
        """Return whether something is left out: by its path below the root, and by its full path."""
        for pattern, folders_only in self._relative:
            if (folder or not folders_only) and (
                pattern.match(relative) or pattern.match(relative[relative.rfind(b"/") + 1 :])
            ):
                return True
        return any(pattern.match(path) for pattern, folders_only in self._anchored if folder or not folders_only)
