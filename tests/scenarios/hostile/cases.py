"""Hostile trees and objects, each as what a writer with all rights of a node could publish.

``build`` returns the entries of a folder called ``evil``, or the content of the top directory if ``top``. What must
come of a restore:

    refused   an error of the project, before or while it restores
    damaged   the folder, or the file, is named as lost; everything else is restored
    gap       it is restored but for what is named
    restored  it is restored whole; ``then`` looks at it
    hidden    the snapshot is not to be seen, which is told; all others are
"""

import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import msgspec
import zstandard

from tests.scenarios.hostile.specwriter import (
    DATA,
    FIELDS,
    LIST,
    MIB,
    NOTHING,
    RAW,
    TREE,
    ZSTD,
    Bend,
    Ref,
    Writer,
    encoded,
    entry,
    frame,
    sealed_to,
)

Outcome = Literal["refused", "damaged", "gap", "restored", "hidden"]
Build = Callable[[Writer, str], list[Any]]
EVIL = b"evil" * 1000


@dataclass(frozen=True, kw_only=True)
class Case:
    """One snapshot; ``why`` is looked for in what is said, ``bend`` is for the writer's stages."""

    name: str
    outcome: Outcome
    build: Build
    why: str = ""
    top: bool = False
    bend: dict[str, Bend] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    then: Callable[[str], None] = lambda _: None
    users: str = ""
    """What a restore without rights comes to, if that is another outcome."""


CASES: list[Case] = []


def case(name: str, outcome: Outcome, build: Build, why: str = "", **more: Any) -> None:
    """Add one."""
    CASES.append(Case(name=name, outcome=outcome, build=build, why=why, **more))


def evil(writer: Writer, _outside: str = "") -> list[Any]:
    """Return a folder's entries that are all right."""
    return [writer.file(b"file", EVIL)]


def changed(**changes: Any) -> Build:
    """Return one file with fields replaced."""

    def build(writer: Writer, _outside: str) -> list[Any]:
        fields = dict(zip(FIELDS, writer.file(b"file", EVIL), strict=True))
        return [list((fields | changes).values())]

    return build


def only(*entries: list[Any]) -> Build:
    """Return these entries."""
    return lambda _writer, _outside: list(entries)


# names

for shown, name in {
    "dot dot": b"..",
    "dot": b".",
    "nothing": b"",
    "a slash": b"/",
    "a path": b"a/b",
    "an absolute path": b"/etc/passwd",
    "a way out": b"../outside/secret",
    "a zero byte": b"a\0b",
    "256 bytes": b"n" * 256,
    "100 000 bytes": b"n" * 100_000,
}.items():
    case(f"a file called {shown}", "damaged", changed(name=name), "entry|Expected")
    case(f"a folder called {shown}", "damaged", only(entry(name, "dir", mode=0o755)), "entry|Expected")
    case(f"a link called {shown}", "damaged", only(entry(name, "link", target=b"x")), "entry|Expected")

ODD_NAMES = sorted(
    [
        b"\x1b]0;title\x07",
        b"\x1b[2J",
        b"\xc2\x9b31m",
        b"\xff\xfe",
        b"new\nline",
        "\u202egnp.exe".encode(),
        b"\x7f\r",
        b"-rf",
    ]
)
case(
    "names with control bytes, of no text, and that turn round",
    "restored",
    lambda w, _: [w.file(name, EVIL) for name in ODD_NAMES],
    then=lambda path: _same(sorted(os.listdir(os.fsencode(path))), ODD_NAMES),
)


# order


def _same(one: object, other: object) -> None:
    assert one == other


case("names that fall", "damaged", lambda w, _: [w.file(b"b"), w.file(b"a")], "a comes after b")
case("a name twice", "damaged", lambda w, _: [w.file(b"a"), w.file(b"a")], "a comes after a")
case(
    "a link and a folder of one name",
    "damaged",
    lambda w, out: [entry(b"a", "link", target=os.fsencode(out)), w.directory(b"a", evil(w))],
    "a comes after a",
)
case(
    "a file and a folder of one name", "damaged", lambda w, _: [w.file(b"a"), w.directory(b"a", evil(w))], "comes after"
)


def _folder(*pieces: Any) -> Build:
    def build(writer: Writer, _outside: str) -> list[Any]:
        parts = [[writer.file(name, EVIL) for name in piece] for piece in pieces]
        return [entry(b"inner", "dir", content=writer.folder_of(*parts), mode=0o755)]

    return build


case("a name twice across two pieces", "damaged", _folder([b"a", b"b"], [b"b"]), "b comes after b")
case("pieces in the wrong order", "damaged", _folder([b"c", b"d"], [b"a"]), "a comes after d")
case("a piece twice", "damaged", _folder([b"a"], [b"a"]), "a comes after a")
case("a piece with no entry", "damaged", _folder([b"a"], []), "0 entries")
case("a piece with 1025 entries", "damaged", _folder([b"%05d" % number for number in range(1025)]), "1025 entries")


# fields

CHANGES: dict[str, dict[str, Any]] = {
    "a mode beyond 07777": {"mode": 0o10000},
    "the mode of a link": {"mode": stat.S_IFLNK | 0o777},
    "a negative mode": {"mode": -1},
    "a negative owner": {"uid": -1},
    "an owner beyond 2**62": {"uid": 2**62 + 1},
    "an owner of 2**64 - 1": {"gid": 2**64 - 1},
    "a time beyond 2**63": {"mtime_ns": 2**63},
    "a negative size": {"size": -1},
    "a size of 2**63": {"size": 2**63},
    "a size that is too small": {"size": 1},
    "a size that is too large": {"size": 1 << 40},
    "a float for a size": {"size": float(len(EVIL))},
    "a flag for a size": {"size": True},
    "text for a name": {"name": "file"},
    "bytes for a user": {"user": b"root"},
    "a number for a flag": {"changed": 0},
    "a kind that is not known": {"kind": "socket"},
    "a number for a kind": {"kind": 1},
    "no content": {"kind": "file", "content": None, "size": 0},
    "a target": {"target": b"x"},
    "a device number": {"rdev": 1},
    "no list of attributes": {"xattrs": None},
    "attributes out of order": {"xattrs": [[b"user.b", b""], [b"user.a", b""]]},
    "an attribute twice": {"xattrs": [[b"user.a", b""], [b"user.a", b"x"]]},
    "an attribute without a name": {"xattrs": [[b"", b""]]},
    "an attribute with a zero byte": {"xattrs": [[b"user.a\0b", b""]]},
    "an attribute with a long name": {"xattrs": [[b"user." + b"a" * 251, b""]]},
    "an attribute of 64 KiB and one byte": {"xattrs": [[b"user.a", bytes(65537)]]},
    "holes that overlap": {"holes": [[0, 100], [50, 100]]},
    "holes that touch": {"holes": [[0, 100], [100, 100]]},
    "holes that fall": {"holes": [[200, 100], [0, 100]]},
    "an empty hole": {"holes": [[5, 0]]},
    "a hole beyond the end": {"holes": [[0, len(EVIL) + 1]]},
    "a hole that overflows": {"holes": [[2**62, 2**62]]},
    "a negative hole": {"holes": [[-5, 3]]},
    "half a hard link": {"link": [1]},
    "a negative inode": {"link": [0, -1]},
}
for shown, changes in CHANGES.items():
    case(f"a file with {shown}", "damaged", changed(**changes), "TreePiece|entry")

for shown, wrong in {
    "an entry with a field too many": [*entry(b"x"), 0],
    "an entry with a field too few": entry(b"x")[:-1],
    "an entry that is nothing": None,
    "an entry that is a map": {"name": b"x"},
    "a link with content": entry(b"x", "link", content=NOTHING),
    "a link without a target": entry(b"x", "link", target=b""),
    "a link with a zero byte in its target": entry(b"x", "link", target=b"a\0b"),
    "a link with a target of 4097 bytes": entry(b"x", "link", target=b"a" * 4097),
    "a fifo with a size": entry(b"x", "fifo", size=5),
    "a folder that is a hard link": entry(b"x", "dir", link=[1, 1]),
    "a folder without content": entry(b"x", "dir", content=None),
    "a folder with a size": entry(b"x", "dir", size=1),
}.items():
    case(shown, "damaged", only(wrong), "TreePiece|entry")  # type: ignore[arg-type] # no entries on purpose

case("an owner that no system has", "gap", changed(uid=2**62, gid=2**62), "owner and group")
case(
    "a device number that no system has",
    "gap",
    only(entry(b"x", "char", rdev=2**62)),
    "larger than|privileged|Invalid argument",
)
case("a time in the year 2262", "restored", changed(mtime_ns=2**63 - 1), users="restored")
case("a time in the year 1677", "restored", changed(mtime_ns=-(2**63)))
case(
    "data in what is said to be a hole",
    "restored",
    changed(holes=[[8, 3000]]),
    then=lambda path: _same(_read(os.path.join(path, "file")), EVIL),
)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


# what needs rights


def _privileged(writer: Writer, _outside: str) -> list[Any]:
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    return [
        entry(b"block", "block", rdev=0x700),
        writer.file(b"capable", EVIL, xattrs=[[b"security.capability", capability], [b"trusted.x", b""]]),
        entry(b"char", "char", rdev=0x101),
        writer.directory(b"setgid folder", evil(writer), mode=0o2777),
        writer.file(b"setuid", EVIL, mode=0o6777),
        writer.directory(b"sticky", mode=0o1777),
    ]


case("devices, setuid bits and guarded attributes", "restored", _privileged, users="gap", why="privileged|setuid")


# links


def _link_out(writer: Writer, outside: str) -> list[Any]:
    out = os.fsencode(outside)
    return [
        entry(b"absolute", "link", target=out + b"/secret", mode=0o777),
        entry(b"folder", "link", target=out, mode=0o777),
        entry(b"relative", "link", target=b"../../outside/secret", mode=0o777),
        entry(b"self", "link", target=b"self", mode=0o777),
    ]


case("links to the outside", "restored", _link_out)
case(
    "a further name of a link to a folder outside, that is a folder",
    "damaged",
    lambda w, out: [
        entry(b"a", "link", target=os.fsencode(out), link=[1, 1]),
        w.directory(b"b", evil(w), link=[1, 1]),
    ],
    "hard link to a directory",
)
case(
    "a further name of a link to a file outside, that is a file",
    "restored",
    lambda w, out: [
        entry(b"a", "link", target=os.fsencode(out) + b"/secret", link=[1, 1]),
        w.file(b"b", EVIL, link=[1, 1], mode=0o666),
    ],
    then=lambda path: _same(_read(os.path.join(path, "b")), EVIL),
)


def _across_parents(writer: Writer, outside: str) -> list[Any]:
    link = entry(b"a", "link", target=os.fsencode(outside), link=[1, 1])
    return [link, writer.directory(b"b", [[b"secret", *link[1:]], writer.file(b"x", EVIL)])]


case("a link to the outside with a second name in another folder", "restored", _across_parents)
case(
    "the inode numbers of a file outside",
    "restored",
    lambda w, out: [
        w.file(name, EVIL, link=[os.stat(out + "/secret").st_dev, os.stat(out + "/secret").st_ino], mode=0o666)
        for name in (b"a", b"b")
    ],
    then=lambda path: _same(os.stat(os.path.join(path, "a")).st_nlink, 2),
)
case(
    "names of one inode that disagree about its metadata",
    "restored",
    lambda w, _: [w.file(b"a", EVIL, link=[1, 1], mode=0o600), w.file(b"b", EVIL, link=[1, 1], mode=0o6777)],
    then=lambda path: _same(os.stat(os.path.join(path, "b")).st_mode & 0o7777, 0o600),
)
case(
    "names of one inode that disagree about its content",
    "restored",
    lambda w, _: [w.file(b"a", EVIL, link=[1, 1]), w.file(b"b", b"other", link=[1, 1])],
    then=lambda path: _same(_read(os.path.join(path, "b")), b"other"),
)
case(
    "names of one inode of four kinds",
    "restored",
    lambda w, _: [
        entry(b"a", "fifo", link=[1, 1]),
        entry(b"b", "link", link=[1, 1]),
        w.file(b"c", EVIL, link=[1, 1]),
        entry(b"d", "fifo", link=[1, 1]),
    ],
)
case(
    "a first name whose content is lost",
    "damaged",
    lambda _w, _: [
        entry(b"a", size=5, content=[0, 5, [[bytes(32), 5]]], link=[1, 1]),
        entry(b"b", size=5, content=[0, 5, [[bytes(32), 5]]], link=[1, 1]),
    ],
    "no index names",
)


# lists


def listed(make: Callable[[Writer], list[Any]]) -> Build:
    """Return a file with this content."""

    def build(writer: Writer, _outside: str) -> list[Any]:
        content = make(writer)
        return [entry(b"file", size=content[1], content=content)]

    return build


def _ref(writer: Writer, data: bytes = EVIL, **wrong: Any) -> Ref:
    return writer.chunk(DATA, data, **wrong)


for shown, make in {
    "a depth of 5": lambda w: [5, len(EVIL), [_ref(w)]],
    "a negative depth": lambda w: [-1, len(EVIL), [_ref(w)]],
    "4097 chunks": lambda w: [0, 4097 * len(EVIL), [_ref(w)] * 4097],
    "a chunk of no bytes": lambda w: [0, len(EVIL), [_ref(w), [bytes(32), 0]]],
    "a chunk of negative length": lambda w: [0, len(EVIL) - 1, [_ref(w), [bytes(32), -1]]],
    "a chunk above 4 MiB": lambda w: [0, 4 * MIB + 1, [[_ref(w)[0], 4 * MIB + 1]]],
    "lengths that do not add up": lambda w: [0, len(EVIL) + 1, [_ref(w)]],
    "chunks but no length": lambda w: [0, 0, [_ref(w)]],
    "a length but no chunks": lambda _: [0, 5, []],
    "a depth but no chunks": lambda _: [1, 0, []],
    "a length beyond 2**62": lambda w: [0, 2**63, [_ref(w)]],
    "an id of 31 bytes": lambda _: [0, 5, [[bytes(31), 5]]],
}.items():
    case(f"a list with {shown}", "damaged", listed(make), "TreePiece|chunk list")

for shown, make, why in (
    ("data where a list should be", lambda w: [1, len(EVIL), [_ref(w)]], "not in the pack"),
    ("a list where data should be", lambda w: [0, 50, [[w.piece([_ref(w)])[0], 50]]], "not in the pack"),
    ("a directory where data should be", lambda w: [0, 40, [[w.folder(evil(w))[2][0][0], 40]]], "not in the pack"),
    ("a directory where a list should be", lambda w: [1, 40, [[w.folder(evil(w))[2][0][0], 40]]], "not in the pack"),
    ("a list of a level that is not there", lambda w: [2, len(EVIL), [w.piece([_ref(w)])]], "not in the pack"),
    ("a list piece with another sum", lambda w: [1, 50, [w.piece([_ref(w)], claimed=50)]], "the list says 50"),
    ("a list piece with no entry", lambda w: [1, 50, [w.piece([], claimed=50)]], "0 chunks"),
    ("a list piece of 4097", lambda w: [1, 4097 * 4000, [w.piece([_ref(w)] * 4097)]], "4097 chunks"),
    ("a list piece of another version", lambda w: [1, 9, [w.chunk(LIST, encoded([2, []]), claimed=9)]], "version 2"),
    (
        "a list piece that is a directory's",
        lambda w: [1, 9, [w.chunk(LIST, encoded([1, evil(w)]), claimed=9)]],
        "Piece",
    ),
    ("a list piece that is a list", lambda w: [1, 9, [w.chunk(LIST, encoded([0, 9, []]), claimed=9)]], "ListPiece"),
    ("a chunk that no index names", lambda _: [0, 5, [[bytes(32), 5]]], "no index names"),
    ("a list piece that no index names", lambda _: [1, 5, [[bytes(32), 5]]], "no index names"),
    ("a chunk said to be longer than it is", lambda w: [0, 5000, [[_ref(w)[0], 5000]]], "bytes"),
    ("a chunk said to be shorter than it is", lambda w: [0, 10, [[_ref(w)[0], 10]]], "bytes"),
    (
        "chunks whose lengths lie and add up",
        lambda w: [0, 4007, [[_ref(w)[0], 3000], [_ref(w, b"another")[0], 1007]]],
        "bytes",
    ),
):
    case(shown, "damaged", listed(make), why)


# directories


def folder_content(make: Callable[[Writer], list[Any]]) -> Build:
    """Return a folder with this content."""
    return lambda writer, _: [entry(b"inner", "dir", content=make(writer), mode=0o755)]


def _tree(data: bytes) -> Build:
    return folder_content(lambda w: [0, len(data), [w.chunk(TREE, data)]])


case("data where a directory should be", "damaged", folder_content(lambda w: w.content(EVIL)), "not in the pack")
case(
    "a list where a directory should be",
    "damaged",
    folder_content(lambda w: [0, 50, [[w.piece([_ref(w)])[0], 50]]]),
    "not in the pack",
)
case("a directory that no index names", "damaged", folder_content(lambda _: [0, 5, [[bytes(32), 5]]]), "no index")
case(
    "a directory said to be longer than it is",
    "damaged",
    folder_content(lambda w: [0, 9999, [[w.folder(evil(w))[2][0][0], 9999]]]),
    "bytes",
)
for shown, data in {
    "of another version": encoded([2, []]),
    "of version 0": encoded([0, []]),
    "without a version": encoded([[]]),
    "with a field too many": encoded([1, [entry(b"x")], 0]),
    "with a byte behind its end": encoded([1, [entry(b"x")]]) + b"\0",
    "that ends too early": encoded([1, [entry(b"x")]])[:-1],
    "with a long form of a number": b"\x92\xcc\x01" + encoded([entry(b"x")]),
    "with a long form of a length": b"\xdc\x00\x02\x01" + encoded([entry(b"x")]),
    "that is a map": encoded({"version": 1}),
    "that is nothing": b"\xc0",
    "that is an extension": encoded(msgspec.msgpack.Ext(5, b"x")),
    "of a byte that MessagePack does not use": b"\xc1",
    "nested a hundred thousand deep": b"\x91" * 100_000,
    "nested in the place of entries": b"\x92\x01" + b"\x91" * 100_000,
    "that claims four billion entries": b"\x92\x01\xdd\xff\xff\xff\xff",
    "that claims a name of four gigabytes": b"\x92\x01\x91\xdc\x00\x11\xc6\xff\xff\xff\xff",
}.items():
    case(f"a directory {shown}", "damaged", _tree(data), "TreePiece")


case(
    "a folder below a link",
    "damaged",
    lambda w, out: [
        entry(b"a", "link", target=os.fsencode(out)),
        w.directory(b"a", [w.file(b"secret", EVIL)]),
    ],
    "a comes after a",
)
case("the top directory out of order", "refused", lambda w, _: w.folder([w.file(b"b"), w.file(b"a")]), "", top=True)
case("the top directory is data", "refused", lambda w, _: w.content(EVIL), "not in the pack", top=True)
case("the top directory is nowhere", "refused", lambda _w, _: [0, 5, [[bytes(32), 5]]], "no index names", top=True)


# zstd

ZEROS = bytes(3 * MIB)


def _zeros(mib: int, *, size: int = -1) -> bytes:
    """Return a frame of so many MiB of zeros, which are never in memory together."""
    packer = zstandard.ZstdCompressor(write_content_size=size >= 0).compressobj(size=size)
    return b"".join([*(packer.compress(bytes(MIB)) for _ in range(mib)), packer.flush()])


def _frame(size: int, *, mib: int = 3, window: int = -1, dictionary: int = 0) -> bytes:
    """Return a frame that declares a size of ours: a header of its own before the blocks of a true one."""
    undeclared = _zeros(mib)
    assert undeclared[4] == 0, "neither a size nor a checksum, and a window"
    described = undeclared[5:6] if window < 0 else bytes([window - 10 << 3])
    named = bytes([dictionary]) if dictionary else b""
    head = bytes([0b11 << 6 | bool(dictionary)]) + described + named + struct.pack("<Q", size)
    return undeclared[:4] + head + undeclared[6:]


_BOMB = _zeros(512, size=512 * MIB)


def _zstd(stored: bytes, length: int = len(ZEROS), data: bytes = ZEROS) -> Build:
    return listed(lambda w: [0, length, [w.chunk(DATA, data, encoding=ZSTD, stored=stored, length=length)]])


_whole = frame(ZEROS)
_skippable = struct.pack("<II", 0x184D2A50, 4) + b"skip"
for shown, stored, why in (
    ("is a bomb of 1 TiB by its own word", _frame(1 << 40), "the frame declares"),
    ("is a bomb of 2**64 - 1 bytes by its own word", _frame(2**64 - 1), "the frame declares|zstd refuses"),
    ("is a bomb and declares that", _BOMB, "the frame declares"),
    ("is a bomb and declares 3 MiB", _frame(len(ZEROS), mib=512), "zstd refuses"),
    ("declares one byte less", _frame(len(ZEROS) - 1), "the frame declares"),
    ("declares one byte more", _frame(len(ZEROS) + 1), "the frame declares"),
    ("says less than it holds", _frame(len(ZEROS), mib=4), "zstd refuses"),
    ("says more than it holds", _frame(len(ZEROS), mib=2), "zstd refuses"),
    ("declares no size", _zeros(3), "the frame declares no size"),
    ("is two frames", frame(ZEROS[:MIB]) + frame(ZEROS[MIB:]), "the frame declares"),
    ("has a byte behind it", _whole + b"\0", "zstd refuses"),
    ("has a frame behind it", _whole + frame(b"more"), "zstd refuses"),
    ("has a skippable frame before it", _skippable + _whole, "chunk"),
    ("has a skippable frame behind it", _whole + _skippable, "zstd refuses"),
    ("is skippable", _skippable, "chunk"),
    ("has a window of 16 MiB", _frame(len(ZEROS), window=24), "a window of 16777216"),
    ("names a dictionary", _frame(len(ZEROS), dictionary=7), "zstd refuses"),
    ("ends too early", _whole[:-1], "zstd refuses"),
    ("is empty", b"", "zstd refuses"),
    ("is no frame", b"not a frame at all", "zstd refuses"),
):
    case(f"a frame that {shown}", "damaged", _zstd(stored), why)

case("a frame of an empty chunk", "damaged", _zstd(frame(b""), 1, b""), "chunk")
case(
    "raw bytes that are longer than they say",
    "damaged",
    listed(lambda w: [0, 5, [w.chunk(DATA, EVIL, encoding=RAW, stored=EVIL, length=5, claimed=5)]]),
    "raw bytes are stored",
)
case(
    "a frame that is said to be raw",
    "damaged",
    listed(
        lambda w: [
            0,
            len(_whole),
            [w.chunk(DATA, ZEROS, encoding=RAW, stored=_whole, length=len(_whole), claimed=len(_whole))],
        ]
    ),
    "not the ones it is named for",
)
case(
    "the id of other content",
    "damaged",
    listed(lambda w: [0, 5, [w.chunk(DATA, b"wrong", id=w.chunk_id(DATA, b"right"))]]),
    "not the ones it is named for",
)
case(
    "the id of another kind",
    "damaged",
    listed(lambda w: [0, 5, [w.chunk(DATA, b"wrong", id=w.chunk_id(TREE, b"wrong"))]]),
    "not the ones it is named for",
)


# packs


def _segment(place: int, value: Any, which: int = 0) -> Callable[[list[Any]], Any]:
    def change(directory: list[Any]) -> Any:
        directory[3][which][place] = value(directory[3][which][place]) if callable(value) else value
        return directory

    return change


def _files(writer: Writer, _outside: str) -> list[Any]:
    return [writer.file(b"%d" % number, EVIL + b"%d" % number) for number in range(3)]


def _swapped(directory: list[Any]) -> Any:
    one, other = directory[3][0], directory[3][1]
    one[0], other[0] = other[0], one[0]
    return directory


def _repeated(directory: list[Any]) -> Any:
    first, last = directory[3][0], directory[3][1]
    again = [first[0], *last[1:]]
    return [*directory[:3], [first, again, *directory[3][2:]]]


DIRECTORIES: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "a segment that begins elsewhere": (_segment(5, 7), "leave a gap"),
    "a segment that begins in the one before": (_segment(5, lambda at: at - 1, 1), "leave a gap"),
    "a segment beyond the pack": (_segment(5, 16 * MIB, 2), "leave a gap"),
    "a segment that is longer than it is": (_segment(6, lambda size: size + 1, 2), "leave a gap"),
    "a segment that is shorter than its tag": (_segment(6, 15, 2), "Directory"),
    "a segment of 16 MiB and one byte": (_segment(6, 16 * MIB + 1, 2), "Directory"),
    "a slot that is not there": (_segment(2, 1), "no slot"),
    "slot 64": (_segment(2, 64), "Directory"),
    "a counter twice": (_segment(3, 0, 1), "one nonce"),
    "a counter that is another's": (_segment(3, 9, 1), "does not open"),
    "a counter of 2**32": (_segment(3, 2**32), "Directory"),
    "a kind that is not its own": (_segment(1, TREE), "wrong kind"),
    "kind 9": (_segment(1, 9), "Directory"),
    "encoding 2": (_segment(4, 2), "Directory"),
    "an encoding that is not its own": (_segment(4, lambda one: 1 - one), "does not open"),
    "a length that is not its own": (_segment(7, lambda one: one + 1), "does not open"),
    "a length of 4 MiB and one byte": (_segment(7, 4 * MIB + 1), "Directory"),
    "a length of 2**63": (_segment(7, 2**63), "Directory"),
    "a chunk twice": (_repeated, "chunk is in it twice"),
    "names of segments that changed places": (_swapped, "does not open"),
    "one segment too few": (lambda d: [*d[:3], d[3][:-1]], "another length than its locator"),
    "no segment": (lambda d: [*d[:3], []], "another length than its locator"),
    "no slot": (lambda d: [*d[:2], [], d[3]], "Directory"),
    "65 slots": (lambda d: [*d[:2], d[2] * 65, d[3]], "Directory"),
    "a slot of another key": (
        lambda d: [*d[:2], [[sealed_to(b"\x09" + bytes(31), bytes(32), b"x"), d[2][0][1]]], d[3]],
        "not sealed to this key",
    ),
    "a slot of zeros": (lambda d: [*d[:2], [[bytes(80), d[2][0][1]]], d[3]], "not sealed to this key"),
    "another commitment": (lambda d: [*d[:2], [[d[2][0][0], bytes(32)]], d[3]], "does not match its commitment"),
    "a field too many": (lambda d: [*d, 0], "Directory"),
    "another version": (lambda d: [2, *d[1:]], "version 2"),
    "a policy of 15 bytes": (lambda d: [1, bytes(15), *d[2:]], "Directory"),
}
for shown, (change, why) in DIRECTORIES.items():
    case(f"a pack with {shown}", "damaged", _files, why, bend={"directory": change})


def _locator(**changes: Any) -> Callable[[Any], Any]:
    return lambda said: said | {key: value(said[key]) if callable(value) else value for key, value in changes.items()}


LOCATORS: dict[str, tuple[dict[str, Any], str]] = {
    "a body beyond the object": ({"body": 1 << 40}, "outside the object"),
    "a body that is too short": ({"body": 3}, "outside the object"),
    "a body of 2**64 - 1 bytes": ({"body": 2**64 - 1}, "outside the object"),
    "a body of another length": ({"body": lambda size: size - 1}, "does not open"),
    "segments beyond the object": ({"segments": 1 << 40}, "outside the object"),
    "segments of another length": ({"segments": lambda size: size - 1}, "another length than its locator"),
    "a raw length of 1 TiB": ({"raw": 1 << 40}, "outside the object"),
    "a raw length of its own": ({"raw": lambda size: size + 1}, "not the one its locator names"),
    "the kind of an index": ({"kind": 3}, "an? index where a pack"),
    "the kind of a pack of trees": ({"kind": 2}, "wrong kind"),
    "kind 0": ({"kind": 0}, "not known"),
    "a compressed body that is none": ({"encoding": 1}, "object body"),
    "encoding 2": ({"encoding": 2}, "not known"),
    "reserved bytes": ({"zero": b"\1" + bytes(5)}, "not known"),
}
for shown, (locator, why) in LOCATORS.items():
    case(f"the locator of a pack with {shown}", "damaged", _files, why, bend={"pack locator": _locator(**locator)})


def _flipped(at: int, head: bytes) -> bytes:
    return head[:at] + bytes([head[at] ^ 0x40]) + head[at + 1 :]


for shown, at in {"magic": 0, "version": 7, "suite": 8, "flags": 9, "reserved": 10, "epoch": 12, "tail": 50}.items():
    case(
        f"the header of a pack with another {shown}",
        "damaged",
        _files,
        "",
        bend={"pack header": partial(_flipped, at)},
    )


def _large(writer: Writer, _outside: str) -> list[Any]:
    return [writer.file(b"large", writer.random.randbytes(100_000))]


case("a pack that was cut", "damaged", _large, "", bend={"pack": lambda data: data[:65536]})
case("a pack that was doubled", "restored", _files, "", bend={"pack": lambda data: data + b"\1" * len(data)})
case("a pack of random bytes", "damaged", _files, "", bend={"pack": lambda data: b"\x5a" * len(data)})
case("a pack of zeros", "damaged", _files, "", bend={"pack": lambda data: bytes(len(data))})
case(
    "a directory of a pack that is no record",
    "damaged",
    _files,
    "",
    bend={"directory bytes": lambda _: b"\xc1" * 50},
)
case(
    "a directory of a pack with a byte behind it",
    "damaged",
    _files,
    "",
    bend={"directory bytes": lambda data: data + b"\0"},
)


# indexes


def _index(change: Callable[[list[Any]], Any]) -> dict[str, Any]:
    return {"bend": {"index": change}}


def _first_pack(place: int, value: Any) -> Callable[[list[Any]], Any]:
    def change(index: list[Any]) -> Any:
        index[6][0][place] = value(index[6][0][place]) if callable(value) else value
        return index

    return change


case(
    "an index that names a pack nobody has", "damaged", _files, "no reachable peer", **_index(_first_pack(0, bytes(32)))
)
case(
    "an index that names chunks that are not there",
    "restored",
    _files,
    **_index(_first_pack(5, lambda ids: ids + b"\1" * 32)),
)
case("an index that leaves chunks out", "damaged", _files, "no index names", **_index(_first_pack(5, b"")))
case("an index with a size of 2**62", "restored", _files, **_index(_first_pack(1, 2**62)))
case("an index that takes a pack for another kind", "restored", _files, **_index(_first_pack(2, 2)))
for shown, bend in {
    "an index with half an id": {"index": _first_pack(5, lambda ids: ids[:-1])},
    "an index with a pack of kind 3": {"index": _first_pack(2, 3)},
    "an index with a negative size": {"index": _first_pack(1, -1)},
    "an index with a size beyond 2**62": {"index": _first_pack(1, 2**62 + 1)},
    "an index with a policy that it lacks": {"index": lambda one: [*one[:5], [], one[6]]},
    "an index of another tenant": {"index": lambda one: [1, bytes(16), *one[2:]]},
    "an index of another domain": {"index": lambda one: [*one[:2], bytes(16), *one[3:]]},
    "an index of another writer": {"index": lambda one: [*one[:3], bytes(32), *one[4:]]},
    "an index of version 2": {"index": lambda one: [2, *one[1:]]},
    "an index with a field too many": {"index": lambda one: [*one, 0]},
    "an index with a byte behind it": {"index bytes": lambda data: data + b"\0"},
    "an index that nobody signed": {"index signed": lambda data: data[:40] + bytes(56) + data[96:]},
    "an index by a stranger": {"index signed": lambda data: bytes(32) + data[32:]},
    "an index of no bytes": {"index signed": lambda _: b""},
    "an index that is a bomb": {
        "index locator": lambda said: said | {"encoding": 1, "raw": 4 * MIB, "stored": _BOMB, "body": len(_BOMB) + 16}
    },
    "an index that declares a bomb": {
        "index locator": lambda said: said | {"encoding": 1, "raw": 16 * MIB, "stored": _BOMB, "body": len(_BOMB) + 16}
    },
    "an index that is a snapshot": {"index locator": lambda said: said | {"kind": 5}},
    "an index of random bytes": {"index object": lambda data: b"\x5a" * len(data)},
    "an index of 2**62 objects": {"index bytes": lambda data: data[:3] + b"\xdd\xff\xff\xff\xff"},
}.items():
    case(shown, "hidden", _files, "chain of|out of sight|cannot be read", bend=bend)


# snapshots


def _field(place: int, value: Any) -> dict[str, Bend]:
    def change(snapshot: list[Any]) -> list[Any]:
        return [*snapshot[:place], value(snapshot[place]) if callable(value) else value, *snapshot[place + 1 :]]

    return {"snapshot": change}


for shown, bend in {
    "of another tenant": _field(1, bytes(16)),
    "of another domain": _field(2, bytes(16)),
    "of another writer": _field(3, bytes(32)),
    "of another number": _field(4, 77),
    "of number 0": _field(4, 0),
    "of version 2": _field(0, 2),
    "of version 0": _field(0, 0),
    "with a time beyond 2**62": _field(8, 2**63),
    "with a policy of no copies": _field(10, lambda policy: [1, 0, *policy[2:]]),
    "with an index that nobody has": _field(11, [bytes(32)]),
    "with itself as the one before": _field(6, b"\7" * 32),
    "with a size beyond 2**62": _field(14, 2**63),
    "with an index of 5 bytes": _field(11, [b"index"]),
    "with a box of no bytes": _field(17, b""),
    "with a box of zeros": _field(17, bytes(200)),
    "with a field too many": {"snapshot": lambda one: [*one, 0]},
    "with a byte behind it": {"snapshot bytes": lambda data: data + b"\0"},
    "that nobody signed": {"snapshot signed": lambda data: data[:40] + bytes(56) + data[96:]},
    "by a stranger": {"snapshot signed": lambda data: bytes(32) + data[32:]},
    "of no bytes": {"snapshot signed": lambda _: b""},
    "of another kind": {"snapshot locator": lambda said: said | {"kind": 3}},
    "that is a bomb": {
        "snapshot locator": lambda said: (
            said | {"encoding": 1, "raw": 4 * MIB, "stored": _BOMB, "body": len(_BOMB) + 16}
        )
    },
    "of random bytes": {"snapshot object": lambda data: b"\x5a" * len(data)},
    "with a box for another number": {"box": lambda box: box[:-1] + bytes([box[-1] ^ 1])},
    "with a box of another key": {"box": lambda box: bytes(80) + box[80:]},
    "with a box of another commitment": {"box": lambda box: box[:80] + bytes(32) + box[112:]},
    "whose details are of version 2": {"details": lambda one: [2, *one[1:]]},
    "whose details have a byte behind them": {"details bytes": lambda data: data + b"\0"},
    "whose details are nothing": {"details bytes": lambda _: b""},
    "whose details are nested deep": {"details bytes": lambda _: b"\x91" * 200_000},
    "of a dataset with control bytes": {"details": lambda one: [1, "a\x1b[2J", *one[2:]]},
    "of a dataset with a name of 65": {"details": lambda one: [1, "a" * 65, *one[2:]]},
    "of a dataset without a name": {"details": lambda one: [1, "", *one[2:]]},
    "with a tree of depth 9": {"details": lambda one: [*one[:4], [9, 5, [[bytes(32), 5]]], *one[5:]]},
    "with a tag that is no text": {"details": lambda one: [*one[:5], [b"tag"], one[6]]},
}.items():
    if "one before" in shown:
        continue
    case(f"a snapshot {shown}", "hidden", _files, "", bend=bend)

case("references of another tenant", "restored", _files, bend={"references": lambda one: [1, bytes(16), *one[2:]]})
case("references of random bytes", "restored", _files, bend={"references object": lambda data: b"\x5a" * len(data)})
case("references with half an id", "restored", _files, bend={"references": lambda one: [*one[:5], one[5][:-1], b""]})
case(
    "references that name chunks nobody has",
    "restored",
    _files,
    bend={"references": lambda one: [*one[:5], bytes(32), b""]},
)
case(
    "tags, host and roots with control bytes",
    "restored",
    _files,
    details={
        "host": "\x1b]0;evil\x07",
        "tags": ["\x1b[2J", "\x9b31m", "\u202e", "t" * 100_000],
        "roots": [[b"/../../etc", b"../outside"], [b"\x1b[2J", b"\x1b"], [b"", b""]],
        "gaps": [b"\x1b[2J", b"\xff"],
    },
)
