"""Tree entries as a PAX tar stream (POSIX.1-2017, pax, "pax Interchange Format") as GNU tar reads and writes it.

=====================================  ==================================================================
owner, times, names, sizes             POSIX records, wherever the old fields have no room for them
extended attributes                    ``SCHILY.xattr.NAME``; in NAME "%" is ``%25`` and "=" is ``%3D``, as in GNU tar
access lists                           ``SCHILY.acl.access``, ``SCHILY.acl.default``: short text with numbers for names
sparse files                           GNU sparse format 1.0
names that are not UTF-8               as they are, announced by ``hdrcharset=BINARY``
=====================================  ==================================================================

GNU tar takes a stream that ends between two members for a whole archive, with or without the end mark. So every
member begins with an extended header, and nothing of :class:`TarStream` ever leaves off between two members: its end
is either the end mark or in the middle of something.
"""

import os
import struct
from collections.abc import Callable, Iterator
from typing import Final

from replicator.errors import FormatError
from replicator.format.tree import Entry, Hole, Xattr
from replicator.snapshot.tree import TreePath, escape

BLOCK: Final = 512
RECORD: Final = 20 * BLOCK
"""What archives are padded to: GNU tar's default, and POSIX's."""
_BUFFER: Final = 256 << 10
_NAME: Final = 100
_PERSON: Final = 31
"""Bytes of a user's or group's name in a header, which ends with a zero."""
_MOST_ID: Final = 0o7777777
_MOST_SIZE: Final = 0o77777777777
_MOST_DEVICE: Final = 0o7777777
_NS: Final = 10**9
_FURTHER: Final = b"1"
_TYPES: Final = {"file": b"0", "link": b"2", "char": b"3", "block": b"4", "dir": b"5", "fifo": b"6"}
_ACCESS: Final = b"system.posix_acl_access"
_DEFAULT: Final = b"system.posix_acl_default"
_ACL_KEYS: Final = {_ACCESS: b"SCHILY.acl.access", _DEFAULT: b"SCHILY.acl.default"}
_ACL_VERSION: Final = 2
_ACL_TAGS: Final = {1: "user", 2: "user", 4: "group", 8: "group", 0x10: "mask", 0x20: "other"}
_ACL_NAMED: Final = (2, 8)

Write = Callable[[bytes], None]


class TarStream:
    """Writes members one by one; ``write`` is handed parts that may be of any length."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._out: list[bytes | memoryview] = []
        self._size = 0
        self._held: bytes | memoryview = b""
        self._left = 0
        self._padding = 0
        self.written = 0
        """Bytes of the stream so far."""

    def member(self, path: TreePath, entry: Entry, first: bytes | None = None) -> list[tuple[int, int]]:
        """Begin a member; return the ranges of its content that :meth:`content` is to be given, from first to last.

        ``first`` is the name in this stream of the file that it is a further name of.

        Raises:
            FormatError: a number in the entry has no place in a tar archive.
        """
        if self._left:
            raise ValueError(f"{self._left} bytes of the last member are missing")
        ranges = [] if first is not None or entry.kind != "file" else stored_ranges(entry)
        head, self._left = _head(path, entry, first, ranges)
        self._padding = -self._left % BLOCK
        if self._left:
            self._release(head)
        else:
            self._release(head[:BLOCK])
            self._held = head[BLOCK:]
        return ranges

    def content(self, data: bytes | memoryview) -> None:
        """Go on with the content of the last member."""
        if len(data) > self._left:
            raise ValueError(f"{len(data)} bytes of content, {self._left} are left")
        self._left -= len(data)
        if self._left:
            self._release(data)
            return
        # Of the last block at least a byte is content: while it is held back a reader knows that something is missing.
        kept = min(len(data), BLOCK - self._padding)
        self._release(data[: len(data) - kept])
        self._held = bytes(data[len(data) - kept :]) + bytes(self._padding)

    def finish(self) -> None:
        """Write the end mark: only now this is an archive."""
        if self._left:
            raise ValueError(f"{self._left} bytes of the last member are missing")
        total = self.written + len(self._held) + 2 * BLOCK
        self._release(bytes(2 * BLOCK + -total % RECORD))
        self.flush()

    def flush(self) -> None:
        """Hand over what is complete, but for what would make the stream look whole."""
        out, self._out, self._size = self._out, [], 0
        if out:
            self._write(b"".join(out))

    def _release(self, data: bytes | memoryview) -> None:
        for part in (self._held, data):
            if part:
                self._out.append(part)
                self._size += len(part)
                self.written += len(part)
        self._held = b""
        if self._size >= _BUFFER:
            self.flush()


def stored_ranges(entry: Entry) -> list[tuple[int, int]]:
    """Return (start, end) of what of a file's content lies outside its holes, in order, none of them empty."""
    ranges = []
    at = 0
    for hole in (*entry.holes, Hole(offset=entry.size, length=0)):
        if hole.offset > at:
            ranges.append((at, hole.offset))
        at = hole.offset + hole.length
    return ranges


def _head(path: TreePath, entry: Entry, first: bytes | None, ranges: list[tuple[int, int]]) -> tuple[bytes, int]:
    """Return what comes before a member's content, and how many bytes of content follow."""
    name = b"/".join(path) + (b"/" if entry.kind == "dir" else b"")
    target = entry.target if first is None else first
    length = sum(end - start for start, end in ranges)
    table = _sparse_map(entry.size, ranges) if entry.holes and entry.kind == "file" and first is None else b""
    stored = length + len(table)
    records = list(_records(name, target, entry, stored, sparse=bool(table)))
    charset = b"" if all(map(_is_text, (name, target))) else _record(b"hdrcharset", b"BINARY")
    extended = charset + b"".join(_record(key, value) for key, value in records)
    shown = (_sparse_name(path) if table else name)[:_NAME]
    if entry.kind != "dir":
        shown = shown.rstrip(b"/")  # cut there, it would say that this is a folder
    kind = _TYPES[entry.kind] if first is None else _FURTHER
    parts = (
        _header(b"PaxHeaders/" + entry.name, b"x", size=len(extended)),
        _padded(extended),
        _header(shown, kind, entry, size=stored, target=target),
        table,
    )
    return b"".join(parts), length


def _records(name: bytes, target: bytes, entry: Entry, stored: int, *, sparse: bool) -> Iterator[tuple[bytes, bytes]]:
    """Yield an extended header's records. The time is always among them, so that there always is one."""
    if sparse:
        yield b"GNU.sparse.major", b"1"
        yield b"GNU.sparse.minor", b"0"
        yield b"GNU.sparse.name", name
        yield b"GNU.sparse.realsize", b"%d" % entry.size
    elif len(name) > _NAME or not name.isascii():
        yield b"path", name
    if len(target) > _NAME or not target.isascii():
        yield b"linkpath", target
    if stored > _MOST_SIZE:
        yield b"size", b"%d" % stored
    yield b"mtime", _seconds(entry.mtime_ns)
    for key, number in ((b"uid", entry.uid), (b"gid", entry.gid)):
        if number > _MOST_ID:
            yield key, b"%d" % number
    for key, person in ((b"uname", entry.user.encode()), (b"gname", entry.group.encode())):
        if b"\0" not in person and (len(person) > _PERSON or not person.isascii()):
            yield key, person
    for attribute in entry.xattrs:
        yield _attribute(attribute)


def _attribute(attribute: Xattr) -> tuple[bytes, bytes]:
    text = _acl_text(attribute.value) if attribute.name in _ACL_KEYS else ""
    if text:
        return _ACL_KEYS[attribute.name], text.encode()
    return b"SCHILY.xattr." + attribute.name.replace(b"%", b"%25").replace(b"=", b"%3D"), attribute.value


def _acl_text(value: bytes) -> str:
    """Return an access list of Linux (posix_acl_xattr.h, version 2) as short text; empty if it is none."""
    if len(value) < 4 or (len(value) - 4) % 8 or struct.unpack_from("<I", value)[0] != _ACL_VERSION:
        return ""
    entries = []
    for tag, rights, number in struct.iter_unpack("<HHI", value[4:]):
        if tag not in _ACL_TAGS or rights > 7:
            return ""
        who = str(number) if tag in _ACL_NAMED else ""
        said = "".join(letter if rights & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
        entries.append(f"{_ACL_TAGS[tag]}:{who}:{said}")
    return ",".join(entries)


def _sparse_map(size: int, ranges: list[tuple[int, int]]) -> bytes:
    """Return the map before a sparse file's content; a last range of no bytes says where the file ends."""
    ended = ranges if ranges and ranges[-1][1] == size else [*ranges, (size, size)]
    lines = [len(ended), *(number for start, end in ended for number in (start, end - start))]
    return _padded(b"".join(b"%d\n" % line for line in lines))


def _sparse_name(path: TreePath) -> bytes:
    return b"/".join((*path[:-1], b"GNUSparseFile.0", path[-1]))


def _seconds(ns: int) -> bytes:
    """Return a time in decimal seconds."""
    sign, (whole, part) = b"-" if ns < 0 else b"", divmod(abs(ns), _NS)
    return sign + b"%d" % whole + (b".%09d" % part).rstrip(b"0").rstrip(b".")


def _record(key: bytes, value: bytes) -> bytes:
    """Return "LENGTH KEY=VALUE" and a new line; the length counts its own digits too."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _header(name: bytes, kind: bytes, entry: Entry | None = None, *, size: int, target: bytes = b"") -> bytes:
    """Return a ustar header; what does not fit is cut, or left 0: a record says it.

    Raises:
        FormatError: a device's number has no place.
    """
    is_device = entry is not None and entry.kind in ("char", "block")
    major, minor = (os.major(entry.rdev), os.minor(entry.rdev)) if entry is not None and is_device else (0, 0)
    if max(major, minor) > _MOST_DEVICE:
        raise FormatError(f"{escape(name)}: a tar archive has no room for the device number {major}:{minor}")
    seconds = 0 if entry is None else entry.mtime_ns // _NS
    fields = (
        name[:_NAME].ljust(_NAME, b"\0"),
        b"%07o\0" % (0o600 if entry is None else entry.mode),
        _octal(0 if entry is None else entry.uid, _MOST_ID, 7),
        _octal(0 if entry is None else entry.gid, _MOST_ID, 7),
        _octal(size, _MOST_SIZE, 11),
        _octal(seconds, _MOST_SIZE, 11),
        b" " * 8,
        kind,
        target[:_NAME].ljust(_NAME, b"\0"),
        b"ustar\x0000",
        _person("" if entry is None else entry.user),
        _person("" if entry is None else entry.group),
        _octal(major, _MOST_DEVICE, 7),
        _octal(minor, _MOST_DEVICE, 7),
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(number: int, most: int, digits: int) -> bytes:
    return b"%0*o\0" % (digits, number if 0 <= number <= most else 0)


def _person(name: str) -> bytes:
    data = name.encode()
    fits = data.isascii() and len(data) <= _PERSON and b"\0" not in data
    return (data if fits else b"").ljust(_PERSON + 1, b"\0")


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)
