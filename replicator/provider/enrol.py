"""The one thing that a stranger may ask: a certificate, for an invite or on a known tenant's word."""

import datetime
import sqlite3

from replicator.charter.verify import verify_enrol_order, verify_root
from replicator.clock import NS, SKEW_S
from replicator.crypto.sign import signer_of
from replicator.ids import Identity, TenantId, identity_of
from replicator.provider.charters import Charters
from replicator.provider.database import Database
from replicator.provider.days import Days
from replicator.provider.erasing import was_erased
from replicator.provider.invites import spend
from replicator.provider.succession import Waiting, changes_to
from replicator.provider.tenants import (
    Holder,
    Source,
    add_quota,
    add_tenant,
    find_holder,
    find_tenant,
    put_holder,
    tenants_of_signer,
)
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import EnrolRequest

_RANK: dict[Source, int] = {"owner": 0, "invite": 1, "root": 2}
"""Each may do what the one before may: owner's word gives what the charter says, an invite also all before the first
charter, root's everything."""


def enrol_by_invite(database: Database, request: EnrolRequest, *, now_ns: int) -> TenantId:
    """Spend an invite for the tenant whose root statement is shown; the tenant is new or gets the quota on top.

    Raises:
        RequestRefusedError: "spent", or "forbidden" for a tenant id that another root holds.
        IntegrityError: the root statement does not hold.
    """
    root = verify_root(request.root, None)
    tenant = TenantId(root.tenant)
    known = find_tenant(database, tenant)
    if known is not None and known.root_key != root.root_key:
        raise RequestRefusedError("forbidden", "another root holds this tenant here")
    holder = Holder(identity=identity_of(request.holder_key), key=request.holder_key, tenant=tenant, source="invite")
    former = find_holder(database, request.holder_key)
    if former is not None and former.tenant != tenant:
        raise RequestRefusedError("forbidden", "this key belongs to another tenant here")

    def work(connection: sqlite3.Connection) -> None:
        if was_erased(connection, tenant):
            raise RequestRefusedError("forbidden", "this tenant was erased here, by its root's order, for ever")
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
    database: Database, charters: Charters, request: EnrolRequest, *, days: Days, now_ns: int
) -> TenantId:
    """Enrol a holder on the signed word of a known tenant's root or owner, or of a root that has waited long enough.

    Raises:
        RequestRefusedError: "forbidden".
        IntegrityError: the order does not hold or has expired.
    """
    signer = signer_of(request.order)
    tenants = tenants_of_signer(database, signer)
    following = [] if tenants else database.read(lambda connection: changes_to(connection, signer))
    for change in following:
        if not change.passed(days, now_ns):
            raise RequestRefusedError("forbidden", _not_yet(change, days, now_ns))
        tenants += [tenant for tenant in [find_tenant(database, change.tenant)] if tenant is not None]
    if not tenants:
        raise RequestRefusedError("forbidden", "no tenant here has the key that signed this order")
    tenant = tenants[0]
    order = verify_enrol_order(request.order, [signer], now_ns=now_ns, skew_ns=SKEW_S * NS)
    if order.holder_key != request.holder_key:
        raise RequestRefusedError("forbidden", "this order is for another key")
    holder = Holder(
        identity=Identity(identity_of(request.holder_key)),
        key=request.holder_key,
        tenant=tenant.id,
        source="root" if following or signer == tenant.root_key else "owner",
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
        database.write("enrol by order", lambda connection: put_holder(connection, holder, now_ns))
    return tenant.id


def _not_yet(following: Waiting, days: Days, now_ns: int) -> str:
    if following.objection:
        return "this root was announced, and the one before it has objected"
    day = datetime.datetime.fromtimestamp(following.due_ns(days, now_ns) / NS, datetime.UTC).date()
    return f"this root is announced and counts here from {day} on, unless the one before it objects"
