"""A tenant's root has it erased: at once, whole, once and for all, and nobody else can."""

import os
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from replicator.charter.verify import signed_hash
from replicator.crypto.sign import Context, SigningKey, verify
from replicator.format.codec import decode, encode
from replicator.format.erasure import EraseOrder, EraseReceipt
from replicator.format.merkle import name_of
from replicator.provider import core, enrol
from replicator.provider import erasing as erasing_module
from replicator.provider.charters import Charters
from replicator.provider.database import Database
from replicator.provider.erasing import Erasure
from replicator.provider.tenants import Holder, all_tenants, find_holder, find_tenant
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import EnrolRequest, Signed
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import SMALL, Tenant, data_object, hire, put, secret_of, settle

A, B = data_object(1), data_object(2)


@pytest.fixture
def stand(tmp_path: str) -> Stand:
    """A provider with a tenant that has rows in every table, beside another one."""
    stand = Stand(str(tmp_path))
    hire(stand.service, stand.tenant)
    put(stand.node, A)
    put(stand.node, B)
    names: list[bytes] = [name_of(A)]
    stand.call("claim", Signed(statement=stand.tenant.claim(stand.service.identity, 1, names)))
    stand.call("head", Signed(statement=stand.tenant.head(1)))
    with pytest.raises(RequestRefusedError):
        stand.call("head", Signed(statement=stand.tenant.head(1, snapshot=bytes([1]) * 32)))
    maintainer = stand.service.session(stand.tenant.maintainer.public)
    mark = stand.tenant.mark(stand.service.identity, maintainer.claims(), dead=[name_of(B)])
    assert maintainer.mark(Signed(statement=mark)).state == "stands"
    settle(stand.provider, stand.service, OTHER)
    put(stand.service.session(OTHER.node.public), A)
    return stand


OTHER = Tenant("other")


def receipt(stand: Stand, signed: bytes) -> EraseReceipt:
    return decode(EraseReceipt, verify(signed, Context.ERASE_RECEIPT, [stand.provider.key.public]))


def dump(stand: Stand) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of every table."""
    path = os.path.join(stand.house.home, "provider", "provider.db")
    with closing(sqlite3.connect(path)) as rows:
        tables = [name for (name,) in rows.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: rows.execute(f"SELECT * FROM [{name}]").fetchall() for name in tables}  # noqa: S608


def of_the_other(stand: Stand) -> dict[str, list[tuple[object, ...]]]:
    """Return the other tenant's rows."""
    return {name: [row for row in rows if any(cell == OTHER.id for cell in row)] for name, rows in dump(stand).items()}


def test_of_the_tenant_nothing_is_left_but_the_order_and_the_receipt(stand: Stand) -> None:
    before = dump(stand)
    used = [row for row in before["objects"] if row[0] == stand.tenant.id]
    folder = os.path.dirname(stand.house.objects(stand.tenant))
    put(stand.node, data_object(9))
    with open(stand.house.file(stand.tenant, name_of(data_object(9))), "r+b") as file:
        file.write(b"rot")
    order = stand.tenant.erase_order()
    stand.clock.advance(5)
    signed = stand.service.erase(order)
    found = receipt(stand, signed)
    assert (found.tenant, found.order) == (stand.tenant.id, signed_hash(order))
    assert (found.objects, found.bytes) == (len(used) + 1, (len(used) + 1) * SMALL)
    assert found.began_ns == found.ended_ns == stand.clock.now_ns()
    assert not os.path.exists(folder)
    secrets = {stand.tenant.id, *(stand.tenant.__dict__[key].public for key in ("keeper", "node", "owner"))}
    for table, rows in dump(stand).items():
        for row in rows:
            cells = {cell for cell in row if isinstance(cell, bytes)}
            assert table == "erasures" or not cells & secrets, table
    for name in ("provider.db", "provider.db-wal"):  # nor in what the database no longer uses
        with open(os.path.join(stand.house.home, "provider", name), "rb") as file:
            data = file.read()
        assert not any(gone in data for gone in (name_of(B), stand.tenant.head(1), stand.tenant.node.public))


def test_the_other_tenants_have_all_they_had(stand: Stand) -> None:
    before = {
        table: [row for row in rows if any(cell == OTHER.id for cell in row)] for table, rows in dump(stand).items()
    }
    stand.service.erase(stand.tenant.erase_order())
    after = {
        table: [row for row in rows if any(cell == OTHER.id for cell in row)] for table, rows in dump(stand).items()
    }
    assert before == after
    assert stand.service.session(OTHER.node.public).get(name_of(A)) == A
    assert stand.provider.status()["used"] == SMALL * len(before["objects"])


def test_the_same_order_again_and_another_one_get_the_same_receipt(stand: Stand) -> None:
    order = stand.tenant.erase_order()
    first = stand.service.erase(order)
    stand.clock.advance(100)
    assert stand.service.erase(order) == first
    assert stand.service.erase(stand.tenant.erase_order(created_ns=9)) == first
    stand.restart()
    assert stand.service.erase(order) == first


@pytest.mark.parametrize("who", ["owner", "keeper", "maintainer", "stranger", "other root"])
def test_nobody_but_the_tenants_root_is_obeyed(stand: Stand, who: str) -> None:
    keys = {
        "stranger": SigningKey(bytes(32)),
        "other root": OTHER.root,
        **{name: stand.tenant.__dict__[name] for name in ("owner", "keeper", "maintainer")},
    }
    before = dump(stand)
    assert refusal(lambda: stand.service.erase(stand.tenant.erase_order(by=keys[who]))) == "forbidden"
    forged = bytearray(stand.tenant.erase_order())
    forged[-1] ^= 1
    assert refusal(lambda: stand.service.erase(bytes(forged))) == "forbidden"
    assert dump(stand) == before


def test_an_order_of_another_kind_or_for_nobody_does_nothing(stand: Stand) -> None:
    body = encode(EraseOrder(tenant=stand.tenant.id, created_ns=1))
    other = stand.tenant.root.sign(Context.ENROL_ORDER, body)
    assert refusal(lambda: stand.service.erase(other)) == "forbidden"
    assert refusal(lambda: stand.service.erase(stand.tenant.root.sign(Context.ERASE_ORDER, b"x"))) == "bad-request"
    assert refusal(lambda: stand.service.erase(b"short")) in {"bad-request", "forbidden"}
    unknown = Tenant("unknown")
    assert refusal(lambda: stand.service.erase(unknown.erase_order())) == "not-found"
    assert refusal(lambda: stand.service.erase(stand.tenant.erase_order(tenant=bytes(16)))) == "not-found"


def test_an_erased_tenant_does_not_come_back_by_any_way(stand: Stand) -> None:
    session, upload = stand.node, stand.node.begin_put(name_of(data_object(5)), SMALL)
    upload.abort()
    stand.service.erase(stand.tenant.erase_order())
    assert refusal(lambda: stand.node) == "unauthorized"
    assert refusal(lambda: session.get(name_of(A))) == "unauthorized"
    assert refusal(lambda: session.begin_put(name_of(A), SMALL)) == "unauthorized"
    for by in (stand.tenant.root, stand.tenant.owner):
        order = stand.tenant.order(stand.tenant.node, by=by)
        request = EnrolRequest(holder_key=stand.tenant.node.public, secret=b"", order=order, root=b"")
        assert refusal(lambda request=request: stand.service.enrol(request)) == "forbidden"  # type: ignore[misc]
    code = stand.provider.invite(quota=SMALL, label="again")
    with pytest.raises(RequestRefusedError, match="erased here"):
        enrol_with(stand, code, stand.tenant)
    enrol_with(stand, code, Tenant("new"))  # the invite was not spent by it


def enrol_with(stand: Stand, code: str, tenant: Tenant) -> None:
    stand.service.enrol(
        EnrolRequest(holder_key=tenant.keeper.public, secret=secret_of(code), order=b"", root=tenant.root_statement())
    )


def test_an_upload_that_runs_is_waited_for_and_does_not_stay(stand: Stand) -> None:
    data = data_object(6)
    upload = stand.node.begin_put(name_of(data), len(data))
    order = stand.tenant.erase_order()
    assert refusal(lambda: stand.service.erase(order)) == "busy"
    assert refusal(lambda: stand.node) == "unauthorized", "it has begun"
    upload.hash(data)
    upload.write(data)
    assert refusal(upload.commit) == "unauthorized"
    receipt(stand, stand.service.erase(order))
    assert not os.path.exists(os.path.dirname(stand.house.objects(stand.tenant)))


def test_without_its_disk_nothing_is_begun(stand: Stand) -> None:
    os.rename(stand.house.data, stand.house.data + ".away")
    order = stand.tenant.erase_order()
    assert refusal(lambda: stand.service.erase(order)) == "unavailable"
    os.rename(stand.house.data + ".away", stand.house.data)
    assert stand.node.get(name_of(A)) == A
    receipt(stand, stand.service.erase(order))


def test_a_disk_that_does_not_delete_gives_no_receipt_and_the_next_start_goes_on(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = stand.tenant.erase_order()
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", broken)
        assert refusal(lambda: stand.service.erase(order)) == "unavailable"
        stand.restart()
    assert os.listdir(stand.house.objects(stand.tenant)) != []
    stand.restart()
    assert not os.path.exists(os.path.dirname(stand.house.objects(stand.tenant)))
    [kept] = dump(stand)["erasures"]
    assert stand.service.erase(order) == kept[-1] != b""


def broken(*_: object, **__: object) -> None:
    raise OSError(5, "Input/output error")


def test_a_disk_put_back_from_a_copy_does_not_bring_the_tenant_back(stand: Stand) -> None:
    stand.service.erase(stand.tenant.erase_order())
    os.makedirs(stand.house.objects(stand.tenant))
    with open(stand.house.file(stand.tenant, name_of(A)), "wb") as file:
        file.write(A)
    stand.restart()
    assert not os.path.exists(os.path.dirname(stand.house.objects(stand.tenant)))


def test_what_somebody_put_beside_the_objects_is_no_obstacle(stand: Stand) -> None:
    beside = os.path.join(stand.house.objects(stand.tenant), "lost+found")
    os.mkdir(beside)
    receipt(stand, stand.service.erase(stand.tenant.erase_order()))
    assert os.listdir(stand.house.objects(stand.tenant)) == ["lost+found"]


def test_the_operator_sees_who_was_erased(stand: Stand) -> None:
    assert stand.provider.status()["erased"] == []
    signed = stand.service.erase(stand.tenant.erase_order())
    [row] = stand.provider.status()["erased"]
    found = receipt(stand, signed)
    assert (row["id"], row["objects"], row["bytes"]) == (stand.tenant.id.hex(), found.objects, found.bytes)
    assert (row["began_ns"], row["done"]) == (found.began_ns, True)


def test_who_was_looked_up_before_and_asks_on_is_told_of_it(stand: Stand) -> None:
    """A request that runs meanwhile, and a sweep, meet a tenant whose row has gone since they read it."""
    database = stand.service._core.database
    held = find_tenant(database, stand.tenant.id)
    assert held is not None
    stand.service.erase(stand.tenant.erase_order())
    assert refusal(lambda: Charters(database).current(held)) == "unauthorized"


def test_two_that_finish_at_the_same_time_give_one_receipt(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that comes back while the order is brought again finishes it, too."""
    work, begun = erasing_module.finish, list[bytes]()

    def beside(database: Database, erasure: Erasure, *args: Any, **kwargs: Any) -> bytes:
        if not begun:
            begun.append(b"")
            begun[0] = work(database, erasure, *args, **kwargs)
            stand.clock.advance(5)
        return work(database, erasure, *args, **kwargs)

    monkeypatch.setattr(core, "finish", beside)
    assert stand.service.erase(stand.tenant.erase_order()) == begun[0]
    assert stand.service.erase(stand.tenant.erase_order()) == begun[0]


@pytest.mark.parametrize("known", [False, True])
def test_who_is_enrolled_beside_an_erasure_is_refused(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    key = stand.tenant.node if known else SigningKey(bytes([9]) * 32)
    look = find_holder

    def beside(database: Database, holder_key: bytes) -> Holder | None:
        stand.service.erase(stand.tenant.erase_order())
        return look(database, holder_key)

    monkeypatch.setattr(enrol, "find_holder", beside)
    order = stand.tenant.order(key)
    request = EnrolRequest(holder_key=key.public, secret=b"", order=order, root=b"")
    assert refusal(lambda: stand.service.enrol(request)) == "forbidden"


def test_a_sweep_goes_on_past_a_tenant_that_is_erased_while_it_runs(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "all_tenants", lambda database: [stand.tenant.id, *all_tenants(database)])
    stand.service.erase(stand.tenant.erase_order())
    assert [one.part.tenant for one in stand.service.sweep()] == [OTHER.id]
