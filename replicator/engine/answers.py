"""What somebody shows of a tenant to whoever has only its sheet: a charter and its keybag, checked against root."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from replicator.charter.newest import forks, ranked
from replicator.charter.verify import VerifiedCharter, verify_change, verify_charter, verify_root
from replicator.config import counted
from replicator.crypto.recovery import Root
from replicator.crypto.sign import Context, signer_of, verify
from replicator.engine.carried import LARGEST_RECORD
from replicator.engine.tenant import open_keybag_of
from replicator.errors import FormatError, IntegrityError, NotFoundError, ReplicatorError
from replicator.format.charter import read_charter
from replicator.format.container import RECORD_MAGIC, unwrap_record
from replicator.format.keybag import Keybag
from replicator.format.merkle import name_of
from replicator.ids import Identity, ObjectName, TenantId, short, tenant_of
from replicator.store.carried import CarriedDisk, CarriedObjects


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one provider, or disk, showed; ``error`` is what is wrong with it, or why it showed nothing.

    ``bag`` is what the keybag that its charter names opens to, ``keybag_data`` the object. A disk has no ``identity``.
    """

    name: str
    identity: Identity | None
    charter: VerifiedCharter | None = None
    bag: Keybag | None = None
    keybag_data: bytes = b""
    error: ReplicatorError | None = None

    @property
    def by_disk(self) -> bool:
        """Whether a disk showed the charter, which is as old as the disk and has seen nothing since."""
        return self.identity is None and self.charter is not None


def verified_under(root: Root, signed: bytes) -> VerifiedCharter:
    """Return a charter under this root, or under the one that it is announced to follow.

    The second is as good: this root's own statement names the one before it by hash.

    Raises:
        IntegrityError: neither.
        FormatError: it is no charter.
    """
    charter = read_charter(verify(signed, Context.CHARTER, [signer_of(signed)]))
    former = verify_root(charter.root, None).root_key
    following = verify_change(charter.change).successor.root_key if charter.change else b""
    return verify_charter(
        signed, root_key=former if following == root.signing.public else root.signing.public, known=None
    )


def shown_by_disk(disk: CarriedDisk, root: Root) -> list[Answer]:
    """Return what a disk has: its newest charter whose keybag opens, and those that say something against that one.

    All folders of tenants are looked into, since the sheet does not tell the tenant's number after a change of root.
    """
    found: list[Answer] = []
    for tenant in disk.tenants():
        objects = disk.tenant(tenant)
        try:
            found += _shown_of(disk.path, tenant, objects, root)
        except OSError as error:
            why = ReplicatorError(f"{disk.path}: cannot be read ({error.strerror})", hint="try another disk or --peer")
            found.append(Answer(name=disk.path, identity=None, error=why))
        finally:
            objects.close()
    if not found:
        none = NotFoundError(
            f"{disk.path}: no charter under this sheet lies there",
            hint="a disk that was seeded by an early build has none: give --peer ADDR too, or another --from",
        )
        found.append(Answer(name=disk.path, identity=None, error=none))
    return found


def _shown_of(path: str, tenant: TenantId, objects: CarriedObjects, root: Root) -> Iterator[Answer]:
    nothing = Answer(name=path, identity=None)
    charters: list[VerifiedCharter] = []
    damaged: list[ObjectName] = []
    unread: list[ObjectName] = []
    for name, data in _records(objects):
        if data is None:
            unread.append(name)
            continue
        if name_of(data) != name:
            damaged.append(name)
            continue
        try:
            charter = verified_under(root, unwrap_record(data))
        except (IntegrityError, FormatError):
            continue  # a keybag, or another tenant's: most of a provider's folder is
        if charter.charter.tenant == tenant:
            charters.append(charter)
    if charters or tenant == tenant_of(root.signing.public):
        if damaged:
            wrong = IntegrityError(f"{len(damaged)} of its charters and keybags are damaged, {short(damaged[0])} first")
            yield replace(nothing, error=wrong)
        if unread:
            what = counted(len(unread), "small object")
            wrong = IntegrityError(
                f"{what} there cannot be read, {short(unread[0])} first: a newer charter may be among them",
                hint="try another disk or --peer",
            )
            yield replace(nothing, error=wrong)
    told = set()
    for charter in ranked(charters):
        told.add(charter.hash)
        try:
            keybag_data = _keybag_of(charter, objects, path)
            bag = open_keybag_of(root, keybag_data, charter)
        except ReplicatorError as error:
            yield replace(nothing, charter=charter, error=error)
            continue
        yield replace(nothing, charter=charter, bag=bag, keybag_data=keybag_data)
        break
    others = {one.hash: one for pair in forks(charters) for one in pair if one.hash not in told}
    for charter in others.values():
        yield replace(nothing, charter=charter)


def _records(objects: CarriedObjects) -> Iterator[tuple[ObjectName, bytes | None]]:
    """Give what says of itself that it is a record in clear, one at a time, unverified; None if it cannot be read.

    A sector that is bad hides what lies on it and nothing else. Raises OSError: the folder cannot be listed.
    """
    for name, size in objects.names():
        if size <= LARGEST_RECORD:
            try:
                if objects.read(name, len(RECORD_MAGIC)) == RECORD_MAGIC:
                    yield name, objects.read(name, size)
            except OSError:
                yield name, None


def _keybag_of(charter: VerifiedCharter, objects: CarriedObjects, path: str) -> bytes:
    """Return the keybag object that a charter names.

    Raises:
        NotFoundError: it is not there.
        IntegrityError: it is there, and damaged or not to be read.
    """
    name = ObjectName(charter.charter.keybag)
    size = objects.size(name)
    if size is None or size > LARGEST_RECORD:
        raise NotFoundError(f"{path}: the keybag of charter {charter.number} does not lie there")
    try:
        data = objects.read(name, size)
    except OSError as error:
        raise IntegrityError(f"the keybag of charter {charter.number} cannot be read ({error.strerror})") from error
    if name_of(data) != name:
        raise IntegrityError(f"the keybag of charter {charter.number} on this disk is damaged")
    return data
