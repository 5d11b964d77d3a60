"""A domain's keys, and chunks to seal under them."""

from chunker import Compressor
from replicator.crypto.unseal import public_of
from replicator.format.container import Kind
from replicator.format.pack import CHUNK_DATA
from replicator.pack.keys import DomainKeys
from replicator.pack.packer import SealedPack, seal_pack
from replicator.pack.reader import PackReader, ReaderKeys
from replicator.rng import Rng
from tests.fakes import SeededRng

RESTORE = bytes(range(32))
POLICY = bytes(range(16))
Chunk = tuple[bytes, int, int, int, bytes]


def domain_keys(seed: str = "domain", *, restore: bytes = RESTORE, epoch: int = 1) -> DomainKeys:
    """Return a writer's keys of a domain."""
    rng = SeededRng(seed)
    return DomainKeys(
        tenant=rng.bytes(16),
        domain=rng.bytes(16),
        restore_key=public_of(restore),
        mix=rng.bytes(32),
        id_key=rng.bytes(32),
        cut_key=rng.bytes(32),
        epoch=epoch,
        index_keys={1: rng.bytes(32), 2: rng.bytes(32)},
    )


KEYS = domain_keys()
READER = ReaderKeys(keys=KEYS, restore_private=RESTORE)
HASHERS = KEYS.hashers()


def chunk(plain: bytes, kind: int = CHUNK_DATA, *, raw: bool = False) -> Chunk:
    """Return a chunk as a packer takes it."""
    encoding, stored = (0, plain) if raw else Compressor().compress(plain)
    return HASHERS[kind](plain), kind, int(encoding), len(plain), bytes(stored)


def sealed(plains: list[bytes], *, kind: Kind = Kind.DATA_PACK, rng: Rng | None = None) -> SealedPack:
    """Return a pack of chunks of data (or of trees)."""
    part = 1 if kind == Kind.DATA_PACK else 2
    return seal_pack([chunk(plain, part) for plain in plains], kind, POLICY, KEYS, rng or SeededRng("pack"), HASHERS)


def contents(data: bytes, reader: ReaderKeys = READER) -> dict[bytes, bytes]:
    """Return every chunk of a pack by its id."""
    pack = PackReader(data, reader)
    return {part.chunk_id: pack.chunk(part.kind, part.chunk_id) for part in pack.directory.segments}
