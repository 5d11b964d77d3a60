"""Move chunks that are still needed out of packs that mostly are not, without any key that opens a chunk.

Segments are copied as the ciphertext they are: what they are bound to names their key by its commitment, not by pack,
place or slot (docs/decisions/0002). The new pack is one like any other: its directory is sealed under the index key,
its slots are those of the packs it was made of.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from io import BytesIO

import msgspec
from blake3 import blake3

from replicator.crypto.aead import TAG_SIZE
from replicator.errors import IntegrityError
from replicator.format.codec import encode
from replicator.format.container import BODY_OFFSET, Kind
from replicator.format.merkle import name_of
from replicator.format.pack import (
    COMMITMENT_SIZE,
    DIRECTORY_ROOM,
    MAX_SLOTS,
    SEALED_SECRET_SIZE,
    SEGMENT_ROOM,
    Directory,
    Segment,
    Slot,
)
from replicator.format.sizes import LARGEST, size_class
from replicator.pack.directory import read_directory
from replicator.pack.keys import DomainKeys
from replicator.pack.packer import SealedPack
from replicator.pack.sealed import write_envelope
from replicator.rng import Rng, shuffle

_FIXED = BODY_OFFSET + TAG_SIZE + DIRECTORY_ROOM
SLOT_ROOM = 1 + 2 + SEALED_SECRET_SIZE + 2 + COMMITMENT_SIZE
"""Most bytes that one more slot takes in an encoded directory."""
_SPLIT_FROM = 1 << 20

_Key = tuple[bytes, bytes]
"""A slot: its commitment and its sealed secret. By the commitment alone a pack could spoil another one's key."""


def room_for(segments: int, stored: int, slots: int) -> int:
    """Return how many bytes of a pack so many segments take at most; ``stored`` counts their tags."""
    return _FIXED + (slots - 1) * SLOT_ROOM + segments * SEGMENT_ROOM + stored


@dataclass(frozen=True, slots=True)
class _Moving:
    segment: Segment
    key: _Key
    sealed: bytes | memoryview


@dataclass(slots=True)
class _Filling:
    """What goes into one new pack."""

    parts: list[_Moving] = field(default_factory=list)
    ids: set[bytes] = field(default_factory=set)
    keys: dict[_Key, Slot] = field(default_factory=dict)
    stored: int = 0

    def fits(self, part: _Moving, size: int = LARGEST) -> bool:
        slots = len(self.keys) + (part.key not in self.keys)
        needed = room_for(len(self.parts) + 1, self.stored + part.segment.stored, slots)
        return slots <= MAX_SLOTS and needed <= size

    def add(self, part: _Moving, slot: Slot) -> None:
        self.parts.append(part)
        self.ids.add(part.segment.chunk_id)
        self.keys.setdefault(part.key, slot)
        self.stored += part.segment.stored

    @property
    def used(self) -> int:
        return room_for(len(self.parts), self.stored, max(1, len(self.keys)))


class Repacker:
    """Takes packs of one writer, kind and policy, hands new packs to ``emit``. Holds one new pack's bytes in memory.

    Of one writer: which chunk has which bytes is each writer's own word, and a chunk that is in two packs is copied
    from the first.
    """

    def __init__(
        self, kind: Kind, policy: bytes, keys: DomainKeys, rng: Rng, emit: Callable[[SealedPack], None]
    ) -> None:
        self._kind = kind
        self._policy = policy
        self._keys = keys
        self._rng = rng
        self._emit = emit
        self._filling = _Filling()

    def add(self, data: bytes | memoryview, live: Collection[bytes]) -> int:
        """Take the chunks ``live`` of a whole pack, whose name was checked; return how many were copied.

        Nothing of it is taken if anything is wrong with it.

        Raises:
            IntegrityError, FormatError: no pack of this kind and domain, damaged, or it lacks one of them.
        """
        kind, directory, start = read_directory(data, len(data), self._keys)
        if kind != self._kind:
            raise IntegrityError(f"pack: a {kind.name.lower()} where a {self._kind.name.lower()} should be")
        here = {segment.chunk_id for segment in directory.segments}
        lacking = [chunk for chunk in live if chunk not in here]
        if lacking:
            raise IntegrityError(f"pack: lacks {len(lacking)} chunks that it should hold ({lacking[0].hex()[:12]})")
        view = memoryview(data)
        count = 0
        for segment in directory.segments:
            if segment.chunk_id not in live or segment.chunk_id in self._filling.ids:
                continue
            slot = directory.slots[segment.slot]
            at = start + segment.offset
            # Copied: a slice would keep the whole old pack in memory.
            part = _Moving(segment, (slot.commitment, slot.sealed), bytes(view[at : at + segment.stored]))
            if not self._filling.fits(part):
                self._seal(self._filling)
                self._filling = _Filling()
            self._filling.add(part, slot)
            count += 1
        return count

    def flush(self) -> None:
        """Seal what is open, as one more pack where that halves the padding."""
        filling, self._filling = self._filling, _Filling()
        if not filling.parts:
            return
        shuffle(self._rng, filling.parts)
        for part in _split(filling):
            self._seal(part)

    def _seal(self, filling: _Filling) -> None:
        shuffle(self._rng, filling.parts)
        self._emit(_assemble(filling, self._kind, self._policy, self._keys, self._rng))


def segments_of(data: bytes | memoryview, keys: DomainKeys) -> tuple[Directory, dict[bytes, bytes]]:
    """Return the directory of a whole pack, whose name was checked, and of each chunk a hash of all that opens it.

    Two packs in which a chunk has the same hash hold the same ciphertext of it under the same sealed secret: who trusts
    the one may trust the other, without any key that opens it.

    Raises:
        IntegrityError, FormatError: no pack of this domain, or damaged.
    """
    _, directory, start = read_directory(data, len(data), keys)
    view = memoryview(data)
    found = {}
    for segment in directory.segments:
        slot = directory.slots[segment.slot]
        at = start + segment.offset
        told = msgspec.msgpack.encode(msgspec.structs.replace(segment, slot=0, offset=0))
        parts = (slot.commitment, slot.sealed, told, view[at : at + segment.stored])
        hasher = blake3()
        for part in parts:
            hasher.update(len(part).to_bytes(4, "big"))
            hasher.update(part)
        found[segment.chunk_id] = hasher.digest()
    return directory, found


def _split(filling: _Filling) -> list[_Filling]:
    """Return what is to be one pack, or two if it would be a quarter empty: one of half its size, and the rest."""
    half = size_class(filling.used) // 2
    if half < _SPLIT_FROM or filling.used > half + half // 2:
        return [filling]
    first, rest = _Filling(), _Filling()
    for part in filling.parts:
        (first if first.fits(part, half) else rest).add(part, filling.keys[part.key])
    return [first, rest] if size_class(first.used) + size_class(rest.used) < 2 * half else [filling]


def _assemble(filling: _Filling, kind: Kind, policy: bytes, keys: DomainKeys, rng: Rng) -> SealedPack:
    """Return the new pack, checked by opening its directory again and comparing every segment.

    Raises:
        IntegrityError: two segments have one nonce, or this machine's memory is not to be trusted.
    """
    places = {key: place for place, key in enumerate(filling.keys)}
    segments = []
    offset = 0
    for part in filling.parts:
        segments.append(msgspec.structs.replace(part.segment, slot=places[part.key], offset=offset))
        offset += part.segment.stored
    body = encode(Directory(policy=policy, slots=list(filling.keys.values()), segments=segments))
    out = BytesIO()
    out.seek(size_class(BODY_OFFSET + len(body) + TAG_SIZE + offset) - 1)
    out.write(b"\0")
    with out.getbuffer() as view:
        at = write_envelope(view, kind, body, 0, len(body), offset, keys, rng)
        for part in filling.parts:
            view[at : at + part.segment.stored] = part.sealed
            at += part.segment.stored
        view[at:] = rng.bytes(len(view) - at)
    data = out.getvalue()
    _check_moved(data, filling.parts, places, keys)
    ids = tuple(part.segment.chunk_id for part in filling.parts)
    return SealedPack(name=name_of(data), data=data, kind=kind, policy=policy, ids=ids)


def _check_moved(data: bytes, parts: Sequence[_Moving], places: dict[_Key, int], keys: DomainKeys) -> None:
    _, directory, start = read_directory(data, len(data), keys)
    if len(directory.segments) != len(parts):
        raise IntegrityError("pack: its directory is not what was written; check this machine's memory")
    for segment, part in zip(directory.segments, parts, strict=True):
        slot = directory.slots[segment.slot]
        meant = msgspec.structs.replace(part.segment, slot=places[part.key], offset=segment.offset)
        at = start + segment.offset
        if (
            segment != meant
            or (slot.commitment, slot.sealed) != part.key
            or not data.startswith(part.sealed, at)  # compares without a copy
        ):
            raise IntegrityError("pack: a chunk changed on its way into another one; check this machine's memory")
