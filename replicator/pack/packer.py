"""Fill, shuffle, seal and check packs.

A pack gets a fresh random key that the writer forgets once the pack has been opened, decompressed and hashed
again from its sealed bytes (restic #4523 and #4677: a compressor or a memory bit can be wrong). Chunks go to a
random one of a few open packs and are shuffled inside, so that neighbours in a file are not neighbours in a pack.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from mmap import mmap

from blake3 import blake3

from chunker import ChunkHasher, CorruptChunkError, decompress
from chunker.buffers import BytesLike
from replicator.crypto.aead import TAG_SIZE, Sealer
from replicator.crypto.derive import commitment, content_key, hkdf
from replicator.crypto.seal import PURPOSE_PACK, SECRET_SIZE, seal_to
from replicator.errors import IntegrityError
from replicator.format.codec import encode
from replicator.format.container import BODY_OFFSET, Kind
from replicator.format.merkle import name_of
from replicator.format.pack import DIRECTORY_ROOM, SEGMENT_ROOM, Directory, Segment, Slot
from replicator.format.sizes import LARGEST, size_class
from replicator.ids import ObjectName
from replicator.pack.directory import read_directory
from replicator.pack.keys import DomainKeys
from replicator.pack.sealed import write_envelope
from replicator.rng import Rng, shuffle

_FIXED = BODY_OFFSET + TAG_SIZE + DIRECTORY_ROOM
OPEN_PACKS = 2
"""Two leave a fifth of a percent empty where one leaves a percent, and a third and fourth change nothing (measured)."""
MANY = 1 << 14
"""A pack of so many chunks takes no more than fill its size class. A chunk costs some 700 bytes while its pack is open,
sealed and checked, so a pack of 16 MiB of the tiniest files took 100 MiB and more."""
_SPLIT_FROM = 1 << 20
"""Smaller packs are not split: a request for each costs more than the room."""


def segment_context(tenant: bytes, domain: bytes) -> bytes:
    """Return the part of a segment's associated data that is the same for a domain."""
    return b"replicator/1 segment\x00" + tenant + domain


def segment_associated(context: bytes, segment: Segment, slot_commitment: bytes) -> bytes:
    """Return what a segment is bound to: its meaning and its key, never its place.

    The slot is named by its commitment, so that a repack may renumber slots without touching ciphertext.
    """
    return b"".join(
        (
            context,
            slot_commitment,
            segment.chunk_id,
            segment.kind.to_bytes(1, "little"),
            segment.encoding.to_bytes(1, "little"),
            segment.length.to_bytes(4, "little"),
            segment.counter.to_bytes(8, "little"),
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedPack:
    """A finished pack; ``ids`` are its chunk ids in directory order."""

    name: ObjectName
    data: bytes
    kind: Kind
    policy: bytes
    ids: tuple[bytes, ...]


@dataclass(slots=True)
class _OpenPack:
    """Chunks that lie one behind the other in one buffer. What is never filled of it takes no memory.

    As objects of their own, freed at every seal, they leave holes that let the heap grow by half (measured). The buffer
    goes to the next pack when this one is sealed: 16 MiB of fresh pages each time were a seventh of a reader's time.
    """

    chunks: list[tuple[bytes, int, int, int, memoryview]] = field(default_factory=list)
    used: int = _FIXED
    buffer: memoryview = field(default_factory=lambda: memoryview(mmap(-1, LARGEST)))
    filled: int = 0

    def fits(self, stored: int, size: int = LARGEST) -> bool:
        if len(self.chunks) >= MANY:
            size = min(size, size_class(self.used))
        return self.used + SEGMENT_ROOM + stored + TAG_SIZE <= size

    def add(self, chunk_id: bytes, kind: int, encoding: int, length: int, stored: BytesLike) -> None:
        taken = self.buffer[self.filled : self.filled + len(stored)]
        taken[:] = stored
        self.filled += len(stored)
        self.chunks.append((chunk_id, kind, encoding, length, taken))
        self.used += SEGMENT_ROOM + len(stored) + TAG_SIZE


class Packer:
    """Takes chunks, hands finished packs to ``emit``. Holds at most two packs of stored bytes in memory.

    Of chunks so small that a pack would hold very many, packs are smaller: full all the same, as sizes are classes.
    """

    def __init__(
        self,
        kind: Kind,
        policy: bytes,
        keys: DomainKeys,
        rng: Rng,
        emit: Callable[[SealedPack], None],
    ) -> None:
        self._kind = kind
        self._policy = policy
        self._keys = keys
        self._rng = rng
        self._emit = emit
        self._hashers = keys.hashers()
        self._open: list[_OpenPack] = []

    def add(self, chunk_id: bytes, kind: int, encoding: int, length: int, stored: BytesLike) -> None:
        """Take one chunk; ``stored`` (its compressed or raw bytes) is copied."""
        while len(self._open) < OPEN_PACKS:
            self._open.append(_OpenPack())
        room = [pack for pack in self._open if pack.fits(len(stored))]
        if not room:
            fullest = max(self._open, key=lambda pack: pack.used)
            self._open.remove(fullest)
            self._seal(fullest)
            room = [_OpenPack(buffer=fullest.buffer)]
            self._open += room
        chosen = room[self._rng.below(len(room))]
        chosen.add(chunk_id, kind, encoding, length, stored)

    def flush(self) -> None:
        """Seal what is open, merged into as few packs as it fits, or one more where that halves the padding."""
        rest = sorted((pack for pack in self._open if pack.chunks), key=lambda pack: pack.used)
        self._open = []
        while rest:
            pack = rest.pop()
            for other in list(rest):
                many = len(pack.chunks) + len(other.chunks) > MANY
                if not many and pack.used + other.used - _FIXED <= LARGEST:
                    pack.chunks += other.chunks
                    pack.used += other.used - _FIXED
                    rest.remove(other)
            shuffle(self._rng, pack.chunks)  # before it is known which go together
            for part in _split(pack):
                self._seal(part)

    def _seal(self, pack: _OpenPack) -> None:
        shuffle(self._rng, pack.chunks)
        sealed = seal_pack(pack.chunks, self._kind, self._policy, self._keys, self._rng, self._hashers)
        self._emit(sealed)


def _split(pack: _OpenPack) -> list[_OpenPack]:
    """Return a pack, or two if it would be a quarter empty: one of half its size, and the rest of at most a quarter."""
    half = size_class(pack.used) // 2
    if half < _SPLIT_FROM or pack.used > half + half // 2:
        return [pack]
    first, rest = _OpenPack(), _OpenPack()
    for chunk in pack.chunks:
        (first if first.fits(len(chunk[4]), half) else rest).add(*chunk)
    return [first, rest] if size_class(first.used) + size_class(rest.used) < 2 * half else [pack]


def seal_pack(
    chunks: Sequence[tuple[bytes, int, int, int, bytes | memoryview]],
    kind: Kind,
    policy: bytes,
    keys: DomainKeys,
    rng: Rng,
    hashers: dict[int, ChunkHasher],
) -> SealedPack:
    """Return the sealed pack of (id, kind, encoding, length, stored bytes), checked by opening it again.

    The secret is random bytes hedged with the chunk ids (the idea of RFC 8937): two machines cloned with one
    random state still get different keys for different content.

    Raises:
        IntegrityError: what was sealed does not open to the chunks it should hold.
    """
    ids = tuple(chunk[0] for chunk in chunks)
    secret = hkdf(rng.bytes(SECRET_SIZE), label=b"pack secret", salt=blake3(b"".join(ids)).digest())
    key = content_key(secret, keys.mix, keys.tenant, keys.domain)
    slot = Slot(sealed=seal_to(keys.restore_key, secret, PURPOSE_PACK), commitment=commitment(key))
    segments = []
    offset = 0
    for counter, (chunk_id, chunk_kind, encoding, length, stored) in enumerate(chunks):
        segment = Segment(
            chunk_id=chunk_id,
            kind=chunk_kind,
            slot=0,
            counter=counter,
            encoding=encoding,
            offset=offset,
            stored=len(stored) + TAG_SIZE,
            length=length,
        )
        segments.append(segment)
        offset += segment.stored
    body = encode(Directory(policy=policy, slots=[slot], segments=segments))
    out = BytesIO()  # which gives up its bytes without another copy of 16 MiB
    out.seek(size_class(BODY_OFFSET + len(body) + TAG_SIZE + offset) - 1)
    out.write(b"\0")
    context = segment_context(keys.tenant, keys.domain)
    sealer = Sealer(key)
    with out.getbuffer() as view:
        start = write_envelope(view, kind, body, 0, len(body), offset, keys, rng)
        for segment, chunk in zip(segments, chunks, strict=True):
            at = start + segment.offset
            with view[at : at + segment.stored] as room:
                sealer.seal_into(segment.counter, chunk[4], segment_associated(context, segment, slot.commitment), room)
        end = start + offset
        view[end:] = rng.bytes(len(view) - end)
    data = out.getvalue()
    check_sealed(data, ids, key, keys, hashers)
    return SealedPack(name=name_of(data), data=data, kind=kind, policy=policy, ids=ids)


def check_sealed(
    data: bytes, ids: tuple[bytes, ...], key: bytes, keys: DomainKeys, hashers: dict[int, ChunkHasher]
) -> None:
    """Open a pack from its sealed bytes and compare every chunk with its id.

    Raises:
        IntegrityError: the machine that made it cannot be trusted with this pack; it must not be stored.
    """
    _, directory, start = read_directory(data, len(data), keys)
    if tuple(segment.chunk_id for segment in directory.segments) != ids:
        raise IntegrityError("pack: its directory is not what was written; check this machine's memory")
    if commitment(key) != directory.slots[0].commitment:
        raise IntegrityError("pack: its key does not match its commitment; check this machine's memory")
    opener = SegmentOpener(keys, directory, {0: key}, hashers)
    with memoryview(data) as view:
        for segment in directory.segments:
            at = start + segment.offset
            opener.open(segment, view[at : at + segment.stored])


class SegmentOpener:
    """Opens the segments of one pack, given the content keys of its slots."""

    def __init__(
        self, keys: DomainKeys, directory: Directory, content_keys: dict[int, bytes], hashers: dict[int, ChunkHasher]
    ) -> None:
        self._context = segment_context(keys.tenant, keys.domain)
        self._directory = directory
        self._sealers = {slot: Sealer(key) for slot, key in content_keys.items()}
        self._hashers = hashers

    def open(self, segment: Segment, sealed: bytes | memoryview) -> bytes:
        """Return the plaintext of one chunk, decrypted, decompressed and compared with its id.

        Raises:
            IntegrityError: any of the three does not hold; the chunk is named.
        """
        what = f"chunk {segment.chunk_id.hex()[:12]}"
        associated = segment_associated(self._context, segment, self._directory.slots[segment.slot].commitment)
        stored = self._sealers[segment.slot].open(segment.counter, sealed, associated, what)
        try:
            plain = bytes(decompress(segment.encoding, stored, segment.length))
        except CorruptChunkError as error:
            raise IntegrityError(f"{what}: {error}") from error
        if self._hashers[segment.kind](plain) != segment.chunk_id:
            raise IntegrityError(f"{what}: its bytes are not the ones it is named for")
        return plain
