"""What an adversary can do to a chain: each move is found by the next command that can know, with evidence kept."""

import os
import shutil
from collections.abc import Iterable, Sequence
from random import Random

import msgspec

from replicator.charter.chain import check_finding
from replicator.charter.verify import signed_hash
from replicator.crypto.sign import Context, body_of
from replicator.engine.federation import Federation
from replicator.engine.findings import Findings, KeptFinding, in_words
from replicator.engine.freshness import freshness
from replicator.engine.members import revoke_node
from replicator.engine.memory import Memory
from replicator.errors import ForkedError
from replicator.format.claim import Shown, Standing
from replicator.format.codec import decode, encode
from replicator.format.merkle import name_of
from replicator.format.snapshot import Head
from replicator.ids import ObjectName
from replicator.transport.handler import Session
from replicator.wire.messages import Chain, Heads, HeadsRequest, Signed
from tests.fakes import NS, SeededRng
from tests.scenarios.hostile.specwriter import Chain as WriterChain
from tests.scenarios.hostile.specwriter import Writer
from tests.scenarios.hostile.stage import Stage, keys_of
from tests.scenarios.liars import Handle, Liar
from tests.scenarios.test_node_reset import change, copied, fork, put_back
from tests.scenarios.world import World


def kept(world: World, home: str | None = None, *, keeper: bool = False) -> list[KeptFinding]:
    """Return the findings of a half; each must hold by itself."""
    half = world.keeper(home) if keeper else world.node(home)
    try:
        found = Findings(half).all()
        for one in found:
            check_finding(one.finding)
            assert in_words(half, one.finding)
    finally:
        half.close()
    return found


def kinds(found: Iterable[KeptFinding]) -> list[str]:
    return [one.finding.kind for one in found]


def acknowledge(world: World, home: str | None = None, *, keeper: bool = False) -> None:
    """Let a person say of everything that it was seen."""
    half = world.keeper(home) if keeper else world.node(home)
    for one in Findings(half).all():
        Findings(half).note(one, "seen", world.clock.now_ns())
    half.close()


def heads_of(world: World, number: int) -> Heads:
    """Return what a provider says of heads now, to the keeper."""
    keeper = world.keeper()
    session = world.services[number].session(keeper.signing.public)
    keeper.close()
    return decode(Heads, session.handle("heads", encode(HeadsRequest(challenge=bytes(32)))))


def showing(world: World, number: int, then: Heads, *, to: Sequence[bytes] = ()) -> dict[str, Handle]:
    """Return the lie of showing, well signed, what was true ``then``; to some holders, or all."""
    key = world.opened[number].key

    def lie(session: Session, body: bytes) -> bytes:
        honest = decode(Heads, session.handle("heads", body))
        holder = session._holder.key  # type: ignore[attr-defined]
        if to and holder not in to:
            return encode(honest)
        now = decode(Standing, body_of(honest.standing))
        old = decode(Standing, body_of(then.standing))
        standing = msgspec.structs.replace(now, heads=old.heads)
        return encode(
            msgspec.structs.replace(
                honest, heads=then.heads, standing=key.sign(Context.STANDING, encode(standing)), testimony=[]
            )
        )

    return {"heads": lie}


def roll_back(world: World, number: int, then: Heads, *, to: Sequence[bytes] = ()) -> None:
    world.network.add(Liar(world.services[number], ops=showing(world, number, then, to=to)))


async def went_back(world: World, source: str) -> None:
    """Let a provider witness two snapshots and show one of them from then on."""
    await world.backup()
    then = heads_of(world, 2)
    change(source, "two")
    await world.backup()
    roll_back(world, 2, then)


# rollback and split view


async def test_a_provider_that_shows_less_than_it_witnessed_is_found_by_the_node(world: World, source: str) -> None:
    await went_back(world, source)
    report = await world.backup()
    assert report.datasets[0].published, "the others are enough"
    assert any("carol" in line and "it went back" in line for line in report.integrity)
    found = await world.status()
    assert found.exit_code == 4
    assert [one.finding.kind for one in found.findings] == ["rollback"]
    [one] = kept(world)
    assert one.finding.provider == world.identity(2)
    assert one.finding.found_ns
    assert "less" in " ".join(found.peers[2].problems)


async def test_a_finding_stays_after_it_was_acknowledged_and_stops_being_a_failure(world: World, source: str) -> None:
    await went_back(world, source)
    await world.status()
    before = kept(world)
    acknowledge(world)
    found = await world.status()
    assert (found.exit_code, found.problems, found.findings) == (0, [], [])
    assert any("carol" in line for line in found.notices), "it still is so"
    [after] = kept(world)
    assert (after.signed, after.note) == (before[0].signed, "seen")


async def test_a_finding_is_shown_until_it_is_acknowledged_even_if_the_provider_mended_its_ways(
    world: World, source: str
) -> None:
    await went_back(world, source)
    await world.status()
    world.answer(2)
    assert (await world.status()).exit_code == 4
    assert (await world.status(offline=True)).exit_code == 4


async def test_a_provider_that_shows_nothing_at_all_went_back_too(world: World, source: str) -> None:
    then = heads_of(world, 2)
    await world.backup()
    roll_back(world, 2, then)
    assert (await world.status()).exit_code == 4
    assert kinds(kept(world)) == ["rollback"]


async def test_a_provider_that_shows_the_node_one_thing_and_the_keeper_another_is_found_by_the_keeper(
    world: World, source: str
) -> None:
    """The keeper never saw the newer one from that provider; what it signed to the node convicts it."""
    await world.backup()
    then = heads_of(world, 2)
    change(source, "two")
    keeper = world.keeper()
    to = [keeper.signing.public]
    keeper.close()
    roll_back(world, 2, then, to=to)
    report = await world.backup()
    assert (report.integrity, report.datasets[0].owed) == ([], [])
    found = await world.status(keeper=True)
    assert found.exit_code == 4
    [one] = kept(world, keeper=True)
    assert (one.finding.kind, one.finding.provider) == ("rollback", world.identity(2))
    assert [said.context for said in one.finding.statements] == ["witness", "standing"]
    assert (await world.status()).exit_code == 0
    assert await world.differences(source) == []


async def test_a_provider_that_missed_a_snapshot_is_no_liar(world: World, source: str) -> None:
    await world.backup()
    world.silence(2)
    change(source, "two")
    await world.backup()
    world.answer(2)
    found = await world.status(keeper=True)
    assert found.problems == []
    assert any("carol shows snapshot 1" in line for one in found.datasets for line in one.warnings)
    report = await world.backup()
    assert report.integrity == []
    found = await world.status(keeper=True)
    assert [line for one in found.datasets for line in one.warnings] == []


async def test_repair_ends_with_an_integrity_failure_while_a_finding_is_open(world: World, source: str) -> None:
    await went_back(world, source)
    repaired = await world.repair()
    assert repaired.exit_code == 4
    assert any("carol" in line for line in repaired.notices)
    acknowledge(world)
    assert (await world.repair()).exit_code == 0


async def test_looking_while_a_snapshot_waits_that_another_life_made_anew_leaves_it_to_the_backup(
    world: World, source: str
) -> None:
    await world.backup()
    clone = copied(world, "clone")
    change(source, "there")
    world.silence(*range(5))
    await world.backup(home=clone)
    world.answer(*range(5))
    change(source, "here")
    await world.backup()
    found = await world.status(clone)
    assert (found.integrity, found.findings) == ([], [])
    report = await world.backup(home=clone)
    assert (report.integrity, report.datasets[0].published) == ([], True)
    assert [one.row.number for one in await world.snapshots()] == [1, 2, 3]


async def test_the_word_that_a_provider_gave_is_never_replaced_by_a_lesser_one(world: World, source: str) -> None:
    await world.backup()
    then = heads_of(world, 2)
    change(source, "two")
    await world.backup()
    await world.status()
    roll_back(world, 2, then)
    for _ in range(3):
        await world.status()
    [one] = kept(world)
    assert one.finding.number == 2
    node = world.node()
    words = [word for word in Memory(node).words(world.identity(2)) if word.statement.context == "standing"]
    assert [word.heads[node.identity].number for word in words] == [2]
    node.close()


async def test_a_provider_whose_database_was_put_back_is_told_and_hears_of_the_newest_again(
    world: World, source: str
) -> None:
    await world.backup()
    home, aside = os.path.join(world.root, "provider-2", "provider"), os.path.join(world.root, "aside")
    world.stop_provider(2)
    shutil.copytree(home, aside)
    world.start_provider(2)
    change(source, "two")
    await world.backup()
    world.stop_provider(2)
    shutil.rmtree(home)
    shutil.copytree(aside, home)
    world.start_provider(2)
    found = await world.status()
    assert (found.findings, found.integrity) == ([], [])
    assert any("carol: had seen snapshot 2" in line for line in found.notices)
    report = await world.backup()
    assert report.integrity == []
    assert [head[:32] for head in heads_of(world, 2).heads] == [heads_of(world, 1).heads[0][:32]]
    assert heads_of(world, 2).heads == heads_of(world, 1).heads
    assert (await world.status()).exit_code == 0


async def test_all_providers_that_go_back_together_are_found_by_who_remembers(world: World, source: str) -> None:
    await world.backup()
    then = [heads_of(world, number) for number in range(5)]
    change(source, "two")
    await world.backup()
    await world.status(keeper=True)
    for number in range(5):
        roll_back(world, number, then[number])
    for keeper in (False, True):
        assert (await world.status(keeper=keeper)).exit_code == 4
        assert kinds(kept(world, keeper=keeper)) == ["rollback"] * 5


async def test_all_providers_that_were_put_back_together_have_lost_a_snapshot_and_it_is_said(
    world: World, source: str
) -> None:
    """New lives of their stores: none contradicts itself, and yet what was witnessed is gone."""
    await world.backup()
    for number in range(5):
        world.stop_provider(number)
        shutil.copytree(
            os.path.join(world.root, f"provider-{number}", "provider"), os.path.join(world.root, f"aside-{number}")
        )
        world.start_provider(number)
    change(source, "two")
    await world.backup()
    await world.status(keeper=True)
    for number in range(5):
        home = os.path.join(world.root, f"provider-{number}", "provider")
        world.stop_provider(number)
        shutil.rmtree(home)
        shutil.copytree(os.path.join(world.root, f"aside-{number}"), home)
        world.start_provider(number)
    world.silence(1)
    found = await world.status(keeper=True)
    assert kinds(kept(world, keeper=True)) == [], "bob may know it"
    assert any("bob may have it and does not answer" in line for line in found.notices)
    world.answer(1)
    assert (await world.status(keeper=True)).exit_code == 4
    [one] = kept(world, keeper=True)
    assert (one.finding.kind, one.finding.number) == ("lost", 2)
    report = await world.backup()
    assert any("no provider shows it any more" in line for line in report.integrity)
    acknowledge(world)
    acknowledge(world, keeper=True)
    assert [one.row.number for one in await world.snapshots()] == [1, 2, 3]
    assert (await world.status()).exit_code == 0
    assert await world.differences(source) == []


async def test_a_home_that_does_not_know_who_saw_its_newest_snapshot_accuses_nobody_while_one_is_silent(
    world: World, source: str
) -> None:
    """As after an update: the catalog has the snapshot, and no word of any provider."""
    world.silence(4)
    await world.backup()
    world.answer(4)
    node = world.node()
    with node.catalog.database.transaction("test") as connection:
        connection.execute("DELETE FROM words")
        connection.execute("DELETE FROM heads")
    node.close()
    world.silence(0, 1, 2, 3)
    found = await world.status()
    assert (found.integrity, found.findings) == ([], [])
    assert any("alice, bob, carol, dave may have it" in line for line in found.notices)


async def test_heads_that_are_not_those_that_a_provider_signed_for_count_against_it(world: World, source: str) -> None:
    await world.backup()
    key = world.opened[2].key

    def lie(session: Session, body: bytes) -> bytes:
        honest = decode(Heads, session.handle("heads", body))
        standing = msgspec.structs.replace(decode(Standing, body_of(honest.standing)), heads=[])
        return encode(msgspec.structs.replace(honest, standing=key.sign(Context.STANDING, encode(standing))))

    world.network.add(Liar(world.services[2], ops={"heads": lie}))
    found = await world.status()
    assert found.exit_code == 4
    assert any("carol: the heads that it shows are not those that it signed for" in line for line in found.problems)


async def test_an_answer_to_another_question_convicts_nobody_and_is_not_believed(world: World, source: str) -> None:
    await world.backup()
    then = heads_of(world, 2)
    world.network.add(Liar(world.services[2], ops={"heads": lambda _session, _body: encode(then)}))
    found = await world.status()
    assert any("carol: standing: " in line and "another question" in line for line in found.problems)
    assert kept(world) == []


# forks


async def test_a_fork_is_kept_as_two_signed_heads_and_stops_publishing_until_a_person_says_so(
    world: World, source: str
) -> None:
    clone = await fork(world, source)
    for home in (world.home, clone):
        before = heads_of(world, 0).heads, heads_of(world, 3).heads
        report = await world.backup(home=home)
        [done] = report.datasets
        assert isinstance(done.error, ForkedError)
        assert "findings acknowledge" in done.error.hint
        assert "node revoke" in done.error.hint
        assert (heads_of(world, 0).heads, heads_of(world, 3).heads) == before, "nothing was published"
        [one] = kept(world, home)
        assert (one.finding.kind, one.finding.number) == ("fork", 2)
        numbers = {decode(Head, body_of(said.signed)).number for said in one.finding.statements}
        assert (numbers, len({said.signed for said in one.finding.statements})) == ({2}, 2)
    assert (await world.status(keeper=True)).exit_code == 4
    assert kinds(kept(world, keeper=True)) == ["fork"]
    acknowledge(world)
    report = await world.backup()
    assert report.datasets[0].published
    assert kinds(kept(world)) == ["fork"], "its evidence stays"
    assert (await world.backup(home=clone)).datasets[0].error is not None, "the clone is told on its own"


async def test_a_fork_is_found_where_the_branches_are_several_snapshots_long(world: World, source: str) -> None:
    """The newest heads alone, 2 here and 4 there, say nothing: what providers keep of the chain does."""
    await world.backup()
    clone = copied(world, "clone")
    world.silence(3, 4)
    change(source, "here")
    await world.backup()
    world.silence(0, 1, 2)
    world.answer(3, 4)
    for number in range(3):
        change(source, f"there {number}")
        await world.backup(home=clone)
    world.answer(*range(5))
    found = await world.status(keeper=True)
    assert found.exit_code == 4
    assert any("(a fork)" in line for line in found.problems)
    assert "fork" in kinds(kept(world, keeper=True))
    [done] = (await world.backup()).datasets
    assert isinstance(done.error, ForkedError)


async def test_a_fork_is_found_by_a_keeper_that_saw_one_branch_when_only_the_other_answers(
    world: World, source: str
) -> None:
    clone = await fork(world, source)
    world.silence(3, 4)
    assert (await world.status(keeper=True)).integrity == []
    world.answer(3, 4)
    world.silence(0, 1, 2)
    change(source, "more there")
    world.clock.advance(60)
    acknowledge(world, clone)
    found = await world.status(keeper=True)
    assert found.exit_code == 4
    assert kinds(kept(world, keeper=True)) == ["fork"]


async def test_evidence_outlives_the_catalog(world: World, source: str) -> None:
    await fork(world, source)
    await world.status(keeper=True)
    os.unlink(os.path.join(world.home, "keeper", "catalog.db"))
    world.silence(*range(5))
    assert (await world.status(keeper=True, offline=True)).exit_code == 4
    assert kinds(kept(world, keeper=True)) == ["fork"]


async def test_a_home_that_was_put_back_says_so_and_what_else_it_could_be(world: World, source: str) -> None:
    await world.backup()
    older = copied(world, "older")
    change(source, "two")
    await world.backup()
    put_back(world, older)
    report = await world.backup()
    assert (report.integrity, report.datasets[0].published) == ([], True)
    [one] = kept(world)
    assert (one.finding.kind, one.finding.number) == ("continued", 2)
    found = await world.status()
    assert found.exit_code == 0
    assert any("its key is used elsewhere" in line for line in found.advice)
    acknowledge(world)
    assert not any("elsewhere" in line for line in (await world.status()).advice)


async def test_a_home_that_was_put_back_twice_to_the_same_copy_is_no_clone(world: World, source: str) -> None:
    await world.backup()
    older = copied(world, "older")
    for name in ("two", "three"):
        change(source, name)
        await world.backup()
        put_back(world, older)
    change(source, "four")
    report = await world.backup()
    assert (report.integrity, report.datasets[0].published) == ([], True)
    assert (await world.status()).exit_code == 0


async def test_a_stolen_key_beside_the_real_node_is_told_at_once_and_stops_it_the_second_time(
    world: World, source: str
) -> None:
    await world.backup()
    stage = Stage(world, keys_of(world), privileged=True)

    async def thief_writes(number: int) -> None:
        newest = decode(Head, body_of(heads_of(world, 0).heads[0]))
        stage.chain = WriterChain(newest.number, signed_hash(heads_of(world, 0).heads[0]), newest.snapshot)
        writer = Writer(keys_of(world), random=Random(number))
        await stage.write(writer, writer.folder([writer.file(b"evil", b"evil")]))

    await thief_writes(1)
    report = await world.backup()
    assert any("peers knew snapshots up to 2" in line for line in (*report.notices, *report.integrity))
    assert kinds(kept(world)) == ["continued"]
    assert report.datasets[0].published
    await thief_writes(2)
    before = heads_of(world, 0).heads
    [done] = (await world.backup()).datasets
    assert isinstance(done.error, ForkedError)
    assert heads_of(world, 0).heads == before
    assert kinds(kept(world)) == ["continued", "interleaved"]


# what a hostile writer does to its own chain


async def test_garbage_as_the_newest_snapshot_hides_none_before_it_from_a_keeper_that_never_saw_them(
    world: World, source: str
) -> None:
    await world.backup()
    change(source, "two")
    await world.backup()
    node = world.node()
    garbage = SeededRng("garbage").bytes(65_536)
    newest = heads_of(world, 0).heads[0]
    for number in (3, 4):
        head = Head(
            tenant=world.tenant_id,
            writer=node.identity,
            number=number,
            previous=signed_hash(newest),
            snapshot=name_of(garbage),
            created_ns=world.clock.now_ns(),
        )
        newest = node.signing.sign(Context.HEAD, encode(head))
        async with Federation(node, world.edge) as federation:
            for link in federation.links.values():
                await link.connection.put(ObjectName(head.snapshot), garbage)
                await link.connection.call("head", Signed(statement=newest), Signed)
    node.close()
    found = await world.snapshots()
    assert [one.row.number for one in found] == [1, 2]
    assert (await world.status(keeper=True)).exit_code == 4
    assert await world.differences(source) == []


async def test_a_number_that_jumps_hides_nothing_and_is_told(world: World, source: str) -> None:
    await world.backup()
    newest = decode(Head, body_of(heads_of(world, 0).heads[0]))
    stage = Stage(world, keys_of(world), privileged=True)
    stage.chain = WriterChain(newest.number + 1_000_000, signed_hash(heads_of(world, 0).heads[0]), newest.snapshot)
    writer = Writer(keys_of(world), random=Random(1))
    await stage.write(writer, writer.folder([writer.file(b"evil", b"evil")]))
    found = await world.status(keeper=True)
    assert found.exit_code == 4
    assert any("not the one that the chain names" in line for line in found.problems)
    assert [one.row.number for one in await world.snapshots()] == [1, 1_000_002]
    assert await world.differences(source, "latest:docs") == []


async def test_a_head_that_a_revoked_node_sent_to_a_provider_that_had_not_heard_is_found(
    world: World, source: str
) -> None:
    await world.backup()
    node = world.node()
    newest = heads_of(world, 0).heads[0]
    world.silence(4)
    keeper = world.keeper()
    await revoke_node(keeper, [], world.edge, "testhost")
    keeper.close()
    assert (await world.status(keeper=True)).integrity == []
    world.clock.advance(86400)
    world.answer(4)
    world.silence(0, 1, 2, 3)
    head = msgspec.structs.replace(decode(Head, body_of(newest)), number=2, previous=signed_hash(newest))
    session = world.services[4].session(node.signing.public)
    session.handle("head", encode(Signed(statement=node.signing.sign(Context.HEAD, encode(head)))))
    node.close()
    world.answer(*range(5))
    found = await world.status(keeper=True)
    assert found.exit_code == 4
    [one] = kept(world, keeper=True)
    assert (one.finding.kind, one.finding.number) == ("revoked", 2)


async def test_what_a_revoked_node_wrote_before_is_no_finding(world: World, source: str) -> None:
    await world.backup()
    world.clock.advance(86400)
    keeper = world.keeper()
    await revoke_node(keeper, [], world.edge, "testhost")
    keeper.close()
    world.clock.advance(86400)
    assert (await world.status(keeper=True)).problems == []
    assert kept(world, keeper=True) == []


async def test_heads_of_a_chain_that_come_out_of_order_count_against_who_gives_them(world: World, source: str) -> None:
    await world.backup()
    world.silence(2)
    for number in range(3):
        change(source, f"{number}")
        await world.backup()
    world.answer(2)

    def turned(session: Session, body: bytes) -> bytes:
        reply = decode(Chain, session.handle("chain", body))
        return encode(msgspec.structs.replace(reply, heads=[*reply.heads, *reply.heads]))

    world.network.add(Liar(world.services[0], ops={"chain": turned}))
    found = await world.status(keeper=True)
    assert found.peers[0].problems or any("alice" in line for line in [*found.problems, *found.notices])
    assert [one.row.number for one in await world.snapshots()] == [1, 2, 3, 4]


# how fresh


async def test_a_snapshot_says_how_old_it_is_and_who_has_seen_it(world: World, source: str) -> None:
    world.silence(4)
    await world.backup()
    seen_ns = world.clock.now_ns()
    world.answer(4)
    world.clock.advance(7200)
    world.silence(3)
    for half in ("node", "keeper"):
        found = await world.status(keeper=half == "keeper")
        [one] = found.datasets
        assert one.age_s == 7200
        names = {witness.name: witness.answers for witness in one.witnesses}
        assert names == {"alice": True, "bob": True, "carol": True, "dave": False}, "the keeper knows by testimony"
        assert {witness.seen_ns for witness in one.witnesses} == {seen_ns}
        assert one.warnings == ["erin shows none; others show snapshot 1 of that node"]
    offline = await world.status(offline=True)
    assert [witness.name for witness in offline.datasets[0].witnesses] == ["alice", "bob", "carol", "dave"]


async def test_fewer_witnesses_than_the_minimum_are_warned_of(world: World, source: str) -> None:
    then = [heads_of(world, number) for number in range(5)]
    await world.backup()
    for number in (0, 1, 2, 3):
        roll_back(world, number, then[number])
    keeper = world.keeper()
    try:
        async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
            from replicator.engine.sync import sync_all

            heads = await sync_all(keeper, federation)
            [row] = keeper.catalog.snapshots.all()
            found = freshness(keeper, row, heads[row.writer], world.clock.now_ns() + 5 * NS)
    finally:
        keeper.close()
    assert [one.name for one in found.witnesses] == ["erin"]
    assert found.age_s == 5
    assert "seen by 1 provider, at least 2 were promised" in found.warnings


def test_a_standing_names_each_writer_once_and_in_order() -> None:
    shown = [Shown(writer=bytes([n]) * 32, number=1, head=bytes(32), seen_ns=1) for n in (2, 1)]
    body = [1, bytes(16), bytes(16), bytes(32), [msgspec.structs.astuple(one) for one in shown], 1]
    for heads in (body[4], [body[4][0], body[4][0]]):  # type: ignore[index] # a list
        data = msgspec.msgpack.encode([*body[:4], heads, 1])
        try:
            decode(Standing, data)
        except Exception as error:
            assert "by writer" in str(error)  # noqa: PT017
        else:
            raise AssertionError("it was read")
