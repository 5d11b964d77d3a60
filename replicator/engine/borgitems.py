"""What differs between two archives, item by item, and how borg is told to extract just that; no I/O."""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from replicator.clock import NS
from replicator.engine.borg import Item
from replicator.errors import IntegrityError
from replicator.snapshot.tree import escape
from replicator.snapshot.walk import Status

MAX_ODD: Final = 200
"""Paths that need a regular expression each, which borg tries on every item."""
SLACK_US: Final = 2
"""borg's times in text have gone through a float."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: Final = {
    "-": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "p": stat.S_IFIFO,
    "c": stat.S_IFCHR,
    "b": stat.S_IFBLK,
}

Listing = Mapping[bytes, Item]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """From one archive to the next: what to remove first, deepest first, and what to extract then.

    Folders around what changes are extracted too, which is to say that their times and attributes are set again.
    """

    remove: list[bytes]
    extract: set[bytes]


def listing_of(items: Iterable[Item]) -> Listing:
    """Return what an archive lists, by path. Overlapping paths given to borg are in it twice; the last one counts.

    Raises:
        IntegrityError: one of two is a folder and the other is not, which would hide a link that borg goes through.
    """
    found: dict[bytes, Item] = {}
    for item in items:
        path = item.path.rstrip(b"/")
        former = found.get(path)
        if former is not None and _is_folder(former) != _is_folder(item):
            raise IntegrityError(f"{escape(path)} is in the archive as a folder, and as something else")
        found[path] = item
    return found


def check_paths(listing: Listing) -> None:
    """Refuse an archive that would reach out of the folder it is extracted to.

    Raises:
        IntegrityError: a path, or the first name of a hard link, goes up or leads through something that is no folder;
            or a path is absolute.
    """
    others = {_normal(path) for path, item in listing.items() if not _is_folder(item)}
    if b"" in others:
        raise IntegrityError("the archive would put something else where it is extracted")
    shown = {_shown(path) for path in others}
    for path, item in listing.items():
        if not path or path.startswith(b"/") or b".." in path.split(b"/"):
            raise IntegrityError(f"{escape(path)} in the archive would reach out of where it is extracted")
        for above in _above(_normal(path)):
            if above in others:
                raise IntegrityError(f"{escape(path)} in the archive leads through {escape(above)}, which is no folder")
        if item.mode.startswith("h"):
            source = os.fsencode(item.source)
            through = any(_shown(above) in shown for above in _above(_normal(source)))
            if through or b".." in source.split(b"/"):
                raise IntegrityError(f"{escape(path)} in the archive is a link out of where it is extracted")


def _is_folder(item: Item) -> bool:
    return item.mode.startswith("d")


def _normal(path: bytes) -> bytes:
    """Return a path as the system takes it: with nothing between its names but one slash."""
    return b"/".join(part for part in path.split(b"/") if part not in {b"", b"."})


def changes(old: Listing, new: Listing) -> Changes | None:
    """Return what differs between two archives; None if it is simpler, or safer, to extract the new one as a whole.

    An item that is listed as it was, its times and change time to the microsecond, is taken for the same: so does borg
    itself when it makes an archive. That is not done for archives without change times, nor where names are not exact.
    """
    if not (_tells(old) and _tells(new)):
        return None
    changed = {path for path, item in new.items() if old.get(path) != item}
    gone = old.keys() - new.keys()
    groups = [*_links(old), *_links(new)]
    while True:
        # A file with several names changes as one: its names are links to each other, and not to what it was before.
        more = {path for group in groups if group & (changed | gone) for path in group & new.keys()} - changed
        if not more:
            break
        changed |= more
    remove = gone | {
        path for path in changed & old.keys() if not (old[path].mode.startswith("d") and new[path].mode.startswith("d"))
    }
    folders = {
        above for path in changed | gone for above in _above(path) if above in new and new[above].mode.startswith("d")
    }
    extract = changed | folders
    if b"." in new:
        extract.add(b".")
    if len(extract) > len(new) // 2 or sum(_is_odd(path) for path in extract) > MAX_ODD:
        return None
    return Changes(remove=sorted(remove, reverse=True), extract=extract)


def _tells(listing: Listing) -> bool:
    """Return whether unchanged items can be told in an archive."""
    return all(item.exact for item in listing.values()) and any(item.ctime != item.mtime for item in listing.values())


def _links(listing: Listing) -> list[set[bytes]]:
    """Return the names of files that have several; where borg says too little of the first, all it may be."""
    named: dict[str, set[bytes]] = {}
    for path, item in listing.items():
        if item.mode[0] in "-bcp":
            named.setdefault(_shown(path), set()).add(path)
    groups: dict[str, set[bytes]] = {}
    for path, item in listing.items():
        if item.mode.startswith("h"):
            groups.setdefault(item.source, set(named.get(item.source, ()))).add(path)
    return list(groups.values())


def _shown(path: bytes) -> str:
    """Return a path as borg writes the first name of a hard link."""
    return os.fsdecode(path).encode(errors="replace").decode()


def _above(path: bytes) -> list[bytes]:
    """Return the folders around a path, the innermost first."""
    found = []
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        found.append(path)
    return found


def patterns(paths: Iterable[bytes]) -> str:
    """Return the file of patterns by which ``borg extract --patterns-from`` takes these paths and no others."""
    plain, odd = [], []
    for path in sorted(paths):
        text = os.fsdecode(path)
        if _is_odd(path):
            odd.append("+ re:^" + "".join(map(_escaped, text)) + r"\Z")
        else:
            plain.append(f"+ pf:{text}")
    return "\n".join([*plain, *odd, "- re:^", ""])


def _is_odd(path: bytes) -> bool:
    """Return whether a line of a file of patterns cannot hold a path as it is."""
    try:
        text = path.decode()
    except UnicodeDecodeError:
        return True
    return text.strip() != text or "\n" in text or "\r" in text or os.path.normpath(text) != text


def _escaped(letter: str) -> str:
    if letter.isascii() and letter.isprintable() and letter != " ":
        return re.escape(letter)
    return f"\\U{ord(letter):08x}"


def differs(item: Item, status: Status | None) -> str:
    """Return in what a thing on the disk is not what its archive says, in words; empty if in nothing.

    Owners and bits of the mode are looked at by themselves (:func:`lacks`).
    """
    if status is None:
        return "was not extracted"
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR if item.mode.startswith("h") else kind != _KINDS.get(item.mode[0]):
        return "was extracted as something else"
    if item.mode.startswith("-") and status.st_size != item.size:
        return f"was extracted with {status.st_size} of {item.size} bytes"
    if abs(_us(item.mtime) - status.st_mtime_ns // 1000) > SLACK_US:
        return "was extracted without its time"
    return ""


def lacks(item: Item, status: Status) -> list[str]:
    """Return what of its owner and mode a thing on the disk lacks."""
    lacking = []
    if (status.st_uid, status.st_gid) != (item.uid, item.gid):
        lacking.append("owner")
    if stat.filemode(status.st_mode)[1:] != item.mode[1:] and not item.mode.startswith("l"):
        lacking.append("mode")
    return lacking


def _us(text: str) -> int:
    at = datetime.fromisoformat(text)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    found = at - _EPOCH
    return (found.days * 86400 + found.seconds) * (NS // 1000) + found.microseconds
