"""What an enrolled holder may ask, and every way it is told no."""

import os
import threading
from collections.abc import Callable

import pytest

from replicator.clock import NS
from replicator.crypto.sign import Context, verify
from replicator.format.charter import EVERY_OP
from replicator.format.claim import Receipt
from replicator.format.codec import decode, encode
from replicator.format.merkle import name_of
from replicator.format.sizes import LARGEST, SMALLEST
from replicator.ids import ObjectName
from replicator.provider.session import HANDLERS
from replicator.wire.messages import MAX_REQUEST, OPS, CheckRequest, Empty, HeadsRequest, InventoryRequest, ProveRequest
from tests.crashfs import CrashFs, no_space
from tests.fakes import SeededRng
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import MIB, SMALL, Tenant, data_object, enrol, publish_charter, put, right

KEYBAG = data_object(7)


def test_every_operation_of_the_wire_is_answered_and_no_other(stand: Stand) -> None:
    assert HANDLERS.keys() == OPS.keys()
    assert refusal(lambda: stand.node.handle("destroy", encode(Empty()))) == "bad-request"


def test_a_receipt_is_signed_and_says_what_is_durable(stand: Stand) -> None:
    data = data_object(1)
    signed = put(stand.node, data)
    receipt = decode(Receipt, verify(signed, Context.RECEIPT, [stand.provider.key.public]))
    assert receipt == Receipt(
        tenant=stand.tenant.id,
        name=name_of(data),
        size=len(data),
        incarnation=stand.service.incarnation,
        received_ns=stand.clock.now_ns(),
        lock_until_ns=stand.clock.now_ns() + 30 * 86400 * NS,
    )
    assert stand.node.get(name_of(data)) == data


def test_the_same_object_again_costs_nothing_and_prolongs_its_lock(stand: Stand) -> None:
    data = data_object(1)
    first = decode(Receipt, put(stand.node, data)[96:])
    used = stand.node.info().used
    stand.clock.advance(60)
    again = decode(Receipt, put(stand.node, data)[96:])
    assert stand.node.info().used == used
    assert again.lock_until_ns == first.lock_until_ns + 60 * NS
    stand.provider.change_offer(lock_s=0)
    assert decode(Receipt, put(stand.node, data)[96:]).lock_until_ns == again.lock_until_ns, "a lock got shorter"


@pytest.mark.parametrize("kind", ["gone", "cut", "swapped", "rotten", "a folder"])
def test_an_object_that_was_lost_or_changed_is_really_stored_again(stand: Stand, kind: str) -> None:
    data = data_object(1)
    put(stand.node, data)
    path = stand.house.file(stand.tenant, name_of(data))
    break_file(path, kind)
    put(stand.node, data)
    with open(path, "rb") as file:
        assert file.read() == data
    assert stand.node.get(name_of(data)) == data
    assert stand.node.check(CheckRequest(names=name_of(data))).states == ["good"]


@pytest.mark.parametrize(("kind", "word"), [("gone", "not-found"), ("cut", "damaged"), ("swapped", "damaged")])
def test_damaged_bytes_are_never_given_out(stand: Stand, kind: str, word: str) -> None:
    data = data_object(1)
    put(stand.node, data)
    break_file(stand.house.file(stand.tenant, name_of(data)), kind)
    assert refusal(lambda: stand.node.get(name_of(data))) == word
    assert refusal(lambda: stand.node.get(name_of(data))) == word, "a second question gets another answer"


def test_bytes_that_are_not_the_named_object_are_refused_and_leave_nothing(stand: Stand) -> None:
    upload = stand.node.begin_put(name_of(data_object(1)), SMALL)
    upload.hash(data_object(2))
    upload.write(data_object(2))
    assert refusal(upload.commit) == "wrong-name"
    assert os.listdir(stand.house.objects(stand.tenant, "incoming")) == []
    assert stand.node.info().used == 2 * SMALL, "only keybag and charter"
    assert refusal(upload.commit) == "unavailable"


def test_more_or_fewer_bytes_than_announced_are_refused(stand: Stand) -> None:
    data = data_object(1)
    upload = stand.node.begin_put(name_of(data), SMALL)
    assert refusal(lambda: upload.hash(data + b"x")) == "bad-request"
    upload.abort()
    upload = stand.node.begin_put(name_of(data), SMALL)
    upload.hash(data[:-1])
    upload.write(data[:-1])
    assert refusal(upload.commit) == "bad-request"
    assert os.listdir(stand.house.objects(stand.tenant, "incoming")) == []


@pytest.mark.parametrize("size", [0, 1, SMALLEST - 1, SMALLEST + 1, 3 * SMALLEST // 2, LARGEST + 1, 2 * LARGEST, -1])
def test_other_sizes_than_the_allowed_ones_are_refused(stand: Stand, size: int) -> None:
    assert refusal(lambda: stand.node.begin_put(ObjectName(bytes(32)), size)) == "bad-request"


def test_a_holder_stores_no_larger_objects_than_its_right_says(stand: Stand) -> None:
    rights = [right(stand.tenant.keeper, "keeper"), right(stand.tenant.node, "node", max_object=SMALL)]
    publish_charter(stand.keeper, stand.tenant.charter(rights, keybag=name_of(KEYBAG)))
    put(stand.node, data_object(1))
    assert refusal(lambda: put(stand.node, data_object(2, 2 * SMALL))) == "forbidden"
    put(stand.keeper, data_object(2, 2 * SMALL))


def test_a_holder_stores_no_more_than_its_own_quota(stand: Stand) -> None:
    rights = [right(stand.tenant.keeper, "keeper"), right(stand.tenant.node, "node", quota=2 * SMALL)]
    publish_charter(stand.keeper, stand.tenant.charter(rights, keybag=name_of(KEYBAG)))
    put(stand.node, data_object(1))
    put(stand.node, data_object(2))
    assert refusal(lambda: put(stand.node, data_object(3))) == "quota"
    put(stand.keeper, data_object(3))


def test_a_tenant_stores_no_more_than_its_quota_and_hears_so_before_the_body(stand: Stand) -> None:
    tenant = Tenant("small")
    enrol(stand.provider, stand.service, tenant, quota=2 * SMALL)
    session = stand.service.session(tenant.keeper.public)
    put(session, data_object(1))
    put(session, data_object(2))
    assert session.info().free == 0
    assert refusal(lambda: session.begin_put(name_of(data_object(3)), SMALL)) == "quota"
    put(session, data_object(2))


def test_uploads_at_the_same_time_cannot_share_the_last_of_a_quota(stand: Stand) -> None:
    tenant = Tenant("small")
    enrol(stand.provider, stand.service, tenant, quota=SMALL)
    session = stand.service.session(tenant.keeper.public)
    first = session.begin_put(name_of(data_object(1)), SMALL)
    assert session.info().free == 0
    assert refusal(lambda: session.begin_put(name_of(data_object(2)), SMALL)) == "quota"
    first.abort()
    put(session, data_object(2))


def test_many_threads_never_store_more_than_the_quota(stand: Stand) -> None:
    tenant = Tenant("small")
    enrol(stand.provider, stand.service, tenant, quota=4 * SMALL)
    stored: list[int] = []

    def store(seed: int) -> None:
        from replicator.transport.handler import RequestRefusedError

        try:
            put(stand.service.session(tenant.keeper.public), data_object(seed))
        except RequestRefusedError:
            return
        stored.append(seed)

    threads = [threading.Thread(target=store, args=(seed,)) for seed in range(100, 116)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= len(stored) <= 4
    assert stand.service.session(tenant.keeper.public).info().used == len(stored) * SMALL
    assert len(os.listdir(stand.house.objects(tenant))) == len(stored)


def test_a_fourth_upload_at_a_time_is_asked_to_wait(stand: Stand) -> None:
    uploads = [stand.node.begin_put(name_of(data_object(seed)), SMALL) for seed in range(3)]
    assert refusal(lambda: stand.node.begin_put(name_of(data_object(4)), SMALL)) == "busy"
    other = Tenant("other")
    enrol(stand.provider, stand.service, other)
    put(stand.service.session(other.keeper.public), data_object(4))
    uploads[0].abort()
    put(stand.node, data_object(4))


def test_the_offered_capacity_is_shared_by_all_tenants(stand: Stand) -> None:
    used = stand.node.info().used
    stand.provider.change_offer(capacity=used + 2 * SMALL)
    other = Tenant("other")
    enrol(stand.provider, stand.service, other, quota=2 * SMALL)
    put(stand.service.session(other.keeper.public), data_object(1))
    put(stand.node, data_object(1))
    assert refusal(lambda: put(stand.node, data_object(2))) == "full"
    assert stand.node.info().free == 0


def test_the_disk_keeps_a_reserve(tmp_path: str) -> None:
    fs = CrashFs(os.path.join(tmp_path, "graveyard"))
    stand = Stand(str(tmp_path), fs)
    fs.free = 50 * MIB + SMALL
    assert stand.node.info().free == SMALL
    put(stand.node, data_object(1))
    fs.free -= 1
    assert refusal(lambda: put(stand.node, data_object(2))) == "full"
    stand.provider.close()
    fs.close()


@pytest.mark.parametrize(
    "step", ["create incoming", "write incoming", "fsync file incoming", "link objects", "fsync folder objects"]
)
def test_a_disk_that_is_full_after_all_leaves_nothing_half_done(tmp_path: str, step: str) -> None:
    fs = CrashFs(os.path.join(tmp_path, "graveyard"))
    stand = Stand(str(tmp_path), fs)
    fs.errors[step] = no_space()
    assert refusal(lambda: put(stand.node, data_object(1))) == "full"
    assert os.listdir(stand.house.objects(stand.tenant, "incoming")) == []
    fs.errors.clear()
    put(stand.node, data_object(1))
    assert stand.node.get(name_of(data_object(1))) == data_object(1)
    assert stand.node.info().used == 3 * SMALL
    stand.provider.close()
    fs.close()


def test_a_failing_disk_is_called_unavailable_and_not_described(
    tmp_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    fs = CrashFs(os.path.join(tmp_path, "graveyard"))
    stand = Stand(str(tmp_path), fs)
    name = name_of(data_object(1))
    fs.errors["fsync file incoming"] = OSError(5, "Input/output error", f"/data/{name.hex()}")
    assert refusal(lambda: put(stand.node, data_object(1))) == "unavailable"
    assert os.listdir(stand.house.objects(stand.tenant, "incoming")) == []
    assert "Input/output error" in caplog.text
    assert name.hex() not in caplog.text
    stand.provider.close()
    fs.close()


def test_ranges_begin_and_end_at_whole_mebibytes_or_the_end(stand: Stand) -> None:
    data = data_object(1, 4 * MIB)
    put(stand.node, data)
    name = name_of(data)
    assert stand.node.get(name, MIB, 2 * MIB) == data[MIB : 3 * MIB]
    assert stand.node.get(name, 3 * MIB) == data[3 * MIB :]
    assert stand.node.get(name, 3 * MIB, MIB) == data[3 * MIB :]
    for offset, length in ((1, None), (0, 1), (0, 5 * MIB), (4 * MIB, None), (MIB, 0), (-MIB, MIB), (MIB, -MIB)):
        assert refusal(lambda o=offset, n=length: stand.node.get(name, o, n)) == "bad-request"  # type: ignore[misc]


def test_an_unknown_object_is_not_found(stand: Stand) -> None:
    assert refusal(lambda: stand.node.get(ObjectName(bytes(32)))) == "not-found"


def test_tenants_do_not_see_each_other(stand: Stand) -> None:
    other = Tenant("other")
    enrol(stand.provider, stand.service, other)
    session = stand.service.session(other.keeper.public)
    put(stand.node, data_object(1))
    assert refusal(lambda: session.get(name_of(data_object(1)))) == "not-found"
    assert session.inventory(InventoryRequest(after=b"", limit=10)).names == b""
    assert session.check(CheckRequest(names=name_of(data_object(1)))).states == ["missing"]
    assert session.prove(ProveRequest(names=name_of(data_object(1)), leaves=[0])).proofs == [None]
    assert session.heads(HeadsRequest(challenge=bytes(32))).heads == []


def test_a_right_in_the_charter_is_needed_for_each_operation(stand: Stand) -> None:
    tenant = stand.tenant
    requests: dict[str, Callable[[], object]] = {
        "read": lambda: stand.node.get(name_of(KEYBAG)),
        "write": lambda: put(stand.node, data_object(1)),
        "audit": lambda: stand.node.inventory(InventoryRequest(after=b"", limit=1)),
    }
    for missing, ask in requests.items():
        ops = [op for op in EVERY_OP if op != missing]
        rights = [right(tenant.keeper, "keeper"), right(tenant.node, "node", ops=ops)]
        publish_charter(stand.keeper, tenant.charter(rights, keybag=name_of(KEYBAG)))
        assert refusal(ask) == "forbidden"
        for other, allowed in requests.items():
            if other != missing:
                allowed()


def test_a_holder_that_the_charter_does_not_name_sees_only_that_it_is_not_named(stand: Stand) -> None:
    rights = [right(stand.tenant.keeper, "keeper")]
    publish_charter(stand.keeper, stand.tenant.charter(rights, keybag=name_of(KEYBAG)))
    assert stand.node.info().charter_number == 2
    assert refusal(lambda: stand.node.get(name_of(KEYBAG))) == "forbidden"
    assert refusal(lambda: stand.node.heads(HeadsRequest(challenge=bytes(32)))) == "forbidden"


@pytest.mark.parametrize("op", OPS)
def test_no_garbage_gets_further_than_a_refusal(stand: Stand, op: str) -> None:
    rng = SeededRng(op)
    good = b"\x91\x01"
    for body in (b"", b"\xc1", b"\x90", good + b"\x00", b"\x91\x02", *(rng.bytes(rng.below(64)) for _ in range(200))):
        word = refusal(lambda body=body: stand.node.handle(op, body))  # type: ignore[misc]
        assert word in {"bad-request", "unsupported"}
    assert refusal(lambda: stand.node.handle(op, bytes(MAX_REQUEST + 1))) == "bad-request"


def test_a_later_version_of_a_request_is_called_unsupported(stand: Stand) -> None:
    assert refusal(lambda: stand.node.handle("info", b"\x91\x02")) == "unsupported"


def break_file(path: str, kind: str) -> None:
    """Do to an object's file what disks, people and thieves do."""
    if kind == "cut":
        os.truncate(path, SMALL // 2)
        return
    if kind == "rotten":
        with open(path, "r+b") as file:
            file.seek(SMALL - 1)
            last = file.read(1)
            file.seek(SMALL - 1)
            file.write(bytes([last[0] ^ 1]))
        return
    os.unlink(path)
    if kind == "swapped":
        with open(path, "wb") as file:
            file.write(data_object(99))
    elif kind == "a folder":
        os.mkdir(path)
