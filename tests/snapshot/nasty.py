"""A tree with one of everything that file systems have and backup programs forget."""

import errno
import os
import shutil
import socket
import struct
from pathlib import Path

ODD_NAMES = (
    b"spaces and  more ",
    b"-rf",
    b"new\nline",
    b"tab\tbell\x07escape\x1b[31m",
    b"latin-1 \xe5\xe4\xf6",
    b"\xff\xfe",
    "ÅÄÖ 日本語 🗄".encode(),
    b"*?[a-z]",
    b"back\\slash",
    b"...",
    b"~",
    b"n" * 255,
    b"%s%n",
    b"$(reboot)`reboot`",
)
DEEP = 150


def build(top: Path) -> set[str]:
    """Fill an empty folder; return what this machine and user could not make."""
    missing = set()
    base = os.fsencode(top)
    for number, name in enumerate(ODD_NAMES):
        _write(base + b"/" + name, name * number)
    (top / "empty").write_bytes(b"")
    (top / "empty folder").mkdir()
    (top / "large").write_bytes(os.urandom(70_000) + bytes(70_000) + b"end")
    os.truncate(_touch(top / "only a hole"), 300_000)
    with open(top / "sparse", "wb") as file:
        for place in (0, 1 << 20, 3 << 20):
            file.seek(place)
            file.write(b"data" * 5000)
        file.truncate((4 << 20) + 17)
    (top / "links").mkdir()
    for further in ("hard a", "hard b", "links/c"):
        os.link(top / "large", top / further)
    os.symlink("/etc/passwd", top / "absolute link")
    os.symlink("loop", top / "loop")
    os.symlink("../..", top / "links" / "up")
    os.symlink(b"\xff" * 300, base + b"/dangling")
    os.link(top / "loop", top / "hard symlink", follow_symlinks=False)
    os.mkfifo(top / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(top)  # a socket's path has room for 107 bytes only
        server.bind("socket")
        os.chdir(here)
    deep = top
    for level in range(DEEP):
        deep = deep / f"{level}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_bytes(b"deep")
    if os.geteuid() == 0:
        os.chmod(_touch(top / "mode 0"), 0)
    else:
        missing.add("unreadable file")  # not even to be compared
    for mode in (0o400, 0o777, 0o1644, 0o4755, 0o2755, 0o6711):
        os.chmod(_touch(top / f"mode {mode:o}"), mode)
    for mode in (0o500, 0o555, 0o700, 0o1777, 0o2755):
        folder = top / f"folder {mode:o}"
        folder.mkdir()
        _touch(folder / "in it")
        os.chmod(folder, mode)
    missing |= _attributes(top)
    if os.geteuid() == 0:
        os.chown(_touch(top / "of somebody"), 12345, 54321)
        os.chown(top / "absolute link", 1, 2, follow_symlinks=False)
    else:
        missing.add("owners")
    try:
        os.mknod(top / "null", 0o666 | 0o020000, os.makedev(1, 3))
        os.mknod(top / "disk", 0o600 | 0o060000, os.makedev(7, 200))
    except PermissionError:
        missing.add("devices")
    os.utime(top / "empty", ns=(1, 1))
    os.utime(top / "large", ns=(-1_000_000_001, -1_000_000_001))
    os.utime(top / "loop", ns=(7, 123_456_789), follow_symlinks=False)
    os.utime(top / "links", ns=(5, 987_654_321))
    os.utime(top / "empty folder", ns=(5, 4_000_000_000_000_000_001))
    return missing


def change(top: Path) -> None:
    """Change a tree that :func:`build` made, in most ways in which a tree can change; the socket must be gone."""
    base = os.fsencode(top)
    os.rename(base + b"/\xff\xfe", base + b"/\xfe\xff")
    os.unlink(base + b"/new\nline")
    (top / "new\nline").mkdir()  # what was a file
    _write(base + b"/new\nline/\x1b[2J", b"now in a folder")
    shutil.rmtree(top / "links")
    os.symlink("empty folder", top / "links")  # what was a folder
    os.unlink(top / "hard b")  # its content gets a file of its own
    _write(base + b"/hard b", b"no longer the same file")
    os.unlink(top / "fifo")
    _write(base + b"/fifo", b"now a file")
    os.unlink(top / "empty")
    os.mkfifo(top / "empty", 0o600)
    with open(top / "sparse", "r+b") as file:
        file.seek(2 << 20)
        file.write(b"data in what was a hole")
        file.truncate(5 << 20)
    with open(top / "large", "ab") as file:
        file.write(b"longer")
    os.truncate(top / "only a hole", 100_001)
    os.chmod(top / "mode 400", 0o4711)  # noqa: S103 - is to be restored
    os.chmod(top / "folder 500", 0o711)  # noqa: S103 - likewise
    os.unlink(top / "dangling")
    os.symlink(b"\xfe" * 200, base + b"/dangling")
    for name in os.listxattr(top / "attribute 0"):
        if name.startswith("user."):
            os.removexattr(top / "attribute 0", name)
    os.setxattr(top / "attribute 1", "user.bytes", b"others")
    shutil.rmtree(top / "0" / "1" / "2" / "3")
    os.utime(top / "0" / "1" / "2", ns=(9, 9))
    _write(base + b"/new", b"new")
    os.link(top / "new", top / "new too")


def take_privileges(top: Path) -> None:
    """Take away what a restore without privilege does not give back."""
    for path in (*top.glob("mode *"), *top.glob("folder *"), *top.glob("attribute *")):
        mode = path.lstat().st_mode
        if mode & 0o6000:
            os.chmod(path, mode & 0o1777)
        for name in os.listxattr(path):
            if name.startswith(("trusted.", "security.")):
                os.removexattr(path, name)


def _attributes(top: Path) -> set[str]:
    missing = set()
    # POSIX ACL, version 2: tag, permissions, id; user::rw- user:1000:r-- group::r-- mask::r-- other::---
    entries = ((1, 6, -1), (2, 4, 1000), (4, 4, -1), (0x10, 4, -1), (0x20, 0, -1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *one) for one in entries)
    # File capability, version 2: cap_net_bind_service, effective and permitted
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    for number, (name, value) in enumerate(
        (
            ("user.empty", b""),
            ("user.bytes", bytes(range(256))),
            ("system.posix_acl_access", acl),
            ("trusted.note", b"for root only"),
            ("security.capability", capability),
        )
    ):
        try:
            os.setxattr(_touch(top / f"attribute {number}"), name, value)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise
            missing.add(name)
    folder = top / "inheriting"
    folder.mkdir()
    try:
        os.setxattr(folder, "system.posix_acl_default", acl)
    except OSError:
        missing.add("system.posix_acl_default")
    _touch(folder / "heir")
    return missing


def _touch(path: Path) -> Path:
    path.write_bytes(b"something")
    return path


def _write(path: bytes, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
