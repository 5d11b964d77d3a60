"""Tar streams, judged by GNU tar: what comes back, and that nothing incomplete passes for an archive."""

import io
import os
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import msgspec
import pytest

from replicator.errors import FormatError
from replicator.format.snapshot import ChunkList, ChunkRef
from replicator.format.tree import Entry, Hole, Xattr
from replicator.snapshot.tar import RECORD, TarStream, stored_ranges

TAR = shutil.which("tar") or ""
pytestmark = pytest.mark.skipif(not TAR, reason="GNU tar is the judge")

PLAIN = Entry(
    name=b"x",
    kind="file",
    mode=0o640,
    uid=0,
    gid=0,
    user="root",
    group="root",
    mtime_ns=1_234_567_890_123_456_789,
    ctime_ns=0,
    size=0,
    content=ChunkList(depth=0, length=0, chunks=[]),
    target=b"",
    rdev=0,
    link=None,
    xattrs=[],
    holes=[],
    changed=False,
)


def file(name: bytes, size: int, **more: object) -> Entry:
    chunks = [ChunkRef(id=bytes(32), length=size)] if size else []
    return msgspec.structs.replace(
        PLAIN, name=name, size=size, content=ChunkList(depth=0, length=size, chunks=chunks), **more
    )


FOLDER = msgspec.structs.replace(PLAIN, name=b"d", kind="dir", mode=0o755)
LINK = msgspec.structs.replace(PLAIN, name=b"l", kind="link", content=None, target=b"t" * 200, mode=0o777)


class _Zeros(bytes):
    """Zeros of any number, and these bytes at their end."""

    def __getitem__(self, place: object) -> bytes:  # type: ignore[override] # all that is asked of it
        assert isinstance(place, slice)
        return bytes(self)


class Sink:
    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def __call__(self, data: bytes) -> None:
        self.parts.append(data)

    @property
    def data(self) -> bytes:
        return b"".join(self.parts)


def put(
    stream: TarStream, path: tuple[bytes, ...], entry: Entry, data: bytes = b"", first: bytes | None = None
) -> None:
    for start, end in stream.member(path, entry, first):
        stream.content(data[start:end])


def info(*members: tuple[tuple[bytes, ...], Entry, bytes]) -> list[tarfile.TarInfo]:
    """Write an archive and return what Python's reader, which knows nothing of ours, finds in it."""
    sink = Sink()
    stream = TarStream(sink)
    for path, entry, data in members:
        put(stream, path, entry, data)
    stream.finish()
    assert (len(sink.data) % RECORD, len(sink.data)) == (0, stream.written)
    with tarfile.open(fileobj=io.BytesIO(sink.data)) as archive:
        return archive.getmembers()


def accepted(data: bytes, folder: Path) -> bool:
    """Return whether GNU tar takes a stream for a whole archive."""
    done = subprocess.run([TAR, "-xf", "-"], input=data, cwd=folder, capture_output=True, check=False)
    return done.returncode == 0


def test_a_stream_that_ends_anywhere_but_at_its_end_is_no_archive_to_gnu_tar(tmp_path: Path) -> None:
    members = [
        ((b"d",), FOLDER, b""),
        ((b"d", b"d"), FOLDER, b""),
        ((b"d", b"empty"), file(b"empty", 0), b""),
        ((b"d", b"short"), file(b"short", 5), b"short"),
        ((b"d", b"block"), file(b"block", 512), b"b" * 512),
        ((b"d", b"long"), file(b"long", 3000), b"l" * 3000),
        ((b"d", b"hole"), file(b"hole", 9000, holes=[Hole(offset=0, length=9000)]), bytes(9000)),
        ((b"d", b"some"), file(b"some", 9000, holes=[Hole(offset=4096, length=4096)]), b"s" * 9000),
        ((b"d", b"l"), LINK, b""),
    ]
    sink = Sink()
    stream = TarStream(sink)
    for path, entry, data in members:
        for start, end in stream.member(path, entry):
            for at in range(start, end, 500):
                stream.flush()
                assert not accepted(sink.data, tmp_path)
                stream.content(data[at : min(end, at + 500)])
        stream.flush()
        assert not accepted(sink.data, tmp_path), path
    stream.finish()
    assert accepted(sink.data, tmp_path)
    assert (tmp_path / "d" / "long").read_bytes() == b"l" * 3000


def test_content_that_is_too_long_or_too_short_is_a_fault_of_the_caller() -> None:
    stream = TarStream(Sink())
    stream.member((b"x",), file(b"x", 4))
    with pytest.raises(ValueError, match="4 are left"):
        stream.content(b"12345")
    stream.content(b"12")
    with pytest.raises(ValueError, match="2 bytes of the last member are missing"):
        stream.member((b"y",), PLAIN)
    with pytest.raises(ValueError, match="2 bytes of the last member are missing"):
        stream.finish()


def test_what_has_no_room_in_the_old_header_is_in_the_extended_one() -> None:
    deep = tuple(b"folder %d" % level for level in range(60))
    far = (b"x" * 99 + b"/y").split(b"/")
    people = "Ålice" * 10
    entry = file(b"f", 3, uid=2**31 + 5, gid=2**21, user=people, group="g" * 40, mtime_ns=-1_000_000_001)
    [one, two, three] = info(
        ((*deep, b"f"), entry, b"abc"),
        ((far[0], far[1]), file(far[1], 0, mtime_ns=2**62), b""),
        ((b"l",), LINK, b""),
    )
    assert one.name == "/".join(level.decode() for level in deep) + "/f"
    assert (one.uid, one.gid, one.uname, one.gname) == (2**31 + 5, 2**21, people, "g" * 40)
    assert one.pax_headers["mtime"] == "-1.000000001"
    assert (two.name, two.type) == ("x" * 99 + "/y", tarfile.REGTYPE)
    assert two.pax_headers["mtime"] == "4611686018.427387904"
    assert (three.type, three.linkname) == (tarfile.SYMTYPE, "t" * 200)


def test_a_name_that_is_cut_at_a_slash_does_not_make_a_file_a_folder(tmp_path: Path) -> None:
    sink = Sink()
    stream = TarStream(sink)
    put(stream, (b"x" * 99, b"y"), file(b"y", 1, holes=[]), b"1")
    put(stream, (b"z" * 83, b"s"), file(b"s", 9000, holes=[Hole(offset=0, length=8192)]), b"2" * 9000)
    stream.finish()
    assert accepted(sink.data, tmp_path)
    assert (tmp_path / ("x" * 99) / "y").read_bytes() == b"1"
    assert (tmp_path / ("z" * 83) / "s").read_bytes() == bytes(8192) + b"2" * 808


def test_a_size_beyond_8_gib_is_read_by_others() -> None:
    size = (8 << 30) + 5
    sink = Sink()
    stream = TarStream(sink)
    put(stream, (b"sparse",), file(b"sparse", size, holes=[Hole(offset=0, length=size - 5)]), _Zeros(b"tail."))
    assert stream.member((b"full",), file(b"full", size)) == [(0, size)]
    stream.flush()
    shown = subprocess.run(
        [TAR, "-tvf", "-"], input=sink.data, capture_output=True, check=False, env={"LC_ALL": "C", "PATH": os.defpath}
    )
    assert [line.split()[2] for line in shown.stdout.splitlines()] == [b"%d" % size] * 2
    assert shown.returncode == 2, "of the second one nothing but its beginning is there"


def test_an_access_list_is_text_and_what_is_none_stays_an_attribute() -> None:
    entries = (
        (1, 6, 2**32 - 1),
        (2, 4, 1000),
        (4, 4, 2**32 - 1),
        (8, 5, 7),
        (0x10, 4, 2**32 - 1),
        (0x20, 0, 2**32 - 1),
    )
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)
    names = (b"system.posix_acl_access", b"system.posix_acl_default")
    [good] = info(((b"x",), file(b"x", 0, xattrs=[Xattr(name=name, value=acl) for name in names]), b""))
    text = "user::rw-,user:1000:r--,group::r--,group:7:r-x,mask::r--,other::---"
    assert (good.pax_headers["SCHILY.acl.access"], good.pax_headers["SCHILY.acl.default"]) == (text, text)
    for value in (b"", acl[:-1], b"\1" + acl[1:], acl[:4] + struct.pack("<HHI", 3, 6, 0), acl[:6] + b"\x08" + acl[7:]):
        [odd] = info(((b"x",), file(b"x", 0, xattrs=[Xattr(name=names[0], value=value)]), b""))
        assert "SCHILY.acl.access" not in odd.pax_headers
        assert "SCHILY.xattr.system.posix_acl_access" in odd.pax_headers


def test_an_attributes_name_keeps_its_equals_signs() -> None:
    [one] = info(((b"x",), file(b"x", 0, xattrs=[Xattr(name=b"user.a=b%c", value=b"1=2\n3")]), b""))
    assert one.pax_headers["SCHILY.xattr.user.a%3Db%25c"] == "1=2\n3"


def test_a_device_whose_number_no_archive_can_hold_is_refused() -> None:
    stream = TarStream(Sink())
    for number in (os.makedev(2**21, 0), os.makedev(0, 2**21)):
        device = msgspec.structs.replace(PLAIN, kind="char", content=None, rdev=number)
        with pytest.raises(FormatError, match="no room for the device number"):
            stream.member((b"x",), device)


def test_ranges_are_what_lies_between_holes() -> None:
    assert stored_ranges(file(b"x", 10)) == [(0, 10)]
    assert stored_ranges(file(b"x", 0)) == []
    holes = [Hole(offset=0, length=2), Hole(offset=4, length=3), Hole(offset=9, length=1)]
    assert stored_ranges(file(b"x", 10, holes=holes)) == [(2, 4), (7, 9)]
