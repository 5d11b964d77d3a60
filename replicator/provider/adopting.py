"""Taking in a disk that somebody carried here: exactly as if each object on it were uploaded by who signed for it.

What is on the disk is a stranger's until its name was computed from its bytes: space is reserved by the same quotas,
the upload goes the same way, and the receipt is the same; it is kept until whoever signed asks for it. Only what a
signed statement names for this provider is looked at, by who may write here. Stopped anywhere, it goes on where it was:
what lies here with its receipt is not read again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from replicator.crypto.sign import Context, signer_of, verify
from replicator.errors import FormatError, IntegrityError
from replicator.format.carried import Carried
from replicator.format.codec import decode
from replicator.ids import NAME_SIZE, ObjectName, TenantId
from replicator.provider.core import Core
from replicator.provider.objects import size_of
from replicator.provider.receipts import has_receipt, keep_receipt
from replicator.provider.session import ProviderSession, receipt_for
from replicator.provider.tenants import Holder, find_holder, find_tenant
from replicator.store.carried import LARGEST_STATEMENT, CarriedDisk, CarriedObjects
from replicator.transport.handler import RequestRefusedError

PIECE: Final = 1 << 20
_ENDS: Final = ("quota", "full", "forbidden", "unauthorized", "unavailable")
"""Refusals that are about this provider, and none about what was brought."""


@dataclass(slots=True)
class Adopted:
    """What came of one tenant's part of a disk. ``refused`` says why no more of it was taken, empty if all was.

    ``missing`` were named and are not on the disk; ``damaged`` are other bytes than their names stand for.
    """

    tenant: TenantId
    objects: int = 0
    size: int = 0
    here: int = 0
    missing: int = 0
    damaged: int = 0
    refused: str = ""
    notices: list[str] = field(default_factory=list)


def adopt(core: Core, disk: CarriedDisk, advance: Callable[[int], None] = lambda _size: None) -> Iterator[Adopted]:
    """Take in what a disk brings, tenant by tenant. What is wrong with one stops no other."""
    for tenant in disk.tenants():
        found = Adopted(tenant)
        objects = disk.tenant(tenant)
        try:
            if find_tenant(core.database, tenant) is None:
                found.refused = "no tenant here"
            else:
                _adopt(core, objects, found, advance)
        finally:
            objects.close()
        yield found


def _adopt(core: Core, objects: CarriedObjects, found: Adopted, advance: Callable[[int], None]) -> None:
    known = False
    for signed in objects.statements():
        try:
            carried = decode(Carried, verify(signed, Context.CARRIED, [signer_of(signed)]), limit=LARGEST_STATEMENT)
        except (FormatError, IntegrityError) as error:
            found.notices.append(f"a statement on the disk does not hold: {error}")
            continue
        if (carried.tenant, carried.provider) != (found.tenant, core.identity):
            continue  # for another provider, whose turn comes
        holder = find_holder(core.database, signer_of(signed))
        if holder is None or holder.tenant != found.tenant:
            found.notices.append(
                "a statement on the disk is signed by somebody who has no certificate of this provider"
            )
            continue
        known = True
        session = ProviderSession(core, holder)
        try:
            session.must_write()
        except RequestRefusedError as refused:
            found.refused = refused.message
            continue
        for at in range(0, len(carried.names), NAME_SIZE):
            name = ObjectName(carried.names[at : at + NAME_SIZE])
            try:
                _take(core, objects, session, holder, name, found, advance)
            except RequestRefusedError as refused:
                if refused.code not in _ENDS:
                    raise
                found.refused = refused.message
                return
    if not known and not found.refused:
        found.refused = "nothing on the disk is signed for this provider"


def _take(
    core: Core,
    objects: CarriedObjects,
    session: ProviderSession,
    holder: Holder,
    name: ObjectName,
    found: Adopted,
    advance: Callable[[int], None],
) -> None:
    tenant = found.tenant
    store = core.store(tenant)
    size = size_of(core.database, tenant, name)
    if size is not None and store.size(name) == size:
        if has_receipt(core.database, tenant, name):
            found.here += 1
            return
        if store.check(name) == "good":
            with core.gate.arriving(tenant, name):
                receipt = receipt_for(core, tenant, name, size, holder.identity)
            keep_receipt(core.database, tenant, name, holder.identity, receipt)
            found.here += 1
            return
        # Ours is set aside by that look, and the one that was brought takes its place.
    size = objects.size(name)
    if size is None:
        found.missing += 1
        return
    upload = session.begin_put(name, size, at_any_hour=True)
    try:
        data = memoryview(objects.read(name, size))
        for at in range(0, len(data), PIECE):
            upload.hash(data[at : at + PIECE])
            upload.write(data[at : at + PIECE])
        receipt = upload.commit()
    except RequestRefusedError as refused:
        if refused.code in _ENDS:
            raise
        found.damaged += 1  # too short, or other bytes
        return
    except OSError:
        found.damaged += 1  # the brought disk does not give it
        return
    finally:
        upload.abort()
    keep_receipt(core.database, tenant, name, holder.identity, receipt)
    found.objects, found.size = found.objects + 1, found.size + size
    advance(size)
