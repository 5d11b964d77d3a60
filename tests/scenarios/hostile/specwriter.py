"""A writer of snapshots made from docs/spec/ alone: nothing of replicator is imported here.

What it writes is right unless it is told to bend something: ``Writer.bend`` holds, by the name of a stage, a function
that changes what was about to be encoded, sealed or signed there. The stages are listed in :data:`STAGES`.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

# format.md §5.5, §6, §7
DATA, TREE, LIST = 1, 2, 3
DATA_PACK, TREE_PACK, INDEX, REFERENCES, SNAPSHOT = 1, 2, 3, 4, 5
RAW, ZSTD = 0, 1
MIB = 1 << 20

STAGES = (
    *("directory", "directory bytes", "pack locator", "pack header", "pack"),
    *("index", "index bytes", "index signed", "index locator", "index object"),
    *("references", "references bytes", "references signed", "references locator", "references object"),
    *("details", "details bytes", "box", "snapshot", "snapshot bytes", "snapshot signed"),
    *("snapshot locator", "snapshot object", "head", "head signed"),
)
"""Values before their encoding, then bytes, in the order in which they are made; of packs, those of data alone."""
Bend = Callable[[Any], Any]
Ref = list[Any]
"""A ChunkRef: [id, length]."""


def encoded(value: object) -> bytes:
    """Return the shortest MessagePack of plain values (format.md §2)."""
    return msgspec.msgpack.encode(value)


def hashed(data: bytes) -> bytes:
    """H of format.md §1."""
    return bytes(blake3(data).digest())


def derived(secret: bytes, label: bytes, context: bytes = b"", salt: bytes = b"") -> bytes:
    """Return a derived key (crypto.md §3)."""
    info = b"replicator/1 " + label + b"\0" + context
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)


def sealed_to(public: bytes, plain: bytes, info: bytes) -> bytes:
    """HPKE base mode, one shot (crypto.md §1)."""
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    return suite.encrypt(plain, X25519PublicKey.from_public_bytes(public), info)


def gcm(key: bytes, counter: int, plain: bytes, associated: bytes) -> bytes:
    """AES-256-GCM with a nonce that is a number (crypto.md §4)."""
    return AESGCM(key).encrypt(counter.to_bytes(12, "big"), plain, associated)


def object_name(data: bytes) -> bytes:
    """Return the name of an object, by pairing neighbours level by level (format.md §4)."""
    leaves = range(0, max(len(data), 1), 16384)
    level = [hashed(b"\0" + data[at : at + 16384]) for at in leaves]
    while len(level) > 1:
        odd = level[len(level) // 2 * 2 :]
        level = [hashed(b"\1" + level[at] + level[at + 1]) for at in range(0, len(level) - 1, 2)] + odd
    return hashed(b"\2" + len(data).to_bytes(8, "little") + level[0])


def padded(data: bytes, random: Random) -> bytes:
    """Fill an object to the next of the nine sizes (format.md §4)."""
    size = 65536
    while size < len(data):
        size *= 2
    return data + random.randbytes(size - len(data))


def frame(data: bytes, **options: Any) -> bytes:
    """Return one zstd frame that declares its content size (format.md §7)."""
    return zstandard.ZstdCompressor(**({"write_content_size": True} | options)).compress(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What a writer is given of a domain, and its own seed."""

    tenant: bytes
    domain: bytes
    restore_key: bytes
    mix: bytes
    id_key: bytes
    index_key: bytes
    epoch: int
    seed: bytes

    @property
    def public(self) -> bytes:
        """The writer's Ed25519 key."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()

    @property
    def identity(self) -> bytes:
        """The writer's identity."""
        return hashed(self.public)

    def signed(self, context: bytes, body: bytes) -> bytes:
        """Return a signed record (format.md §3)."""
        message = b"replicator/1 " + context + b"\0" + self.public + body
        return self.public + Ed25519PrivateKey.from_private_bytes(self.seed).sign(message) + body


@dataclass(slots=True)
class Chunk:
    """A chunk before it is packed. Any of it may be a lie: ``length`` is what its segment says."""

    id: bytes
    kind: int
    encoding: int
    stored: bytes
    length: int


@dataclass(slots=True)
class Night:
    """What one run leaves: objects by name, the signed head, the name of the snapshot."""

    objects: dict[bytes, bytes]
    head: bytes
    snapshot: bytes


@dataclass(slots=True)
class Chain:
    """How far a writer's chain has come (format.md §5.5, Snapshot and Head)."""

    number: int = 0
    previous: bytes = bytes(32)
    previous_snapshot: bytes = bytes(32)


PROMISE: list[Any] = [1, 1, 1, None, [], [], False, 30 * 86400]
"""A policy: one copy, anywhere (format.md §5.4)."""


@dataclass
class Writer:
    """Collects chunks of one run, then seals and signs everything."""

    keys: Keys
    random: Random = field(default_factory=lambda: Random(1))
    bend: dict[str, Bend] = field(default_factory=dict)
    chunks: dict[bytes, Chunk] = field(default_factory=dict)
    policy: list[Any] = field(default_factory=lambda: list(PROMISE))
    kinds: dict[int, int] = field(default_factory=lambda: {DATA: DATA_PACK, TREE: TREE_PACK, LIST: TREE_PACK})
    """Into which kind of pack a kind of chunk goes."""

    # chunks

    def chunk_id(self, kind: int, data: bytes) -> bytes:
        """Return the keyed id of a chunk (format.md §7, crypto.md §3)."""
        return bytes(blake3(data, key=derived(self.keys.id_key, b"chunk id", bytes([kind]))).digest())

    def chunk(self, kind: int, data: bytes, **wrong: Any) -> Ref:
        """Take a chunk; ``wrong`` replaces ``id``, ``encoding``, ``stored``, ``length`` or the ref's ``claimed``."""
        claimed = wrong.pop("claimed", len(data))
        stored = frame(data)
        small = 0 < len(stored) < len(data)
        values: dict[str, Any] = {
            "id": self.chunk_id(kind, data),
            "kind": kind,
            "encoding": ZSTD if small else RAW,
            "stored": stored if small else data,
            "length": len(data),
        }
        made = Chunk(**(values | wrong))
        self.chunks[made.id] = made
        return [made.id, claimed]

    def content(self, data: bytes, *, size: int = MIB) -> list[Any]:
        """Return a file's content as a flat chunk list."""
        refs = [self.chunk(DATA, data[at : at + size]) for at in range(0, len(data), size)]
        return [0, len(data), refs]

    def nested(self, refs: Sequence[Ref], kind: int, *, fan: int, levels: int) -> list[Any]:
        """Return a chunk list with so many levels of list pieces, each of at most ``fan`` entries."""
        for _ in range(levels):
            parts = [list(refs[at : at + fan]) for at in range(0, len(refs), fan)]
            refs = [self.piece(part) for part in parts]
        return [levels, sum(ref[1] for ref in refs), list(refs)]

    def piece(self, refs: Sequence[Ref], claimed: int | None = None) -> Ref:
        """Store a list piece; its entry's length is what it stands for."""
        total = sum(ref[1] for ref in refs) if claimed is None else claimed
        return self.chunk(LIST, encoded([1, list(refs)]), claimed=total)

    def folder(self, entries: Sequence[list[Any]], *, each: int = 1024) -> list[Any]:
        """Return a directory's content, in pieces of at most ``each`` entries."""
        return self.folder_of(*(entries[at : at + each] for at in range(0, len(entries), each)))

    def folder_of(self, *pieces: Sequence[list[Any]]) -> list[Any]:
        """Return a directory's content in these pieces."""
        refs = [self.chunk(TREE, encoded([1, list(piece)])) for piece in pieces]
        return [0, sum(ref[1] for ref in refs), refs]

    def file(self, name: bytes, data: bytes = b"", **changes: Any) -> list[Any]:
        """Return the entry of a file."""
        content = changes.pop("content", None) or self.content(data)
        return entry(name, "file", **({"size": content[1], "content": content} | changes))

    def directory(self, name: bytes, entries: Sequence[list[Any]] = (), **changes: Any) -> list[Any]:
        """Return the entry of a directory."""
        return entry(name, "dir", **({"content": self.folder(entries), "mode": 0o755} | changes))

    # objects

    def bent(self, stage: str, value: Any) -> Any:
        """Return what a stage makes of a value."""
        assert stage in STAGES, stage
        return self.bend[stage](value) if stage in self.bend else value

    def bent_pack(self, stage: str, kind: int, value: Any) -> Any:
        """Return what a stage makes of a value of a pack: packs of trees stay as they are, so that a tree is found."""
        return self.bent(stage, value) if kind == DATA_PACK else value

    def envelope(self, kind: int, body: bytes, segments: bytes, what: str) -> bytes:
        """Seal locator and body, and pad (format.md §6)."""
        raw, encoding = body, RAW
        if kind not in (DATA_PACK, TREE_PACK) and len(frame(body)) < len(body) <= 4 * MIB:
            encoding, body = ZSTD, frame(body)
        salt = self.random.randbytes(32)
        header = b"RPLOBJ\0" + struct.pack("<BBBHI", 1, 1, 0, 0, self.keys.epoch) + salt + bytes(16)
        if what == "pack":
            header = self.bent_pack("pack header", kind, header)
        context = self.keys.tenant + self.keys.domain
        key = derived(self.keys.index_key, b"object", context, salt)
        said = {"kind": kind, "encoding": encoding, "zero": bytes(6)}
        said |= {"body": len(body) + 16, "raw": len(raw), "segments": len(segments), "stored": body}
        said = self.bent_pack("pack locator", kind, said) if what == "pack" else self.bent(f"{what} locator", said)
        locator = struct.pack(
            "<BB6sQQQ", *(said[one] for one in ("kind", "encoding", "zero", "body", "raw", "segments"))
        )
        front = header + gcm(key, 0, locator, header) + gcm(key, 1, said["stored"], header)
        return padded(front + segments, self.random)

    def pack(self, kind: int, chunks: Sequence[Chunk]) -> bytes:
        """Return a pack of these chunks (format.md §7)."""
        keys = self.keys
        secret = self.random.randbytes(32)
        content_key = derived(secret, b"content", keys.tenant + keys.domain, keys.mix)
        commitment = derived(content_key, b"commitment")
        slots = [[sealed_to(keys.restore_key, secret, b"replicator/1 pack slot"), commitment]]
        segments, sealed, offset = [], [], 0
        for counter, one in enumerate(chunks):
            associated = b"".join(
                (
                    *(b"replicator/1 segment\0", keys.tenant, keys.domain, commitment, one.id),
                    struct.pack("<BBIQ", one.kind, one.encoding, one.length & 0xFFFFFFFF, counter),
                )
            )
            assert len(associated) == 131
            sealed.append(gcm(content_key, counter, one.stored, associated))
            length = len(sealed[-1])
            segments.append([one.id, one.kind, 0, counter, one.encoding, offset, length, one.length])
            offset += length
        policy = hashed(encoded(self.policy))[:16]
        value = self.bent_pack("directory", kind, [1, policy, slots, segments])
        body = self.bent_pack("directory bytes", kind, encoded(value))
        return bytes(self.bent_pack("pack", kind, self.envelope(kind, body, b"".join(sealed), "pack")))

    def record(self, kind: int, what: str, value: list[Any]) -> bytes:
        """Return the object of a signed record."""
        body = self.bent(f"{what} bytes", encoded(self.bent(what, value)))
        signed = self.bent(f"{what} signed", self.keys.signed(what.encode(), body))
        return bytes(self.bent(f"{what} object", self.envelope(kind, signed, b"", what)))

    def packs(self) -> list[tuple[int, bytes, list[bytes]]]:
        """Return kind, bytes and chunk ids of as few packs as it takes."""
        found = []
        for kind in (DATA_PACK, TREE_PACK):
            part: list[Chunk] = []
            for one in [*(one for one in self.chunks.values() if self.kinds[one.kind] == kind), None]:
                full = sum(len(other.stored) + 128 for other in part) + (len(one.stored) if one else 0) > 15 * MIB
                if part and (one is None or full):
                    found.append((kind, self.pack(kind, part), [other.id for other in part]))
                    part = []
                if one is not None:
                    part.append(one)
        return found

    def finish(self, tree: list[Any], chain: Chain, now_ns: int, **details: Any) -> Night:
        """Seal everything; ``tree`` is the top directory's content. ``details`` replace fields of SnapshotDetails."""
        keys, bent = self.keys, self.bent
        objects: dict[bytes, bytes] = {}

        def keep(data: bytes) -> bytes:
            objects[object_name(data)] = data
            return object_name(data)

        listed = []
        for kind, data, ids in self.packs():
            policy = hashed(encoded(self.policy))[:16]
            listed.append([keep(data), len(data), kind, policy, [], b"".join(ids)])
        index = keep(
            self.record(INDEX, "index", [1, keys.tenant, keys.domain, keys.identity, now_ns, [self.policy], listed])
        )
        added = b"".join(sorted(self.chunks))
        references = keep(
            self.record(REFERENCES, "references", [1, keys.tenant, keys.domain, keys.identity, b"", added, b""])
        )
        said = {"dataset": "evil", "host": "host", "roots": [], "tree": tree, "tags": [], "gaps": []} | details
        plain = bent("details bytes", encoded(bent("details", [1, *said.values()])))
        number = chain.number + 1
        snapshot = keep(
            self.record(
                SNAPSHOT,
                "snapshot",
                [
                    *(1, keys.tenant, keys.domain, keys.identity, number, chain.previous, chain.previous_snapshot),
                    *(1, now_ns, False, self.policy, [index], [references], len(listed)),
                    *(0, 0, [], bent("box", self.box(plain, number))),
                ],
            )
        )
        head = [1, keys.tenant, keys.identity, number, chain.previous, snapshot, now_ns]
        signed = bent("head signed", keys.signed(b"head", encoded(bent("head", head))))
        chain.number, chain.previous, chain.previous_snapshot = number, hashed(signed), snapshot
        return Night(objects=objects, head=signed, snapshot=snapshot)

    def box(self, plain: bytes, number: int) -> bytes:
        """Return a snapshot's details sealed to the restore key (format.md §8)."""
        keys = self.keys
        secret = self.random.randbytes(32)
        key = derived(secret, b"content", keys.tenant + keys.domain, keys.mix)
        associated = b"replicator/1 snapshot details\0" + keys.tenant + keys.domain + keys.identity
        content = gcm(key, 0, plain, associated + number.to_bytes(8, "little"))
        return sealed_to(keys.restore_key, secret, b"replicator/1 box") + derived(key, b"commitment") + content


FIELDS = (
    *("name", "kind", "mode", "uid", "gid", "user", "group", "mtime_ns", "ctime_ns", "size", "content", "target"),
    *("rdev", "link", "xattrs", "holes", "changed"),
)
"""Of an Entry, in their order (format.md §5.6)."""
NOTHING: list[Any] = [0, 0, []]
"""The content of an empty file or directory."""


def entry(name: bytes, kind: str = "file", **changes: Any) -> list[Any]:
    """Return an entry, with fields replaced."""
    values: dict[str, Any] = {
        "name": name,
        "kind": kind,
        "mode": 0o644,
        "uid": 0,
        "gid": 0,
        "user": "",
        "group": "",
        "mtime_ns": 1_600_000_000_123_456_789,
        "ctime_ns": 0,
        "size": 0,
        "content": NOTHING if kind in ("file", "dir") else None,
        "target": b"somewhere" if kind == "link" else b"",
        "rdev": 0x103 if kind in ("char", "block") else 0,
        "link": None,
        "xattrs": [],
        "holes": [],
        "changed": False,
    }
    assert set(changes) <= set(values), changes
    return [(values | changes)[one] for one in FIELDS]


def by_name(entries: Iterable[list[Any]]) -> list[list[Any]]:
    """Return entries in the order that a directory has."""
    return sorted(entries, key=lambda one: one[0])
