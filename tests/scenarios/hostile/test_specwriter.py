"""What is written from the specification alone comes back byte for byte: the check of the specification itself."""

import os
from random import Random
from typing import Any

from replicator.engine.inspect import verify_content
from tests.scenarios.hostile.specwriter import DATA, MIB, RAW, TREE, Writer, by_name, encoded, entry
from tests.scenarios.hostile.stage import Stage
from tests.scenarios.world import read


def benign(writer: Writer) -> tuple[list[list[Any]], dict[str, bytes]]:
    """Return the entries of a tree with one of everything, and the content of its files."""
    random = Random(7)
    large = random.randbytes(700_001)
    zeros = b"begin" + bytes(3 * MIB) + b"end"
    pieces = [writer.chunk(DATA, large[at : at + 1000]) for at in range(0, len(large), 1000)]
    owner: dict[str, Any] = {"uid": os.geteuid(), "gid": os.getegid()}
    twice = writer.file(b"one name", b"two names", link=[3, 4], **owner)
    files = {
        "letter": b"Dear reader\n" * 5000,
        "random": random.randbytes(3 * MIB),
        "empty": b"",
        "large": large,
        "sparse": zeros,
        "folder/one name": b"two names",
        "folder/other name": b"two names",
        "many/0777": b"777",
    }
    entries = [
        writer.file(b"letter", files["letter"], mode=0o640, **owner),
        writer.file(b"random", files["random"], mtime_ns=-1_000_000_001, **owner),
        writer.file(b"empty", **owner),
        writer.file(b"large", content=writer.nested(pieces, DATA, fan=9, levels=2), size=len(large), **owner),
        writer.file(b"sparse", zeros, holes=[[4096, 3 * MIB - 8192]], **owner),
        writer.directory(
            b"folder",
            by_name(
                [twice, [b"other name", *twice[1:]], entry(b"link", "link", target=b"one name", mode=0o777, **owner)]
            ),
            mode=0o750,
            **owner,
        ),
        writer.directory(
            b"many", [writer.file(b"%04d" % number, b"%d" % number, **owner) for number in range(2500)], **owner
        ),
        writer.file(b"attributes", b"x", xattrs=[[b"user.a", b""], [b"user.b", bytes(range(256))]], **owner),
        writer.file(b"n" * 255, b"long", **owner),
        writer.file(b"\xff\x1b[31m\n", b"odd", **owner),
        entry(b"fifo", "fifo", **owner),
    ]
    return by_name(entries), files


def small(writer: Writer, outside: str) -> list[list[Any]]:
    """Return the entries of a small tree with one of everything, chunks as they are, and links to the outside."""

    def raw(data: bytes) -> list[Any]:
        ref = writer.chunk(DATA, data, encoding=RAW, stored=data)
        return [0, len(data), [ref]]

    def file(name: bytes, data: bytes, **changes: Any) -> list[Any]:
        return entry(name, content=raw(data), size=len(data), **changes)

    inner = encoded([1, [file(b"inner", b"inner"), entry(b"out", "link", target=outside.encode(), mode=0o777)]])
    ref = writer.chunk(TREE, inner, encoding=RAW, stored=inner)
    return [
        file(b"a", b"twice", link=[1, 1]),
        file(b"b", b"twice", link=[1, 1]),
        entry(b"c", "char"),
        entry(b"d", "dir", content=[0, len(inner), [ref]], mode=0o755),
        file(b"e", b"data" + bytes(5000), holes=[[4, 5000]], xattrs=[[b"user.x", b"1"]]),
        entry(b"f", "fifo", mode=0o600),
        entry(b"l", "link", target=outside.encode() + b"/secret", mode=0o777),
        file(b"s", b"setuid", mode=0o4755),
    ]


async def test_what_is_written_from_the_specification_comes_back(stage: Stage) -> None:
    writer = stage.writer()
    entries, files = benign(writer)
    await stage.write(writer, writer.folder(entries, each=4), dataset="benign", tags=["first"])
    async with stage.library() as library:
        found = await library.find("latest:benign")
        report = await stage.restore(library, found)
        assert (report.gaps, report.lost, report.damaged) == ([], [], [])
        checked = await verify_content(library, stage.world.edge, share=1.0)
        assert (checked.problems, checked.absent) == ([], [])
        assert checked.chunks >= 2 * len(writer.chunks), "all were opened, and all are referred to"
        assert await stage.look(library, found) == []
    for name, data in files.items():
        assert read(os.path.join(stage.target, name)) == data, name
    at = os.path.join
    assert os.stat(at(stage.target, "letter")).st_mode & 0o7777 == 0o640
    assert os.stat(at(stage.target, "random")).st_mtime_ns == -1_000_000_001
    assert os.stat(at(stage.target, "sparse")).st_blocks * 512 < 2 * MIB
    assert os.stat(at(stage.target, "folder", "one name")).st_nlink == 2
    names = [os.stat(at(stage.target, "folder", name)).st_ino for name in ("one name", "other name")]
    assert names[0] == names[1]
    assert os.readlink(at(stage.target, "folder", "link")) == "one name"
    assert len(os.listdir(at(stage.target, "many"))) == 2500
    assert os.getxattr(at(stage.target, "attributes"), "user.b") == bytes(range(256))
    assert sorted(os.listdir(os.fsencode(stage.target))) == [one[0] for one in entries]
