"""The one thing that a stranger may ask: a certificate, for an invite or on a known tenant's word."""

import datetime
import sqlite3
from collections.abc import Mapping
from types import MappingProxyType

from replicator.charter.verify import belongs_to_root, verify_change, verify_enrol_order, verify_root
from replicator.clock import NS, SKEW_S, day_of
from replicator.crypto.sign import signer_of
from replicator.ids import Identity, TenantId, identity_of, root_fingerprint, tenant_of
from replicator.provider.charters import Charters
from replicator.provider.database import Database
from replicator.provider.days import Days
from replicator.provider.erasing import give_back, was_erased
from replicator.provider.invites import spend, usable
from replicator.provider.succession import Waiting, changes_to
from replicator.provider.tenants import (
    Holder,
    Source,
    Tenant,
    add_quota,
    add_tenant,
    all_tenants,
    find_holder,
    find_tenant,
    holds_another,
    put_holder,
    replace_root,
    set_quota,
    tenants_of_signer,
)
from replicator.settings import DeclaredTenant
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import EnrolRequest

_NOBODY: Mapping[bytes, DeclaredTenant] = MappingProxyType({})
_RANK: dict[Source, int] = {"owner": 0, "invite": 1, "root": 2}
"""Each may do what the one before may: owner's word gives what the charter says, an invite also all before the first
charter, root's everything."""


def enrol_by_invite(database: Database, request: EnrolRequest, *, now_ns: int) -> TenantId:
    """Spend an invite for the tenant whose root statement is shown; the tenant is new or gets the quota on top.

    An id that is new here must be made of the root's key. Else anybody with an invite could take a foreign one, which
    every provider of that tenant knows, and keep the tenant out, or have the id erased for ever.

    Who has no invite that is good learns that alone, and nothing of which tenants are here.

    Raises:
        RequestRefusedError: "spent", or "forbidden" for a tenant id that another root holds, or that is not this one's.
        IntegrityError: the root statement does not hold.
    """
    root = verify_root(request.root, None)
    tenant = TenantId(root.tenant)
    invited = (identity_of(request.holder_key), now_ns)
    database.read(lambda connection: usable(connection, request.secret, tenant, *invited))
    known = find_tenant(database, tenant)
    if known is not None and known.root_key != root.root_key:
        raise RequestRefusedError("forbidden", "another root holds this tenant here")
    if known is None and not belongs_to_root(tenant, root.root_key, request.handovers):
        raise RequestRefusedError(
            "forbidden",
            "this tenant's id is not made of its root key; where it is of an earlier build, the operator can declare "
            f"tenant {root_fingerprint(root.root_key)}",
        )
    holder = Holder(identity=identity_of(request.holder_key), key=request.holder_key, tenant=tenant, source="invite")
    former = find_holder(database, request.holder_key)
    if former is not None and former.tenant != tenant:
        raise RequestRefusedError("forbidden", "this key belongs to another tenant here")

    def work(connection: sqlite3.Connection) -> None:
        _never_again(connection, tenant, root.root_key)
        quota, label = spend(connection, secret=request.secret, tenant=tenant, holder=holder.identity, now_ns=now_ns)
        add_tenant(
            connection,
            tenant=tenant,
            root_key=root.root_key,
            root=request.root,
            owner_key=root.owner_key,
            label=label,
            now_ns=now_ns,
        )
        add_quota(connection, tenant, quota)
        if former is None or _RANK[former.source] < _RANK[holder.source]:
            put_holder(connection, holder, now_ns)

    database.write("enrol by invite", work)
    return tenant


def enrol_by_order(
    database: Database,
    charters: Charters,
    request: EnrolRequest,
    *,
    days: Days,
    now_ns: int,
    admitted: Mapping[bytes, DeclaredTenant] = _NOBODY,
) -> TenantId:
    """Enrol a holder on the signed word of a known tenant's root or owner, or of a root that has waited long enough.

    ``admitted``: tenants by root key whom the operator lets in without an invite. Such a one becomes known by the root
    statement that it shows, and until its first charter is here the holder may do what an invite would let it.

    Raises:
        RequestRefusedError: "forbidden"; "replaced": a root signed it that another has followed here.
        IntegrityError: the order, or the root statement, does not hold or has expired.
    """
    signer = signer_of(request.order)
    order = verify_enrol_order(request.order, [signer], now_ns=now_ns, skew_ns=SKEW_S * NS)
    if order.holder_key != request.holder_key:
        raise RequestRefusedError("forbidden", "this order is for another key")
    source: Source = "invite"
    tenant = _admitted(database, request, signer, admitted, now_ns)
    following = []
    if tenant is None:
        tenants = tenants_of_signer(database, signer)
        following = [] if tenants else database.read(lambda connection: changes_to(connection, signer))
        for change in following:
            if not change.passed(days, now_ns):
                raise RequestRefusedError("forbidden", _not_yet(change, days, now_ns))
            tenants += [found for found in [find_tenant(database, change.tenant)] if found is not None]
        if not tenants:
            _say_replaced(database, charters, signer)
            raise RequestRefusedError("forbidden", "no tenant here has the key that signed this order")
        tenant, source = tenants[0], "owner"
    holder = Holder(
        identity=Identity(identity_of(request.holder_key)),
        key=request.holder_key,
        tenant=tenant.id,
        source="root" if following or signer == tenant.root_key else source,
    )
    former = find_holder(database, request.holder_key)
    if former is not None and former.tenant != tenant.id:
        # Anyone with an invite can enrol a key that is not its own. Such a claim gives way to the owner's word,
        # unless the other tenant's charter names the key too.
        other = find_tenant(database, former.tenant)
        charter = None if other is None else charters.current(other)
        if charter is not None and charter.right_of(request.holder_key) is not None:
            raise RequestRefusedError("forbidden", "this key belongs to another tenant here")
    keep = former is not None and former.tenant == tenant.id and _RANK[former.source] >= _RANK[holder.source]
    if not keep:
        database.write("enrol by order", lambda connection: _put_holder(connection, holder, now_ns))
    return tenant.id


def _put_holder(connection: sqlite3.Connection, holder: Holder, now_ns: int) -> None:
    if connection.execute("SELECT 1 FROM tenants WHERE id = ?", (holder.tenant,)).fetchone() is None:
        raise _erased_meanwhile()
    put_holder(connection, holder, now_ns)


def _erased_meanwhile() -> RequestRefusedError:
    return RequestRefusedError("forbidden", "this tenant is erased here, by its root's order")


def _never_again(connection: sqlite3.Connection, tenant: bytes, root_key: bytes) -> None:
    """Refuse a tenant that was erased here, however it comes back.

    A root that the id is not made of has erased its own alone: it does not keep the one out whose it is.
    """
    if tenant_of(root_key) == tenant:
        give_back(connection, tenant)
    if was_erased(connection, tenant):
        raise RequestRefusedError("forbidden", "this tenant was erased here, by its root's order, for ever")


def _not_yet(following: Waiting, days: Days, now_ns: int) -> str:
    if following.objection:
        return "this root was announced, and the one before it has objected"
    day = datetime.datetime.fromtimestamp(following.due_ns(days, now_ns) / NS, datetime.UTC).date()
    return f"this root is announced and counts here from {day} on, unless the one before it objects"


def _say_replaced(database: Database, charters: Charters, signer: bytes) -> None:
    """Tell who has the sheet of a root that another followed here which one that is."""
    for tenant in all_tenants(database):
        found = find_tenant(database, tenant)
        charter = None if found is None else charters.current(found)
        for change in [] if charter is None else map(verify_change, charter.charter.handovers):
            if charter is not None and change.former.root_key == signer:
                raise RequestRefusedError(
                    "replaced",
                    f"this sheet was replaced: another was announced on {day_of(change.announced_ns)}; the one that "
                    f"counts here now is of tenant {root_fingerprint(charter.root.root_key)}",
                )


def _admitted(
    database: Database, request: EnrolRequest, signer: bytes, admitted: Mapping[bytes, DeclaredTenant], now_ns: int
) -> Tenant | None:
    """Return the declared tenant whose root or owner signed the order, made known if it is not; None for others.

    Anybody may have a copy of a root statement, also of an earlier one. Until a charter is here, a later one that comes
    with its own owner's order takes its place.
    """
    if not request.root:
        return None
    root = verify_root(request.root, None)
    declared = admitted.get(root.root_key)
    if declared is None or signer not in (root.root_key, root.owner_key):
        return None
    known = find_tenant(database, root.tenant)
    if known is not None and known.root_key != root.root_key:
        raise RequestRefusedError("forbidden", "another root holds this tenant here")

    def work(connection: sqlite3.Connection) -> None:
        _never_again(connection, root.tenant, root.root_key)
        if holds_another(connection, root.root_key, root.tenant):
            raise RequestRefusedError("forbidden", "this root has another tenant here, and was declared for one")
        add_tenant(
            connection,
            tenant=root.tenant,
            root_key=root.root_key,
            root=request.root,
            owner_key=root.owner_key,
            label=declared.name,
            now_ns=now_ns,
        )
        replace_root(connection, root.tenant, request.root, root.owner_key)
        set_quota(connection, root.root_key, declared.quota)

    if known is None or (not known.charter_number and verify_root(known.root, None).number < root.number):
        database.write("admit", work)
        known = find_tenant(database, root.tenant)
        if known is None:
            raise _erased_meanwhile()
    return known if signer in (known.root_key, known.owner_key) else None
