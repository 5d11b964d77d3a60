"""The keys a writer or reader of sealed objects works with, gathered from its records."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from chunker import ChunkHasher
from replicator.crypto.derive import chunk_id_key
from replicator.errors import KeyMissingError
from replicator.format.keybag import DomainSecrets, IndexDomain, WriterDomain
from replicator.format.pack import CHUNK_DATA, CHUNK_LIST, CHUNK_TREE

CHUNK_KINDS = (CHUNK_DATA, CHUNK_TREE, CHUNK_LIST)


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainKeys:
    """What writers, maintainers and keepers share of a domain. Enough to open directories, not segments.

    ``index_keys`` maps an epoch to its key; ``epoch`` is the one to write under. ``mix`` and the chunk keys are
    with writers and readers only: a maintainer's are empty, and it can neither name a chunk nor open one.
    """

    tenant: bytes
    domain: bytes
    restore_key: bytes
    mix: bytes = field(repr=False)
    id_key: bytes = field(repr=False)
    cut_key: bytes = field(repr=False)
    epoch: int
    index_keys: Mapping[int, bytes] = field(repr=False)

    def index_key(self, epoch: int) -> bytes:
        """Return the index key of an epoch.

        Raises:
            KeyMissingError: this home was never given it.
        """
        try:
            return self.index_keys[epoch]
        except KeyError:
            raise KeyMissingError(f"the index key of epoch {epoch} is not in this home") from None

    def hashers(self) -> dict[int, ChunkHasher]:
        """Return a hasher for each kind of chunk; ids of different kinds never meet.

        Raises:
            KeyMissingError: a maintainer's keys.
        """
        if not self.id_key:
            raise KeyMissingError("this home has no key that names chunks")
        return {kind: ChunkHasher(chunk_id_key(self.id_key, kind)) for kind in CHUNK_KINDS}


def writer_keys(tenant: bytes, domain: WriterDomain) -> DomainKeys:
    """Return the working keys of a writer's domain record; it writes under the newest epoch."""
    return DomainKeys(
        tenant=tenant,
        domain=domain.id,
        restore_key=domain.restore_key,
        mix=domain.mix,
        id_key=domain.id_key,
        cut_key=domain.cut_key,
        epoch=max(key.epoch for key in domain.index_keys),
        index_keys={key.epoch: key.key for key in domain.index_keys},
    )


def maintainer_keys(tenant: bytes, domain: IndexDomain) -> DomainKeys:
    """Return the working keys of a maintainer: directories and indexes of all epochs, nothing inside a segment."""
    return DomainKeys(
        tenant=tenant,
        domain=domain.id,
        restore_key=domain.restore_key,
        mix=b"",
        id_key=b"",
        cut_key=b"",
        epoch=max(key.epoch for key in domain.index_keys),
        index_keys={key.epoch: key.key for key in domain.index_keys},
    )


def as_index(domain: WriterDomain) -> IndexDomain:
    """Return what a maintainer may know of a domain."""
    return IndexDomain(id=domain.id, name=domain.name, restore_key=domain.restore_key, index_keys=domain.index_keys)


def as_writer(secrets: DomainSecrets, restore_key: bytes) -> WriterDomain:
    """Return what a writer may know of a domain: everything but the private restore key."""
    return WriterDomain(
        id=secrets.id,
        name=secrets.name,
        restore_key=restore_key,
        mix=secrets.mix,
        id_key=secrets.id_key,
        cut_key=secrets.cut_key,
        index_keys=secrets.index_keys,
    )


def snapshot_context(keys: DomainKeys, writer: bytes, number: int) -> bytes:
    """Return what a snapshot's sealed details are bound to."""
    return b"replicator/1 snapshot details\x00" + keys.tenant + keys.domain + writer + number.to_bytes(8, "little")
