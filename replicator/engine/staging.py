"""A folder that holds one archive of a Borg repository after another, and is changed as little as may be between them.

What did not change keeps its inode and its times, by which the capture that follows knows that it need not be read.
Before an archive counts as extracted, every name in it is looked at.
"""

import os
import shutil
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from replicator.engine.borg import Archive, Borg, Said, is_full
from replicator.engine.borgitems import Listing, changes, check_paths, differs, lacks, listing_of, patterns
from replicator.engine.edge import Progress
from replicator.errors import SourceError, SpaceError
from replicator.fs import Fs, write_atomic
from replicator.snapshot.capture import Owners
from replicator.snapshot.gaps import Gap
from replicator.snapshot.mapped import MappedSource
from replicator.snapshot.tree import MAX_NAME
from replicator.snapshot.walk import Status

MAX_ROOTS: Final = 100
"""Names at the top of an archive that become roots, each by itself."""
BROKEN: Final = "damaged in the repository: borg has put zeros where its data was"
_UNTIMED: Final = 0o755


class StagedSource(MappedSource):
    """Roots that are read in the staging folder; what is mounted on this machine at their own paths says nothing."""

    def mounts(self) -> bytes:
        """Nothing is mounted there."""
        return b""


@dataclass(slots=True)
class Staged:
    """An archive as it lies in the staging folder.

    ``items`` are all of it, ``extracted`` those of them that borg wrote. ``gaps`` did not come out as they are in the
    archive, ``broken`` of them because they are damaged there; ``lacking`` counts what this user may not set.
    """

    roots: tuple[bytes, ...]
    source: StagedSource
    owners: Owners
    items: int
    extracted: int
    gaps: list[Gap] = field(default_factory=list)
    broken: int = 0
    lacking: Counter[str] = field(default_factory=Counter)
    warnings: list[Said] = field(default_factory=list)


class Staging:
    """The folder of one series of archives, which is made and is removed with all that is in it."""

    def __init__(self, folder: str, fs: Fs) -> None:
        self._fs = fs
        self._folder = folder
        self._tree = os.path.join(folder, "tree")
        self._listing: Listing = {}
        self._clear()

    def close(self) -> None:
        """Remove it; idempotent."""
        remove_tree(self._folder)

    def stage(self, borg: Borg, archive: Archive, *, name: str, privileged: bool, progress: Progress) -> Staged:
        """Let the folder hold an archive; ``name`` is what a root is called that has no name in it.

        Raises:
            SourceError, IntegrityError, ...: borg failed (see :class:`Borg`); what is there is for the next to clear.
            SpaceError: the folder's disk is full.
        """
        listing = listing_of(borg.items(archive.name))
        check_paths(listing)
        planned = changes(self._listing, listing) if self._listing else None
        before, self._listing = self._listing, {}
        if planned is None:
            if before:
                self._clear()
            done = borg.extract(archive.name, self._tree, progress=progress)
        else:
            for path in planned.extract:
                # What was no folder may be a link to one of this machine's, which is none of ours to change.
                if path in before and before[path].mode.startswith("d"):
                    self._bare(path)
            for path in planned.remove:
                self._remove(path)
            chosen = os.path.join(self._folder, "patterns")
            write_atomic(self._fs, chosen, patterns(planned.extract).encode())
            done = borg.extract(archive.name, self._tree, patterns=chosen, progress=progress)
        if is_full([one.text for one in done.warnings]):
            raise SpaceError(
                f"{self._folder}: the disk is full; it must hold a whole archive",
                hint="name a folder on a larger disk with --staging",
            )
        self._settle(listing, archive.start_ns)
        roots, places = self._roots(listing, name)
        staged = Staged(
            roots=roots,
            source=StagedSource(places),
            owners=_owners(listing),
            items=len(listing),
            extracted=len(listing) if planned is None else len(planned.extract),
            warnings=done.warnings,
        )
        self._look(listing, staged, privileged=privileged)
        self._listing = listing
        return staged

    def _clear(self) -> None:
        self.close()
        self._fs.makedirs(self._tree)

    def _path(self, path: bytes) -> bytes:
        return os.path.join(os.fsencode(self._tree), path)

    def _remove(self, path: bytes) -> None:
        place = self._path(path)
        with suppress(FileNotFoundError, NotADirectoryError):  # gone with what was around it, or not a folder yet
            if stat.S_ISDIR(os.lstat(place).st_mode):
                remove_tree(place)
            else:
                os.unlink(place)

    def _bare(self, path: bytes) -> None:
        """Make a folder plain and open: borg only adds attributes, and what is made in it would inherit some.

        What it has in the archive is set again when all that is in it is there.
        """
        place = self._path(path)
        with suppress(FileNotFoundError, NotADirectoryError):  # gone with what was around it, or not a folder yet
            if stat.S_ISDIR(os.lstat(place).st_mode):
                os.chmod(place, stat.S_IRWXU)
                for name in os.listxattr(place, follow_symlinks=False):
                    with suppress(OSError):  # of the system's
                        os.removexattr(place, name, follow_symlinks=False)

    def _settle(self, listing: Listing, at_ns: int) -> None:
        """Give folders that borg had to make, and that are not in the archive, a look that does not change."""
        made = {above for path in listing for above in _folders(path)} - listing.keys()
        for path in sorted(made, reverse=True):
            with suppress(FileNotFoundError):
                os.chmod(self._path(path), _UNTIMED)
                os.utime(self._path(path), ns=(at_ns, at_ns))

    def _roots(self, listing: Listing, name: str) -> tuple[tuple[bytes, ...], dict[bytes, bytes]]:
        tops = {path.partition(b"/")[0] for path in listing}
        tree = os.fsencode(self._tree)
        if b"." in tops or not 0 < len(tops) <= MAX_ROOTS:
            root = b"/" + os.fsencode(name)[:MAX_NAME]
            return (root,), {root: tree}
        places = {b"/" + top: os.path.join(tree, top) for top in sorted(tops)}
        return tuple(places), places

    def _look(self, listing: Listing, staged: Staged, *, privileged: bool) -> None:
        """Compare what is there with what should be.

        Raises:
            SourceError: nothing of it is there.
        """
        missing = 0
        for path, item in listing.items():
            if not item.exact:
                continue
            status: Status | None = None
            with suppress(OSError):  # whatever keeps us from it will keep the capture from it
                status = os.lstat(self._path(path))
            wrong = differs(item, status)
            if not item.whole:
                staged.broken += 1
                wrong = BROKEN
            if wrong:
                staged.gaps.append(Gap(b"/" + path, wrong))
                missing += status is None
            if status is not None:
                staged.lacking.update(lacks(item, status))
        if privileged and missing == len(listing) > 0:
            raise SourceError("borg says that it extracted the archive, and nothing of it is there")


def _folders(path: bytes) -> Iterator[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def _owners(listing: Listing) -> Owners:
    users: dict[int, str] = {}
    groups: dict[int, str] = {}
    for item in listing.values():
        # Where an archive has no name, borg lists the number.
        users.setdefault(item.uid, "" if item.user == str(item.uid) else item.user)
        groups.setdefault(item.gid, "" if item.group == str(item.gid) else item.group)
    return Owners(users, groups)


def remove_tree(folder: str | bytes) -> None:
    """Remove a folder of ours, if it is there, with folders in it that even their owner may not write in."""
    top = os.fsencode(folder)
    for inner, folders, _ in os.walk(top):
        for name in folders:
            path = os.path.join(inner, name)
            if not os.path.islink(path) and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                os.chmod(path, stat.S_IRWXU)
    with suppress(FileNotFoundError):
        shutil.rmtree(top)


@contextmanager
def stagings(folder: str, fs: Fs) -> Iterator["Stagings"]:
    """Give staging folders below one, which are all removed at the end."""
    found = Stagings(folder, fs)
    try:
        yield found
    finally:
        found.close()


class Stagings:
    """A staging folder for each series of archives, so that hosts that take turns do not undo each other's."""

    def __init__(self, folder: str, fs: Fs) -> None:
        self._folder = folder
        self._fs = fs
        self._of: dict[str, Staging] = {}
        remove_tree(folder)  # left by a run that was killed

    def of(self, series: str) -> Staging:
        """Return the one of a series."""
        if series not in self._of:
            self._of[series] = Staging(os.path.join(self._folder, f"{len(self._of)}"), self._fs)
        return self._of[series]

    def close(self) -> None:
        """Remove them all."""
        for staging in self._of.values():
            staging.close()
        with suppress(OSError):
            os.rmdir(self._folder)
