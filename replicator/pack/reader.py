"""Open the chunks of a pack with a domain's restore key. Never imported by a node's nightly code."""

from dataclasses import dataclass
from typing import Protocol

from replicator.crypto.unseal import open_box, open_slot, open_with_any
from replicator.errors import CredentialError, IntegrityError
from replicator.format.container import BODY_OFFSET
from replicator.pack.directory import directory_end, read_directory
from replicator.pack.keys import DomainKeys
from replicator.pack.packer import SegmentOpener


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderKeys:
    """A domain's working keys and the private restore key; ``formers`` are those before it, the last one first."""

    keys: DomainKeys
    restore_private: bytes
    formers: tuple[bytes, ...] = ()

    @property
    def privates(self) -> tuple[bytes, ...]:
        """All private restore keys, the newest first."""
        return (self.restore_private, *self.formers)

    def open_box(self, box: bytes, associated: bytes, what: str) -> bytes:
        """Return what was boxed for the readers of this domain, whichever restore key was theirs then.

        Raises:
            KeyWrongError: it is for none of them.
            IntegrityError: changed bytes.
        """
        keys = self.keys
        return open_with_any(
            self.privates,
            lambda private: open_box(private, keys.mix, keys.tenant, keys.domain, box, associated, what),
        )

    def __repr__(self) -> str:
        return f"ReaderKeys(domain={self.keys.domain.hex()})"


class PackBytes(Protocol):
    """The bytes of a pack that do not lie in memory: a slice is read when it is asked for, and short at their end."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, part: slice, /) -> bytes | memoryview:
        """Return some of them. May raise OSError."""
        ...


class PackReader:
    """One whole pack, in memory or wherever :class:`PackBytes` reads it from; then each call may raise OSError too.

    A slot is opened once, when a chunk in it is first asked for: one that is damaged, or sealed to another restore
    key, costs its own chunks only. Which keys a pack is for is its writer's word, so that a wrong one is the pack's
    fault and not that of the home that reads it.

    Raises:
        IntegrityError, FormatError: it is no pack of this domain, or damaged.
    """

    def __init__(self, data: bytes | memoryview | PackBytes, reader: ReaderKeys) -> None:
        self._data = memoryview(data) if isinstance(data, bytes) else data
        size = len(data)
        try:
            prefix = self._data[: directory_end(self._data[:BODY_OFFSET], size, reader.keys)]
            _, self.directory, self._start = read_directory(prefix, size, reader.keys)
        except CredentialError as error:
            raise IntegrityError(error.message, hint=error.hint) from error
        self._reader = reader
        self._places = {segment.chunk_id: segment for segment in self.directory.segments}
        self._hashers = reader.keys.hashers()
        self._openers: dict[int, SegmentOpener] = {}

    @property
    def is_in_memory(self) -> bool:
        """Whether all of it is, so that what is wrong with it was so from the beginning."""
        return isinstance(self._data, memoryview)

    def has(self, chunk_id: bytes) -> bool:
        """Return whether the pack says that it holds a chunk."""
        return chunk_id in self._places

    def chunk(self, kind: int, chunk_id: bytes) -> bytes:
        """Return the plaintext of a chunk of this kind, compared with its id.

        Raises:
            IntegrityError: the pack does not hold it, or it is damaged or sealed to another restore key.
        """
        segment = self._places.get(chunk_id)
        if segment is None or segment.kind != kind:
            raise IntegrityError(f"chunk {chunk_id.hex()[:12]}: not in the pack that the index names")
        at = self._start + segment.offset
        return self._opener(segment.slot).open(segment, self._data[at : at + segment.stored])

    def _opener(self, place: int) -> SegmentOpener:
        opener = self._openers.get(place)
        if opener is None:
            keys, slot = self._reader.keys, self.directory.slots[place]
            try:
                key = open_with_any(
                    self._reader.privates,
                    lambda private: open_slot(
                        private,
                        keys.mix,
                        keys.tenant,
                        keys.domain,
                        slot.sealed,
                        slot.commitment,
                        f"pack slot {place}",
                    ),
                )
            except CredentialError as error:
                raise IntegrityError(error.message, hint=error.hint) from error
            opener = self._openers[place] = SegmentOpener(keys, self.directory, {place: key}, self._hashers)
        return opener


def check_length(chunk: bytes, data: bytes, length: int) -> None:
    """Check that a chunk has the length that a list gives it.

    Raises:
        IntegrityError: it has another.
    """
    if len(data) != length:
        raise IntegrityError(f"chunk {chunk.hex()[:12]}: {len(data)} bytes, the list that names it says {length}")
