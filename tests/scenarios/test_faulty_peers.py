"""Providers that break off, lie, refuse or mistake things: a backup ends as it should, and says what happened."""

import os
from collections.abc import Callable

import msgspec
import pytest

from replicator.crypto.sign import Context, SigningKey, body_of
from replicator.errors import BusyError, MinimumNotMetError, UnreachableError
from replicator.format.claim import Receipt, Witness
from replicator.format.codec import decode, encode
from replicator.ids import Identity, ObjectName
from replicator.transport.handler import RequestRefusedError, Session, Upload
from replicator.transport.memory import Phase
from replicator.wire.messages import (
    ClaimReply,
    Heads,
    Info,
    Inventory,
    InventoryRequest,
    ProveReply,
    Refusal,
    Signed,
)
from tests.scenarios.liars import Liar, NoUpload, changed, proving
from tests.scenarios.world import World

GB = 10**9


class Broken:
    """Faults of one provider: the connection breaks in some phase of an operation, the first ``times`` times."""

    def __init__(self, identity: Identity, op: str, phase: Phase, times: int = 1_000_000) -> None:
        self.where = (identity, op, phase)
        self.left = times

    def __call__(self, identity: Identity, op: str, phase: Phase) -> None:
        if (identity, op, phase) == self.where and self.left:
            self.left -= 1
            raise UnreachableError("it", "the connection broke")


def lie(world: World, number: int, **what: object) -> None:
    """Put a liar in a provider's place."""
    world.network.add(Liar(world.services[number], **what))  # type: ignore[arg-type] # fields by name


async def published_and_whole(world: World, source: str) -> None:
    """Check that a backup is complete in spite of everything, and stays so without the faults."""
    [done] = (await world.backup()).datasets
    assert done.error is None
    assert done.published
    assert done.debts == []
    world.network.faults = lambda _identity, _op, _phase: None
    assert await world.differences(source) == []


@pytest.mark.parametrize("phase", ["before", "during", "after"])
@pytest.mark.parametrize("number", range(5))
async def test_a_provider_that_fails_in_every_upload_is_done_without(
    number: int, phase: Phase, world: World, source: str
) -> None:
    world.network.faults = Broken(world.identity(number), "put", phase)
    await published_and_whole(world, source)


@pytest.mark.parametrize("op", ["info", "connect", "claim", "head", "heads"])
@pytest.mark.parametrize("phase", ["before", "after"])
async def test_a_provider_that_fails_at_one_operation_is_done_without(
    op: str, phase: Phase, world: World, source: str
) -> None:
    world.network.faults = Broken(world.identity(2), op, phase)
    await published_and_whole(world, source)


async def test_a_lost_answer_is_made_good_the_next_time(world: World, source: str) -> None:
    world.network.faults = Broken(world.identity(2), "put", "after", times=1)
    first = await world.backup()
    assert first.unreachable == ["it: the connection broke"]
    second = await world.backup()
    assert (second.unreachable, second.integrity) == ([], [])
    assert (await world.status()).exit_code == 0
    assert (await world.verify()).problems == []


async def test_a_lost_answer_to_a_claim_is_made_good_the_next_time(world: World, source: str) -> None:
    await world.backup()
    world.network.faults = Broken(world.identity(2), "claim", "after", times=1)
    os.unlink(os.path.join(source, "letter.txt"))
    await world.backup()
    second = await world.backup()
    assert (second.datasets[0].owed, second.integrity) == ([], [])
    assert (await world.status()).exit_code == 0


async def test_what_a_failing_provider_misses_is_named_and_what_its_absence_owes_is_paid_later(
    worlds: Callable[[int], World],
) -> None:
    world = worlds(3)
    source = world.small_dataset()
    world.network.faults = Broken(world.identity(1), "put", "during")
    report = await world.backup()
    [done] = report.datasets
    assert (done.error, done.published) == (None, True)
    assert "have 2 of 3 promised copies" in " ".join(done.debts)
    assert report.unreachable == ["it: the connection broke"]
    assert (await world.status()).exit_code == 3
    world.network.faults = lambda _identity, _op, _phase: None
    repaired = await world.repair()
    assert (repaired.exit_code, repaired.debts, repaired.owed) == (0, [], [])
    assert (await world.status()).exit_code == 0
    assert await world.differences(source) == []


@pytest.mark.parametrize("code", ["quota", "full", "busy", "unavailable", "forbidden", "bad-request", "unsupported"])
async def test_a_provider_that_refuses_everything_is_done_without(code: Refusal, world: World, source: str) -> None:
    def refuse(_session: Session, _name: ObjectName, _size: int) -> Upload:
        raise RequestRefusedError(code, "no", after_s=1.0)

    lie(world, 3, begin_put=refuse)
    await published_and_whole(world, source)


async def test_a_provider_that_is_busy_for_a_while_is_waited_for(world: World, source: str) -> None:
    left = {"put": 3}

    def busy(session: Session, name: ObjectName, size: int) -> Upload:
        if left["put"]:
            left["put"] -= 1
            raise RequestRefusedError("busy", "later", after_s=7.0)
        return session.begin_put(name, size)

    lie(world, 3, begin_put=busy)
    before = world.clock.now_ns()
    report = await world.backup()
    assert (report.unreachable, report.datasets[0].debts) == ([], [])
    assert left["put"] == 0
    assert world.clock.now_ns() > before + 7 * GB
    assert len(world.stored(3, ["snapshot"])) == 1


async def test_a_provider_whose_quota_is_small_gets_what_fits(worlds: Callable[[int], World]) -> None:
    world = worlds(4)
    await world.add_peer(world.start_provider(4), quota=400_000)
    source = world.small_dataset()
    report = await world.backup()
    assert (report.datasets[0].error, report.datasets[0].debts) == (None, [])
    assert world.used(4) <= 400_000
    assert await world.differences(source) == []


async def test_when_all_are_full_nothing_is_published_and_nothing_is_lost(world: World, source: str) -> None:
    def refuse(_session: Session, _name: ObjectName, _size: int) -> Upload:
        raise RequestRefusedError("full", "no")

    for number in range(5):
        lie(world, number, begin_put=refuse)
    [done] = (await world.backup()).datasets
    assert isinstance(done.error, MinimumNotMetError)
    assert (await world.status()).exit_code == 5
    world.answer(*range(5))
    report = await world.backup()
    assert [row.number for row in report.finished_before] == [1]
    assert report.datasets[0].published
    assert await world.differences(source) == []


# lies about receipts


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("another object", "its receipt is for something else"),
        ("another size", "its receipt is for something else"),
        ("another store", "its receipt is for something else"),
        ("another key", "its receipt cannot be trusted"),
        ("no receipt", "its receipt cannot be trusted"),
    ],
)
async def test_a_receipt_that_does_not_hold_counts_for_nothing(
    what: str, message: str, world: World, source: str
) -> None:
    provider = world.opened[2]

    def begin(session: Session, name: ObjectName, size: int) -> Upload:
        receipt = Receipt(
            tenant=world.tenant_id,
            name=bytes(32) if what == "another object" else name,
            size=size * 2 if what == "another size" else size,
            incarnation=bytes(16) if what == "another store" else world.services[2].incarnation,
            received_ns=world.clock.now_ns(),
            lock_until_ns=world.clock.now_ns(),
        )
        key = SigningKey(bytes(32)) if what == "another key" else provider.key
        return NoUpload(b"thanks" if what == "no receipt" else key.sign(Context.RECEIPT, encode(receipt)))

    lie(world, 2, begin_put=begin)
    report = await world.backup()
    [done] = report.datasets
    assert (done.error, done.published, done.debts) == (None, True, [])
    assert message in " ".join(report.unreachable)
    node = world.node()
    assert node.catalog.objects.holdings(peer=world.identity(2)) == []
    node.close()
    assert await world.differences(source) == []


def thank_for_nothing(world: World, number: int) -> None:
    """Let a provider sign receipts and keep nothing."""
    key, store = world.opened[number].key, world.services[number].incarnation

    def begin(_session: Session, name: ObjectName, size: int) -> Upload:
        receipt = Receipt(
            tenant=world.tenant_id,
            name=name,
            size=size,
            incarnation=store,
            received_ns=world.clock.now_ns(),
            lock_until_ns=world.clock.now_ns(),
        )
        return NoUpload(key.sign(Context.RECEIPT, encode(receipt)))

    lie(world, number, begin_put=begin)


async def test_a_provider_that_keeps_nothing_is_found_by_the_claim_on_the_same_night(world: World, source: str) -> None:
    thank_for_nothing(world, 2)
    report = await world.backup()
    assert any("objects that it had receipted are gone" in line for line in report.integrity)
    assert await world.differences(source) == []
    found = await world.status()
    assert found.exit_code == 4 or found.peers[2].missing


async def test_a_provider_that_keeps_nothing_and_claims_everything_is_found_by_its_proofs(
    world: World, source: str
) -> None:
    await world.backup()
    honest = world.services[2]
    names = [os.path.basename(path) for path in world.stored(2)]
    for name in names:
        os.unlink(os.path.join(world.objects(2), name))
    kept: dict[bytes, int] = {}
    node = world.node()
    for row in node.catalog.objects.all():
        kept[row.name] = row.size
    held = {row.object_id for row in node.catalog.objects.holdings(peer=world.identity(2))}
    claimed = sorted(row.name for row in node.catalog.objects.all() if row.id in held)
    node.close()

    def all_is_here(_session: Session, body: bytes) -> bytes:
        decode(InventoryRequest, body)
        return encode(
            Inventory(
                incarnation=honest.incarnation,
                names=b"".join(claimed),
                sizes=[kept[name] for name in claimed],
                missing=b"",
                damaged=b"",
                more=False,
            )
        )

    world.network.add(Liar(honest, ops={"inventory": all_is_here}))
    found = await world.status()
    assert found.exit_code == 4
    assert found.peers[2].damaged == len(names)
    assert "carol" in " ".join(found.problems)
    assert (await world.verify()).problems != []
    assert await world.differences(source) == []
    repaired = await world.repair()
    assert repaired.exit_code == 0
    assert repaired.made >= len(names)
    world.answer(2)
    assert (await world.status()).exit_code == 0, "what it lacked was stored again, there or elsewhere"


async def test_a_provider_that_proves_nothing_is_not_believed(world: World, source: str) -> None:
    await world.backup()
    silent = changed("prove", ProveReply, lambda reply: msgspec.structs.replace(reply, proofs=[]))
    world.network.add(Liar(world.services[2], ops=proving(silent["prove"])))
    assert (await world.status()).exit_code == 4


async def test_proofs_of_another_object_are_not_believed(world: World, source: str) -> None:
    await world.backup()
    turned = changed("prove", ProveReply, lambda reply: msgspec.structs.replace(reply, proofs=reply.proofs[::-1]))
    world.network.add(Liar(world.services[2], ops=proving(turned["prove"])))
    assert (await world.status()).exit_code == 4


# lies in what is read


def another_object(world: World, number: int) -> Callable[..., bytes]:
    def get(session: Session, name: ObjectName, _offset: int, _length: int | None) -> bytes:
        others = [other for other in sorted(os.listdir(world.objects(number))) if other != name.hex()]
        return session.get(ObjectName(bytes.fromhex(others[0])), 0, None)

    return get


def truncated(session: Session, name: ObjectName, offset: int, length: int | None) -> bytes:
    return session.get(name, offset, length)[:-1]


def halved(session: Session, name: ObjectName, offset: int, length: int | None) -> bytes:
    data = session.get(name, offset, length)
    return data[: len(data) // 2]


def empty(_session: Session, _name: ObjectName, _offset: int, _length: int | None) -> bytes:
    return b""


def flipped(session: Session, name: ObjectName, offset: int, length: int | None) -> bytes:
    data = bytearray(session.get(name, offset, length))
    data[len(data) // 2] ^= 1
    return bytes(data)


@pytest.mark.parametrize("how", ["another", truncated, halved, empty, flipped])
async def test_bytes_that_are_not_the_object_are_reported_and_had_elsewhere(
    how: str | Callable[..., bytes], world: World, source: str
) -> None:
    await world.backup()
    for number in range(3):
        lie(world, number, get=another_object(world, number) if isinstance(how, str) else how)
    assert await world.differences(source) == []
    report = await world.verify()
    assert any("answered with other bytes" in line for line in report.problems)
    assert report.absent == []


async def test_when_every_provider_answers_with_other_bytes_nothing_wrong_is_written(world: World, source: str) -> None:
    await world.backup()
    await world.snapshots()
    for number in range(5):
        lie(world, number, get=flipped)
    target = os.path.join(world.root, "out")
    with pytest.raises(Exception, match="other bytes"):
        await world.restore(target)
    assert os.listdir(world.root).count("out") == 0


# lies in words


@pytest.mark.parametrize("op", ["info", "heads", "claim", "head", "inventory", "prove", "attest"])
@pytest.mark.parametrize("answer", [b"", b"\xc1" * 40, b"\x90"])
async def test_an_answer_that_cannot_be_read_is_that_providers_fault(
    op: str, answer: bytes, world: World, source: str
) -> None:
    world.network.add(Liar(world.services[2], ops={op: lambda _session, _body: answer}))
    report = await world.backup()
    [done] = report.datasets
    assert (done.error, done.published) == (None, True)
    found = await world.status()
    assert found.exit_code in {0, 3, 4}
    assert any("carol" in line for line in [*report.unreachable, *report.integrity, *done.owed, *found.problems])
    assert await world.differences(source) == []


async def test_a_head_of_nobody_counts_against_who_shows_it(world: World, source: str) -> None:
    await world.backup()
    stranger = SigningKey(b"s" * 32)
    forged = changed(
        "heads", Heads, lambda reply: msgspec.structs.replace(reply, heads=[stranger.sign(Context.HEAD, b"\x90")])
    )
    world.network.add(Liar(world.services[2], ops=forged))
    found = await world.status()
    assert found.exit_code == 4
    assert any(line.startswith("carol:") for line in found.problems)


async def test_evidence_of_a_fork_that_does_not_hold_counts_against_who_shows_it(world: World, source: str) -> None:
    await world.backup()
    forged = changed("heads", Heads, lambda reply: msgspec.structs.replace(reply, forks=[(b"a" * 100, b"b" * 100)]))
    world.network.add(Liar(world.services[2], ops=forged))
    found = await world.status()
    assert found.exit_code == 4
    assert any("evidence of a fork that does not hold" in line for line in found.problems)


async def test_a_provider_that_forgets_a_claim_without_a_new_store_is_an_integrity_failure(
    world: World, source: str
) -> None:
    await world.backup()
    older = changed("info", Info, lambda info: msgspec.structs.replace(info, claim=0))
    world.network.add(Liar(world.services[2], ops=older))
    found = await world.status()
    assert found.exit_code == 4
    assert any("went back to an older state" in line for line in found.problems)


async def test_a_claim_answered_for_another_number_is_owed(world: World, source: str) -> None:
    other = changed("claim", ClaimReply, lambda reply: msgspec.structs.replace(reply, number=reply.number + 1))
    world.network.add(Liar(world.services[2], ops=other))
    [done] = (await world.backup()).datasets
    assert (done.error, done.published) == (None, True)
    assert any("carol" in line for line in done.owed)


@pytest.mark.parametrize("how", ["unsigned", "of another head", "of another provider"])
async def test_a_witness_that_does_not_hold_does_not_count(how: str, worlds: Callable[[int], World]) -> None:
    world = worlds(3)
    world.small_dataset()

    def lie_about(number: int) -> dict[str, Callable[[Session, bytes], bytes]]:
        key = world.opened[2 if how == "of another provider" else number].key

        def change(reply: Signed) -> Signed:
            witness = decode(Witness, body_of(reply.statement))
            if how == "of another head":
                witness = msgspec.structs.replace(witness, head=bytes(32))
            return Signed(statement=b"seen" if how == "unsigned" else key.sign(Context.WITNESS, encode(witness)))

        return changed("head", Signed, change)

    for number in (0, 1):
        world.network.add(Liar(world.services[number], ops=lie_about(number)))
    [done] = (await world.backup()).datasets
    assert isinstance(done.error, MinimumNotMetError)
    assert "1 of at least 2 peers witnessed it" in str(done.error)
    world.answer(0, 1)
    assert (await world.backup()).datasets[0].published


async def test_what_is_claimed_at_too_few_peers_is_not_published(worlds: Callable[[int], World]) -> None:
    world = worlds(3)
    source = world.small_dataset()

    def refuse(_session: Session, _body: bytes) -> bytes:
        raise RequestRefusedError("quota", "too many names")

    for number in (0, 1):
        world.network.add(Liar(world.services[number], ops={"claim": refuse}))
    report = await world.backup()
    [done] = report.datasets
    assert isinstance(done.error, MinimumNotMetError)
    assert "claimed at fewer than 2 peers" in str(done.error)
    assert world.stored(2, ["snapshot"]) == []
    assert await world.snapshots() == []
    world.answer(0, 1)
    assert (await world.backup()).datasets[0].published
    assert await world.differences(source) == []


async def test_records_at_too_few_peers_are_not_published(worlds: Callable[[int], World]) -> None:
    world = worlds(3)
    source = world.small_dataset()
    taken = {0: 0, 1: 0}

    def packs_only(number: int) -> Callable[[Session, ObjectName, int], Upload]:
        def begin(session: Session, name: ObjectName, size: int) -> Upload:
            taken[number] += 1
            if taken[number] > 2:
                raise RequestRefusedError("full", "no")
            return session.begin_put(name, size)

        return begin

    for number in (0, 1):
        lie(world, number, begin_put=packs_only(number))
    [done] = (await world.backup()).datasets
    assert isinstance(done.error, MinimumNotMetError)
    assert "has 1 of at least 2 copies" in str(done.error)
    assert await world.snapshots() == []
    world.answer(0, 1)
    assert (await world.backup()).datasets[0].published
    assert await world.differences(source) == []


async def test_a_busy_provider_is_not_waited_for_for_ever(world: World, source: str) -> None:
    asked = 0

    def busy(identity: Identity, op: str, phase: Phase) -> None:
        nonlocal asked
        if (identity, op, phase) == (world.identity(2), "put", "before"):
            asked += 1
            raise BusyError("carol", "later", after_s=3600.0)

    world.network.faults = busy
    before = world.clock.now_ns()
    [done] = (await world.backup()).datasets
    assert done.published
    assert asked <= 60
    assert world.clock.now_ns() - before < 3600 * GB
