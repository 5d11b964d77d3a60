"""Compare two trees of a file system object by object, without any code of the project.

Run it by hand as ``python -m tests.compare LEFT RIGHT``.
"""

import os
import stat
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = 1 << 20
AnyPath = bytes | str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What has to agree besides names, kinds, sizes, bytes, modes, links and times of files."""

    owners: bool = True
    xattrs: bool = True
    folder_times: bool = True
    holes: bool = False
    """Whether a file with unallocated blocks on the left has some on the right."""


def compare(left: AnyPath, right: AnyPath, rules: Rules | None = None) -> list[str]:
    """Return the differences below two folders in words, empty if there are none."""
    rules = rules or Rules()
    one, other = os.fsencode(left), os.fsencode(right)
    differences = list(_folders(one, other, b"", rules))
    if _link_groups(one) != _link_groups(other):
        differences.append(f"hard links: {_link_groups(one)} and {_link_groups(other)}")
    return differences


def _folders(left: bytes, right: bytes, path: bytes, rules: Rules) -> Iterator[str]:
    there, here = set(os.listdir(_join(left, path))), set(os.listdir(_join(right, path)))
    for name in sorted(there ^ here):
        yield f"{_join(path, name)!r}: only on the {'left' if name in there else 'right'}"
    for name in sorted(there & here):
        inner = _join(path, name)
        yield from _objects(left, right, inner, rules)


def _objects(left: bytes, right: bytes, path: bytes, rules: Rules) -> Iterator[str]:
    one, other = _join(left, path), _join(right, path)
    a, b = os.lstat(one), os.lstat(other)
    if stat.S_IFMT(a.st_mode) != stat.S_IFMT(b.st_mode):
        yield f"{path!r}: kind {stat.filemode(a.st_mode)} and {stat.filemode(b.st_mode)}"
        return
    link, folder = stat.S_ISLNK(a.st_mode), stat.S_ISDIR(a.st_mode)
    fields = [("mode", oct(a.st_mode), oct(b.st_mode))]
    if rules.owners:
        fields.append(("owner", f"{a.st_uid}:{a.st_gid}", f"{b.st_uid}:{b.st_gid}"))
    if rules.folder_times or not folder:
        fields.append(("mtime", str(a.st_mtime_ns), str(b.st_mtime_ns)))
    if link:
        fields.append(("target", repr(os.readlink(one)), repr(os.readlink(other))))
    if stat.S_ISCHR(a.st_mode) or stat.S_ISBLK(a.st_mode):
        fields.append(("device", str(a.st_rdev), str(b.st_rdev)))
    if rules.xattrs:
        fields.append(("attributes", str(_xattrs(one)), str(_xattrs(other))))
    if stat.S_ISREG(a.st_mode):
        fields.append(("size", str(a.st_size), str(b.st_size)))
        if rules.holes:
            fields.append(("sparse", str(a.st_blocks * 512 < a.st_size), str(b.st_blocks * 512 < b.st_size)))
    for what, was, is_now in fields:
        if was != is_now:
            yield f"{path!r}: {what} {was} and {is_now}"
    if stat.S_ISREG(a.st_mode) and a.st_size == b.st_size and not _same_bytes(one, other):
        yield f"{path!r}: other bytes"
    if folder:
        yield from _folders(left, right, path, rules)


def _same_bytes(one: bytes, other: bytes) -> bool:
    with open(one, "rb") as a, open(other, "rb") as b:
        while True:
            left, right = a.read(BLOCK), b.read(BLOCK)
            if left != right:
                return False
            if not left:
                return True


def _xattrs(path: bytes) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in sorted(names)}


def _link_groups(top: bytes) -> list[list[bytes]]:
    groups = defaultdict(list)
    for folder, folders, files in os.walk(top):
        for name in files + folders:
            path = _join(folder, name)
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
                groups[status.st_dev, status.st_ino].append(path[len(top) :])
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def main() -> int:
    """Print the differences between two folders; 1 if there are any."""
    differences = compare(sys.argv[1], sys.argv[2])
    print("\n".join(differences) or "no difference")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
