"""Open the chunks of a pack with a domain's restore key. Never imported by a node's nightly code."""

from dataclasses import dataclass

from replicator.crypto.unseal import open_slot
from replicator.errors import IntegrityError
from replicator.format.pack import Directory
from replicator.pack.directory import read_directory
from replicator.pack.keys import DomainKeys
from replicator.pack.packer import SegmentOpener


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderKeys:
    """A domain's working keys and the private restore key."""

    keys: DomainKeys
    restore_private: bytes

    def __repr__(self) -> str:
        return f"ReaderKeys(domain={self.keys.domain.hex()})"


class PackReader:
    """One pack as it lies in memory, whole. Content keys are opened once, when first needed."""

    def __init__(self, data: bytes, reader: ReaderKeys) -> None:
        _, self.directory, self._start = read_directory(data, len(data), reader.keys)
        self._data = memoryview(data)
        self._reader = reader
        self._places = {segment.chunk_id: segment for segment in self.directory.segments}
        self._opener = SegmentOpener(
            reader.keys, self.directory, _content_keys(self.directory, reader), reader.keys.hashers()
        )

    def chunk(self, kind: int, chunk_id: bytes) -> bytes:
        """Return the plaintext of a chunk of this kind, compared with its id.

        Raises:
            IntegrityError: the pack does not hold it, or it is damaged.
        """
        segment = self._places.get(chunk_id)
        if segment is None or segment.kind != kind:
            raise IntegrityError(f"chunk {chunk_id.hex()[:12]}: not in the pack that the index names")
        at = self._start + segment.offset
        return self._opener.open(segment, self._data[at : at + segment.stored])


def _content_keys(directory: Directory, reader: ReaderKeys) -> dict[int, bytes]:
    keys = reader.keys
    return {
        place: open_slot(
            reader.restore_private, keys.mix, keys.tenant, keys.domain, slot.sealed, slot.commitment, "pack slot"
        )
        for place, slot in enumerate(directory.slots)
    }
