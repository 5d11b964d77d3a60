"""A mount as the kernel sees it: :mod:`.mount` bound to libfuse by mfusepy, which is imported when it is used.

The loop goes on in its thread and fetches packs. libfuse answers the kernel on threads of its own, at most ten at a
time, that wait for the loop. No error leaves a callback but as a number, and none without being told.
"""

import asyncio
import errno
import itertools
import os
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterator
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

from replicator.engine.mount import Listed, Mounted, MountReport, Node, Reading
from replicator.engine.packmemory import StoppedError
from replicator.errors import MountError, UsageError

if TYPE_CHECKING:
    from types import ModuleType

P = ParamSpec("P")
T = TypeVar("T")
DEVICE: Final = "/dev/fuse"
EXTRA: Final = "pip install 'replicator[mount]'"
THREADS: Final = 10
"""Threads that wait for the kernel; libfuse has no more than these by itself."""
TIMEOUT_S: Final = 3600
"""How long the kernel may believe what it was told: a snapshot never changes."""
_POSIX_ACL: Final = 1 << 19
"""FUSE_CAP_POSIX_ACL: the kernel itself goes by ACLs (libfuse, fuse_common.h)."""
_BLOCK: Final = 128 << 10
"""What programs are told to read at once; the kernel splits larger reads anyway."""
_HELPERS: Final = ("fusermount3", "fusermount")
_BEFORE: Final = 2
"""Lines of a directory before its entries: itself and the folder above."""


def load() -> "ModuleType":
    """Return mfusepy.

    Raises:
        MountError: it, or libfuse, is not here; the hint says what to do.
    """
    try:
        import mfusepy  # noqa: PLC0415 - an extra, and it loads libfuse
    except ImportError as error:
        raise MountError("mounting needs the library mfusepy, which is not installed", hint=f"run: {EXTRA}") from error
    except (OSError, AttributeError) as error:
        raise MountError(
            f"libfuse cannot be used ({error})",
            hint="install it (Debian and Ubuntu: apt install fuse3), or say where it is in FUSE_LIBRARY_PATH",
        ) from error
    return mfusepy  # type: ignore[no-any-return] # a module without type information


def check_machine(device: str = DEVICE) -> None:
    """Check that this machine can mount.

    Raises:
        MountError: names what is missing, and the hint how to get it.
    """
    if not os.path.exists(device):
        raise MountError(
            f"this machine has no {device}, which mounting needs",
            hint="load the kernel module (as root: modprobe fuse) and install the package fuse3; "
            "a container needs `--device /dev/fuse --cap-add SYS_ADMIN`",
        )
    if not os.access(device, os.R_OK | os.W_OK, effective_ids=True):
        raise MountError(f"you may not use {device}", hint=f"as root: chmod 666 {device}, or join the group that may")
    load()
    if os.geteuid() != 0 and not any(map(shutil.which, _HELPERS)):
        raise MountError(
            "mounting as another user than root needs the program fusermount3",
            hint="install the package fuse3 (Debian and Ubuntu: apt install fuse3)",
        )


def check_place(folder: str) -> None:
    """Check that something can be mounted on a folder.

    Raises:
        UsageError: it is not there, no folder, or has a mount already.
        MountError: it belongs to somebody else.
    """
    try:
        is_folder = stat.S_ISDIR(os.stat(folder).st_mode)
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: no such folder", hint=f"make it: mkdir {folder}") from error
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            raise UsageError(
                f"{folder}: a mount whose process is gone is left here", hint=f"run: fusermount3 -u {folder}"
            ) from error
        raise UsageError(f"{folder}: {error.strerror}") from error
    if not is_folder:
        raise UsageError(f"{folder}: not a folder")
    if os.path.ismount(folder):
        raise UsageError(
            f"{folder}: something is mounted here already",
            hint=f"name another folder, or run: fusermount3 -u {folder}",
        )
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise MountError(f"{folder}: you may not write here, so you may not mount here", hint="take a folder of yours")


class _AnsweredError(OSError):
    """An answer to the kernel that is nobody's fault."""

    def __init__(self, number: int) -> None:
        super().__init__(number, os.strerror(number))


def _told(
    operation: "Callable[Concatenate[Operations, bytes, P], T]",
) -> "Callable[Concatenate[Operations, str, P], T]":
    """Take a path from mfusepy and let nothing out but numbers: what goes wrong is EIO, and told."""

    @wraps(operation)
    def run(self: "Operations", path: str, *args: P.args, **kwargs: P.kwargs) -> T:
        name = _bytes(path)[1:]
        try:
            return operation(self, name, *args, **kwargs)
        except _AnsweredError:
            raise
        except StoppedError:
            raise _AnsweredError(errno.EIO) from None
        except Exception as error:  # one file that cannot be read must not end the mount
            self.report.unreadable(name, error)
            raise _AnsweredError(errno.EIO) from None

    return run  # type: ignore[return-value] # wraps() keeps the names of arguments, which nobody passes by name


class Operations:
    """What mfusepy calls, on many threads. What is not here, libfuse answers; the kernel refuses every write itself."""

    use_ns = True

    def __init__(self, mounted: Mounted, report: MountReport, *, ready: Callable[[], object], acl: bool) -> None:
        self.report = report
        self.stopping = False
        self._mounted = mounted
        self._ready = ready
        self._acl = acl
        self._handles: dict[int, Node | Reading] = {}
        self._numbers = itertools.count(1)

    def init_with_config(self, connection: Any, _config: Any) -> None:
        """Take note that the kernel has answered."""
        if self._acl and connection is not None and connection.capable & _POSIX_ACL:
            connection.want |= _POSIX_ACL
        self._ready()

    @_told
    def getattr(self, path: bytes, _handle: int | None = None) -> dict[str, int]:
        """Say what something is."""
        found = self._mounted.stat(self._node(path))
        return {
            "st_ino": found.inode,
            "st_mode": found.mode,
            "st_nlink": found.names,
            "st_uid": found.uid,
            "st_gid": found.gid,
            "st_size": found.size,
            "st_blocks": found.blocks,
            "st_blksize": _BLOCK,
            "st_rdev": found.rdev,
            "st_atime": found.mtime_ns,
            "st_mtime": found.mtime_ns,
            "st_ctime": found.ctime_ns,
        }

    @_told
    def readlink(self, path: bytes) -> str:
        """Say where a symbolic link leads."""
        return _text(self._node(path).entry.target)

    @_told
    def listxattr(self, path: bytes) -> list[str]:
        """Say which extended attributes there are."""
        return [_text(one.name) for one in self._node(path).entry.xattrs]

    @_told
    def getxattr(self, path: bytes, name: str) -> bytes:
        """Say what an extended attribute holds."""
        value = self._mounted.attribute(self._node(path), _bytes(name))
        if value is None:
            raise _AnsweredError(errno.ENODATA)
        return value

    @_told
    def opendir(self, path: bytes) -> int:
        """Return a handle for a folder."""
        return self._hold(self._node(path))

    def releasedir(self, _path: str, handle: int) -> int:
        """Let go of a folder."""
        self._handles.pop(handle, None)
        return 0

    def readdir_with_offset(self, path: str, offset: int, handle: int) -> Iterator[tuple[str, dict[str, int], int]]:
        """Yield lines of a directory from a place on, until the kernel's page is full."""
        if offset < 1:
            yield ".", {"st_mode": stat.S_IFDIR}, 1
        if offset < _BEFORE:
            yield "..", {"st_mode": stat.S_IFDIR}, _BEFORE
        lines = self._lines(path, max(offset - _BEFORE, 0), handle)
        while (line := self._next(path, lines)) is not None:
            yield _text(line.name), {"st_mode": line.kind, "st_ino": line.inode}, line.after + _BEFORE

    @_told
    def _lines(self, _path: bytes, at: int, handle: int) -> Iterator[Listed]:
        node = self._handles[handle]
        assert isinstance(node, Node), "the kernel does not mix them up"
        return self._mounted.entries(node, at)

    @_told
    def _next(self, _path: bytes, lines: Iterator[Listed]) -> Listed | None:
        return next(lines, None)

    @_told
    def open(self, path: bytes, _flags: int) -> int:
        """Return a handle for a file."""
        return self._hold(self._mounted.open(self._node(path)))

    def release(self, _path: str, handle: int) -> int:
        """Let go of a file."""
        self._handles.pop(handle, None)
        return 0

    @_told
    def read(self, _path: bytes, size: int, offset: int, handle: int) -> bytes:
        """Give bytes of an open file."""
        return self._reading(handle).read(offset, size)

    @_told
    def lseek(self, _path: bytes, offset: int, whence: int, handle: int) -> int:
        """Say where data or a hole begins; the kernel seeks otherwise."""
        reading = self._reading(handle)
        found = reading.seek_data(offset) if whence == os.SEEK_DATA else reading.seek_hole(offset)
        if found is None:
            raise _AnsweredError(errno.ENXIO)
        return found

    def statfs(self, _path: str) -> dict[str, int]:
        """Say what the file system is, or end it: libfuse can be told to only inside an answer."""
        if self.stopping:
            load().fuse_exit()
        return {"f_bsize": _BLOCK, "f_frsize": _BLOCK, "f_namemax": 255}

    def _reading(self, handle: int) -> Reading:
        reading = self._handles[handle]
        assert isinstance(reading, Reading), "the kernel does not mix them up"
        return reading

    def _node(self, path: bytes) -> Node:
        node = self._mounted.get(path)
        if node is None:
            raise _AnsweredError(errno.ENOENT)
        return node

    def _hold(self, what: Node | Reading) -> int:
        number = next(self._numbers)
        self._handles[number] = what
        return number


async def serve(
    mounted: Mounted,
    report: MountReport,
    folder: str,
    *,
    allow_other: bool,
    announce: Callable[[], None],
    stop: "asyncio.Future[None]",
    close: Callable[[], Awaitable[None]],
) -> None:
    """Mount on a folder and return when it is unmounted again: by somebody, or as ``stop`` has a result.

    ``announce`` is called as soon as programs can look in. ``close`` is awaited before the end: from then on no
    operation may wait for anything.

    Raises:
        MountError: it could not be mounted; libfuse has said why on standard error.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    operations = Operations(mounted, report, ready=partial(loop.call_soon_threadsafe, settle, ready), acl=allow_other)
    serving = loop.run_in_executor(None, partial(_run, operations, folder, allow_other=allow_other))
    try:
        await asyncio.wait([serving, ready], return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            announce()
            await asyncio.wait([serving, stop], return_when=asyncio.FIRST_COMPLETED)
    finally:
        await close()
        operations.stopping = True
        if not serving.done():
            await asyncio.to_thread(os.statvfs, folder)  # an answer in which libfuse is told to end
    await serving


def settle(future: "asyncio.Future[None]") -> None:
    """Give a future its result, once."""
    if not future.done():
        future.set_result(None)


def _run(operations: Operations, folder: str, *, allow_other: bool) -> None:
    """Serve the kernel until the mount ends; libfuse unmounts even if somebody is still in there."""
    mfusepy = load()

    class Fuse(mfusepy.FUSE):  # type: ignore[misc, name-defined] # a module without type information
        def lseek(self, path: bytes, offset: int, whence: int, info: Any) -> int:
            """Hand on what mfusepy has no wrapper for."""
            return operations.lseek(_text(path), offset, whence, info.contents.fh)

    options: dict[str, Any] = {"allow_other": True, "default_permissions": True} if allow_other else {}
    if mfusepy.fuse_version_major == 3:
        options["max_idle_threads"] = THREADS  # libfuse 3.14 complains of its own default
    try:
        Fuse(
            operations,
            os.path.abspath(folder),
            foreground=True,
            ro=True,
            nodev=True,
            nosuid=True,
            fsname="replicator",
            subtype="replicator",
            use_ino=True,
            kernel_cache=True,
            entry_timeout=TIMEOUT_S,
            attr_timeout=TIMEOUT_S,
            **options,
        )
    except RuntimeError as error:
        hint = "is user_allow_other in /etc/fuse.conf?" if allow_other and os.geteuid() != 0 else ""
        raise MountError(
            f"{folder}: libfuse could not mount, or lost the mount (its code: {error})", hint=hint
        ) from error


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
