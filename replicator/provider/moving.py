"""Moving a provider's objects to another disk: most of it while it serves, the end while it does not.

An object never changes once it has its name, so copying needs no pause; only what came and went meanwhile does.
Stopped anywhere, the same move goes on from there:

    1 a note in the new folder says whose store is being copied there
    2 each object is read, compared with its name, and durable there before the next
    3 with the daemon stopped: what came since is copied, what went since goes there too, quarantine follows
    4 the new folder gets the counter and, last, the store's id
    5 home.json names the new folder, and where the data was: this is the move
    6 the old folder's store id gets another name, so that nobody takes it for the store any more
    7 the note goes

What lies in the old folder is deleted by a step of its own, each object after the new one was read and is good.
"""

import errno
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from replicator.config import format_size
from replicator.errors import HomeError, NotFoundError, SpaceError
from replicator.format.merkle import name_of
from replicator.format.sizes import LARGEST
from replicator.fs import Fs, write_atomic
from replicator.ids import ObjectName, TenantId
from replicator.provider.datadir import GENERATION, SENTINEL, DataDir
from replicator.store.folder import BAD_MEDIA, FolderObjectStore, parse_name

log = logging.getLogger(__name__)

NOTE: Final = ".replicator-moving"
MOVED: Final = ".replicator-moved"
_OURS: Final = frozenset({NOTE, SENTINEL, GENERATION, "lost+found"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done: ``objects`` of ``size`` bytes lie in the old folder, ``left`` bytes not in the new one yet.

    ``room`` is what the new disk has left for them.
    """

    source: str
    target: str
    objects: int
    size: int
    left_objects: int
    left: int
    room: int


@dataclass(slots=True)
class Copied:
    """What was done. ``damaged`` objects are not what they are called, and count nowhere."""

    objects: int = 0
    size: int = 0
    removed: int = 0
    damaged: list[tuple[TenantId, ObjectName]] = field(default_factory=list)
    kept: int = 0
    """Objects of the old folder that are not deleted, because the new one has them not, or not good."""


class Move:
    """One store on its way from ``source`` to ``target``. ``keep`` writes what home.json says: data, where it was.

    ``tenants`` are those of the store and ``erased`` those that were; both may change while most is copied.
    """

    def __init__(
        self,
        fs: Fs,
        *,
        source: str,
        target: str,
        store: bytes,
        tenants: Callable[[], list[TenantId]],
        erased: Callable[[], list[TenantId]],
        floor: int,
        keep: Callable[[str, str], None],
    ) -> None:
        self._fs = fs
        self._old = DataDir(fs, source, store)
        self._new = DataDir(fs, target, store)
        self._store = store
        self._tenants = tenants
        self._erased = erased
        self._floor = floor
        self._keep = keep

    def plan(self) -> Plan:
        """Return what is to be copied.

        Raises:
            HomeError: the data is not mounted; the new folder is in it, holds it, or has something else in it.
            SpaceError: it does not fit there.
        """
        self._check()
        objects = size = left_objects = left = 0
        for old, new in self._stores():
            there = dict(new.list())
            for name, bytes_ in old.list():
                objects, size = objects + 1, size + bytes_
                if there.get(name) != bytes_:
                    left_objects, left = left_objects + 1, left + bytes_
        room = self._fs.free_bytes(_existing(self._new.path)) - self._floor
        if left > room:
            raise SpaceError(
                f"{self._new.path}: {format_size(left)} have to fit, and there are {format_size(max(0, room))} beside "
                "what stays free",
                hint="choose a larger disk, or let tenants have less first: `provider drain --to`",
            )
        return Plan(
            source=self._old.path,
            target=self._new.path,
            objects=objects,
            size=size,
            left_objects=left_objects,
            left=left,
            room=room,
        )

    def copy(self, advance: Callable[[int], None] = lambda _size: None) -> Copied:
        """Copy what is not there yet; the daemon may run. ``advance`` is told of bytes.

        Raises:
            SpaceError: the new disk is full.
        """
        done = Copied()
        self._fs.makedirs(self._new.path)
        write_atomic(self._fs, os.path.join(self._new.path, NOTE), self._store.hex().encode() + b"\n")
        for tenant in self._tenants():
            old, new = self._old.tenant(tenant), self._new.tenant(tenant)
            there = dict(new.list())
            for name, size in old.list():
                if there.get(name) == size:
                    continue
                try:
                    data = old.read(name)
                except NotFoundError:
                    continue  # swept or set aside meanwhile
                except OSError as error:
                    if error.errno not in BAD_MEDIA:
                        raise
                    data = b""
                if name_of(data) != name:
                    done.damaged.append((tenant, name))
                    continue
                new.put_named(name, data)
                done.objects, done.size = done.objects + 1, done.size + size
                advance(size)
        return done

    def finish(self, advance: Callable[[int], None] = lambda _size: None) -> Copied:
        """Copy the rest, and switch over. The caller holds the home's lock, so that nothing comes or goes.

        Raises:
            SpaceError: the new disk is full; nothing was switched.
            HomeError: the new folder is not what the old one is; nothing was switched.
        """
        self._check()
        done = self.copy(advance)
        for tenant, name in done.damaged:
            self._old.tenant(tenant).check(name)  # which sets it aside
        for tenant in self._tenants():
            done.removed += self._follow(tenant)
        self._new.set_generation(self._old.generation())
        write_atomic(self._fs, os.path.join(self._new.path, SENTINEL), self._store.hex().encode() + b"\n")
        self._keep(self._new.path, self._old.path)
        self.settle()
        return done

    def settle(self) -> None:
        """Do what is left once home.json names the new folder: no other can be taken for the store."""
        with suppress(FileNotFoundError):
            self._fs.replace(os.path.join(self._old.path, SENTINEL), os.path.join(self._old.path, MOVED))
            self._fs.fsync_dir(self._old.path)
        with suppress(FileNotFoundError):
            self._fs.unlink(os.path.join(self._new.path, NOTE))
            self._fs.fsync_dir(self._new.path)

    def remove_old(self, needed: Callable[[TenantId, ObjectName], bool], *, dry_run: bool) -> Copied:
        """Delete what lies in the old folder; each object only after the new one's was read and is good.

        ``needed`` says whether an object is still one of the tenant's; what is not, or is an erased tenant's, goes
        without one.

        Raises:
            HomeError: the old folder is still a store, or was none of this provider's.
        """
        old_id = _text(self._fs, os.path.join(self._old.path, MOVED))
        if self._old.mounted() or old_id != self._store.hex():
            raise HomeError(
                f"{self._old.path}: not a folder that this provider has moved away from", hint="nothing was deleted"
            )
        done = Copied()
        tenants, erased = self._tenants(), self._erased()
        for tenant in erased:
            left = self._old.tenant(tenant).list()
            done.objects, done.size = done.objects + len(left), done.size + sum(size for _, size in left)
            if not dry_run:
                self._old.remove(tenant)
        for tenant in tenants:
            old, new = self._old.tenant(tenant), self._new.tenant(tenant)
            good = []
            for name, size in old.list():
                if needed(tenant, name) and not _is_good(new, name, dry_run=dry_run):
                    done.kept += 1
                    continue
                good.append(name)
                done.objects, done.size = done.objects + 1, done.size + size
            if good and not dry_run:  # who came later has no folder there
                old.remove_all(good)
        if not dry_run and not done.kept:
            for tenant in tenants:
                self._old.remove(tenant)
            self._keep(self._new.path, "")  # before its mark goes: without that nobody could say whose it was
            for text in (GENERATION, MOVED):
                with suppress(FileNotFoundError):
                    self._fs.unlink(os.path.join(self._old.path, text))
            self._fs.fsync_dir(self._old.path)
        return done

    def _follow(self, tenant: TenantId) -> int:
        """Let what went from the old folder go from the new one, and bring quarantine; return how many went.

        Raises:
            HomeError: after that they are not the same.
        """
        old, new = self._old.tenant(tenant), self._new.tenant(tenant)
        here, there = dict(old.list()), dict(new.list())
        gone = sorted(there.keys() - here.keys())
        if gone:
            new.remove_all(gone)
        source, target = self._old.quarantine(tenant), self._new.quarantine(tenant)
        known = {name for name, _ in self._fs.list_files(target)}
        for text, size in self._fs.list_files(source):
            if text not in known and size <= LARGEST and parse_name(text) is not None:
                self._fs.makedirs(target)
                data = b""
                with suppress(OSError):  # the disk does not give it back, and it counts nowhere
                    data = self._fs.read(os.path.join(source, text))
                write_atomic(self._fs, os.path.join(target, text), data)
        if dict(new.list()) != here:
            raise HomeError(
                f"{self._new.path}: what was copied there is not what lies in {self._old.path}",
                hint="run the same command again; nothing was switched",
            )
        return len(gone)

    def _stores(self) -> Iterator[tuple[FolderObjectStore, FolderObjectStore]]:
        for tenant in self._tenants():
            yield self._old.tenant(tenant), self._new.tenant(tenant)

    def _check(self) -> None:
        source, target = os.path.realpath(self._old.path), os.path.realpath(self._new.path)
        if not self._old.mounted():
            raise HomeError(
                f"{self._old.path}: the disk with the objects is not mounted", hint="mount it, and try again"
            )
        if source == target or _same(source, target):
            raise HomeError(f"{self._new.path}: the objects lie there already", hint="give another folder with --data")
        if target.startswith(f"{source}/") or source.startswith(f"{target}/"):
            raise HomeError(
                f"{self._new.path}: one of the two folders is inside the other", hint="give a folder on another disk"
            )
        try:
            entries = os.listdir(target)
        except FileNotFoundError:
            return
        except OSError as error:
            raise HomeError(
                f"{self._new.path}: {error.strerror}", hint="give a folder that can be written to"
            ) from error
        noted = _text(self._fs, os.path.join(target, NOTE))
        if set(entries) <= {"lost+found"} or noted == self._store.hex():
            return
        raise HomeError(
            f"{self._new.path}: there is something in it that no move of this provider put there",
            hint="give a folder that is empty, or not there yet",
        )


def erase_left(fs: Fs, folder: str, store: bytes, tenant: TenantId) -> None:
    """Remove everything of a tenant from a folder that the store was moved away from, durably.

    Raises:
        OSError: the folder is not there, or is another one; or the disk does not do it.
    """
    if store.hex() not in (_text(fs, os.path.join(folder, name)) for name in (MOVED, SENTINEL)):
        log.error("a folder from before a move is not there, and may hold copies of a tenant that is to be erased")
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    DataDir(fs, folder, store).remove(tenant)


def _existing(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _same(one: str, other: str) -> bool:
    """Return whether two paths are one folder, mounted twice."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _text(fs: Fs, path: str) -> str:
    try:
        return fs.read(path, 0, 64).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _is_good(store: FolderObjectStore, name: ObjectName, *, dry_run: bool) -> bool:
    if dry_run:
        return store.size(name) is not None
    return store.check(name) == "good"
