"""Owner, attributes, mode and times of something that was just restored, as far as the process may set them."""

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from replicator.format.tree import Entry, Xattr

OWNER: Final = "its owner and group were not set"
SETID: Final = "its setuid or setgid bit was not set"
MODE: Final = "its mode was not set"
TIMES: Final = "its times were not set"
GUARDED: Final = "its security and trusted attributes were not set"
ATTRIBUTE: Final = "not all of its extended attributes were set"
NEEDS_PRIVILEGE: Final = "device nodes are only made by a privileged restore"
OF_METADATA: Final = frozenset({OWNER, SETID, MODE, TIMES, GUARDED, ATTRIBUTE})
"""What leaves an entry and its bytes as they were."""
BEYOND_A_USER: Final = {
    OWNER: "owner{s} not set",
    SETID: "setuid or setgid bit{s} not set",
    GUARDED: "set{s} of guarded attributes not set",
    NEEDS_PRIVILEGE: "device{s} not made",
}
"""What a restore without privilege cannot do, whatever the data: what is then no fault of it, by its reason."""

_SETID_BITS: Final = stat.S_ISUID | stat.S_ISGID
_GUARDED_PREFIXES: Final = (b"security.", b"trusted.")
_NAMES: Final = 4096
"""Names that are remembered: a snapshot may hold any number of different ones."""
_INHERITED_PREFIXES: Final = ("user.", "system.posix_acl_")


@dataclass(frozen=True, slots=True)
class Rights:
    """What may be set.

    ``privileged`` allows owners, setuid and setgid bits, guarded attributes and devices: right when root
    restores its own tenant's data. ``numeric_ids`` takes the stored numbers even where the stored names exist.
    """

    privileged: bool
    numeric_ids: bool = False


@dataclass(slots=True)
class Owners:
    """Whose a thing is on this machine: by its stored names where they exist here, else by its stored numbers."""

    numeric_ids: bool = False
    _users: dict[str, int | None] = field(default_factory=dict)
    _groups: dict[str, int | None] = field(default_factory=dict)
    _last: tuple[str, int, str, int] | None = None
    _found: tuple[int, int] = (0, 0)

    def of(self, entry: Entry) -> tuple[int, int]:
        """Return user and group."""
        stored = entry.user, entry.uid, entry.group, entry.gid
        if stored != self._last:  # what comes next is mostly of the same ones
            self._found, self._last = self._look_up(entry), stored
        return self._found

    def _look_up(self, entry: Entry) -> tuple[int, int]:
        uid = self._id(self._users, entry.user, entry.uid, lambda name: pwd.getpwnam(name).pw_uid)
        gid = self._id(self._groups, entry.group, entry.gid, lambda name: grp.getgrnam(name).gr_gid)
        return uid, gid

    def _id(self, known: dict[str, int | None], name: str, number: int, look_up: Callable[[str], int]) -> int:
        if not name or self.numeric_ids:
            return number
        found = known.get(name)
        if found is None and name not in known:
            with suppress(KeyError, ValueError):  # no such name here, or one that the C library does not take
                found = look_up(name)
            if len(known) >= _NAMES:
                known.clear()
            known[name] = found
        return number if found is None else found


@dataclass(slots=True)
class Metadata:
    """Sets metadata by an open handle: a descriptor, or its path in ``/proc`` for what cannot be opened to read."""

    rights: Rights
    _owners: Owners = field(init=False)

    def __post_init__(self) -> None:
        self._owners = Owners(self.rights.numeric_ids)

    def apply(self, handle: int | str, entry: Entry) -> Iterator[str]:
        """Set everything and yield what was not set; the order matters (a new owner clears capabilities)."""
        status = os.stat(handle)
        owner = self._owners.of(entry)
        is_owned = owner == (status.st_uid, status.st_gid)
        if not (is_owned or self._owner(handle, owner, status)):
            yield OWNER
        present = _attributes_of(handle)
        if present or entry.xattrs:
            yield from self._attributes(handle, entry.xattrs, present)
        if entry.kind != "link":
            mode = entry.mode
            if mode & _SETID_BITS and not self.rights.privileged:
                mode &= ~_SETID_BITS
                yield SETID
            # A new owner clears bits of it, and an access list is a part of it.
            is_set = is_owned and not present and not entry.xattrs and stat.S_IMODE(status.st_mode) == mode
            if not (is_set or _done(lambda: os.chmod(handle, mode))):
                yield MODE
        if not _done(lambda: os.utime(handle, ns=(entry.mtime_ns, entry.mtime_ns))):
            yield TIMES

    def is_like(self, status: os.stat_result, entry: Entry) -> bool:
        """Return whether a status has all of an entry's metadata that a status can have; False if it has more."""
        if entry.xattrs or status.st_mtime_ns != entry.mtime_ns or stat.S_IMODE(status.st_mode) != entry.mode:
            return False
        return (status.st_uid, status.st_gid) == self._owners.of(entry)

    def is_bare(self, handle: int | bytes) -> bool:
        """Return whether a file or folder has no attributes that :meth:`apply` would remove; False if not known.

        A name is looked at where it stands: through no link.
        """
        try:
            names = os.listxattr(handle) if isinstance(handle, int) else os.listxattr(handle, follow_symlinks=False)
        except OSError as error:
            return error.errno == errno.ENOTSUP
        return not any(name.startswith(_INHERITED_PREFIXES) for name in names)

    def _owner(self, handle: int | str, owner: tuple[int, int], status: os.stat_result) -> bool:
        uid, gid = owner
        if self.rights.privileged:
            return _done(lambda: os.chown(handle, uid, gid))
        # Without privilege a file's group may still become another one of its owner's groups.
        group_done = gid == status.st_gid or _done(lambda: os.chown(handle, -1, gid))
        return group_done and uid == status.st_uid

    def _attributes(self, handle: int | str, wanted: list[Xattr], present: list[str]) -> Iterator[str]:
        allowed = [one for one in wanted if self.rights.privileged or not one.name.startswith(_GUARDED_PREFIXES)]
        if len(allowed) < len(wanted):
            yield GUARDED
        names = {os.fsdecode(one.name) for one in allowed}
        complete = True
        for name in present:
            # What a new file inherits from its folder's default ACL is not what it had.
            if name.startswith(_INHERITED_PREFIXES) and name not in names:
                complete &= _done(lambda: os.removexattr(handle, name))  # noqa: B023 - called at once
        for one in allowed:
            complete &= _done(lambda: os.setxattr(handle, one.name, one.value))  # noqa: B023 - called at once
        if not complete:
            yield ATTRIBUTE


def _attributes_of(handle: int | str) -> list[str]:
    try:
        return os.listxattr(handle)
    except OSError:
        return []  # none are possible here; setting one will say so


def unset_in_words(counts: Mapping[str, int]) -> str:
    """Return what was beyond a user, by its reasons' counts, in one line; empty if nothing was."""
    said = [
        f"{count} {words.format(s='' if count == 1 else 's')}"
        for reason, words in BEYOND_A_USER.items()
        if (count := counts.get(reason, 0))
    ]
    return f"{', '.join(said)}: not root" if said else ""


def _done(act: Callable[[], None]) -> bool:
    """Return whether it worked; a full disk is not a matter of rights and goes on as an error."""
    try:
        act()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        return False
    except (OverflowError, ValueError):  # a number or name that this system does not have
        return False
    return True
