"""What the first builds took as patterns to leave out, said in the syntax of ``.gitignore``.

Those were matched as :mod:`fnmatch` does: ``*`` matched ``/`` too, and a pattern that began with one was a full path.
What a translation cannot say (a ``*`` in the middle of a name, ``?`` or ``[...]`` that match ``/``) it says of one
name, and so leaves out less; what is no pattern any more is dropped. ``?`` and ``[...]`` stand for a character now and
not for a byte.
"""

import re
import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

_SET: Final = re.compile(r"\[(!?+\]?+[^\]]*+)\]")


def to_gitignore(pattern: bytes, roots: Sequence[bytes]) -> list[bytes]:
    """Return the patterns that do for a dataset's roots what the old one did; none if that was nothing."""
    text = pattern.decode("latin-1")  # every byte a character of its own
    folders = "/" if len(text) > 1 and text.endswith("/") else ""
    plain = text.removesuffix(folders)
    if plain.startswith("/"):
        found = [said for root in roots for said in _below(plain, root.decode("latin-1").rstrip("/"))]
    else:
        found = [_translated(plain)] if plain else []
    said = [one + folders if folders else _shielded(one) for one in dict.fromkeys(found)]
    return [one.encode("latin-1") for one in said if _means_something(one)]


def _below(plain: str, root: str) -> list[str]:
    """Return a full path for each way in which its beginning matched a root."""
    parts = plain.split("/")
    found = []
    for count in range(1, len(parts)):
        begin, rest = "/".join(parts[:count]), _translated("/" + "/".join(parts[count:]))
        if rest != "/" and fnmatchcase(root, begin):
            # A * at the end of what matched the root matched any folders below it, too.
            found.append(_literal(root) + ("/**" if begin.endswith("*") else "") + rest)
    return found


def _literal(path: str) -> str:
    return str(GitIgnoreSpecPattern.escape(path))


def _translated(plain: str) -> str:
    names = plain.split("/")
    last = len(names) - 1
    said = []
    for place, name in enumerate(names):
        # Where a * touches a /, it stood for any folders in between.
        if last and name.startswith("*") and name.strip("*"):
            said.append("**")
        said.append(_one_name(name))
        if place < last and name.endswith("*"):
            said.append("**")
    found = "/".join(said)
    return "\\" + found if found.startswith(("!", "#")) else found


def _one_name(name: str) -> str:
    said = ""
    place = 0
    while place < len(name):
        character = name[place]
        found = _SET.match(name, place) if character == "[" else None
        if found:
            # To fnmatch a ^ in front was a character like others.
            inside = found[1]
            said += "\\^" if inside == "^" else f"[{inside[1:]}^]" if inside.startswith("^") else found[0]
            place = found.end()
            continue
        if not (character == "*" and said.endswith("*")):
            said += "\\" + character if character in "\\[" else character
        place += 1
    return said


def _shielded(pattern: str) -> str:
    """Keep spaces at the end, which mean nothing without a backslash."""
    return pattern[:-1] + "\\ " if pattern.endswith(" ") else pattern


def _means_something(pattern: str) -> bool:
    """Return whether a pattern can be used: not with a range that is upside down, nor with a set that begins with [."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        try:
            return GitIgnoreSpecPattern(pattern).include is not None
        except (ValueError, re.error, FutureWarning):
            return False
