"""Packs that are cut into shards: any four of six give them back, and what is missing is made again of four."""

import os
import shutil
from collections import Counter
from collections.abc import Collection
from typing import Any

import msgspec
import pytest

from replicator.catalog.objects import ObjectRow, Shards
from replicator.engine import restore, shards
from replicator.engine.backup import BackupReport
from replicator.engine.browse import ChunkFetcher, Library
from replicator.engine.federation import Federation, get_whole
from replicator.engine.inspect import verify_content
from replicator.engine.placing import Ground, pack_id, peer_id
from replicator.engine.prune import stored_names
from replicator.engine.rebalance import moved_objects, planned_moves
from replicator.engine.simulate import home_scene, simulate
from replicator.engine.slots import Held, Slots
from replicator.engine.sync import take_index
from replicator.engine.why import explain
from replicator.engine.writers import Writers
from replicator.errors import IntegrityError, MinimumNotMetError, NotFoundError
from replicator.format.index import Index, IndexedPack
from replicator.format.merkle import name_of
from replicator.format.policy import policy_id
from replicator.ids import ObjectName
from replicator.pack import shards as pack_shards
from replicator.snapshot.retention import KeepRules
from replicator.transport.base import Connection
from replicator.transport.memory import MemoryConnection
from scheduler.hazards import Hazards
from tests.fakes import SeededRng
from tests.scenarios.conftest import Worlds
from tests.scenarios.test_forgetting import DAY_S, keep
from tests.scenarios.test_pruning import days_pass, pruned
from tests.scenarios.test_unnamed import given_up
from tests.scenarios.world import PROMISE, World, read, write

CODED = msgspec.structs.replace(PROMISE, coding=(4, 2), spread=["owner"])
SHARDS = 6
MIB = 1 << 20


@pytest.fixture
def world(worlds: Worlds) -> World:
    """Six providers, as many as there are shards."""
    return worlds(SHARDS)


@pytest.fixture
def source(world: World) -> str:
    """A dataset that makes two packs of some megabytes, which are cut, and a few small objects."""
    path = os.path.join(world.root, "source", "docs")
    for number in range(6):
        write(os.path.join(path, f"{number}.raw"), SeededRng(f"coded {number}").bytes(900_000))
    write(os.path.join(path, "letter.txt"), b"Dear reader,\n" * 300)
    world.add_dataset("docs", path, policy=CODED)
    return path


def cut_packs(world: World) -> dict[bytes, Shards]:
    """What every pack of the node is cut into, by its name."""
    node = world.node()
    try:
        cut = node.catalog.objects.shards()
        return {row.name: cut[row.id] for row in node.catalog.objects.all() if row.id in cut}
    finally:
        node.close()


def rows(world: World, *kinds: str) -> list[ObjectRow]:
    node = world.node()
    try:
        return [row for row in node.catalog.objects.all() if row.kind in kinds]
    finally:
        node.close()


def holder(world: World, row: ObjectRow) -> int:
    """Return which provider has an object."""
    return next(number for number in range(SHARDS) if row.name.hex() in os.listdir(world.objects(number)))


async def backed_up(world: World, *, overlap: bool = False, readers: int = 0) -> BackupReport:
    """Back up, and insist that all went as promised."""
    report = await world.backup(overlap=overlap, readers=readers)
    [done] = report.datasets
    assert (done.error, done.debts, report.integrity) == (None, [], [])
    assert done.published
    return report


async def whole(world: World, source: str) -> None:
    """Restore, and compare with the source."""
    assert await world.differences(source, "latest:docs") == []


async def joined(world: World, *numbers: int) -> None:
    """Let new providers join."""
    for number in numbers:
        await world.add_peer(world.start_provider(number))


class TestStoring:
    @pytest.mark.parametrize(("overlap", "readers"), [(False, 0), (True, 0), (True, 2)])
    async def test_each_provider_has_one_shard_of_every_large_pack(
        self, overlap: bool, readers: int, world: World, source: str
    ) -> None:
        await backed_up(world, overlap=overlap, readers=readers)
        cut = cut_packs(world)
        assert cut
        there = [set(os.listdir(world.objects(number))) for number in range(SHARDS)]
        for name, found in cut.items():
            assert found.coding == (4, 2)
            assert not any(name.hex() in names for names in there)
            holders = [[at for at in range(SHARDS) if row.name.hex() in there[at]] for row in found.rows]
            assert sorted(holders) == [[at] for at in range(SHARDS)]
        spool = os.listdir(os.path.join(world.home, "node", "spool", "objects"))
        assert spool == []

    async def test_trees_small_packs_and_records_stay_whole(self, world: World, source: str) -> None:
        small = world.small_dataset("small", policy=CODED)
        report = await world.backup()
        assert [(done.error, done.debts) for done in report.datasets] == [(None, [])] * 2
        cut = cut_packs(world)
        uncut = [row for row in rows(world, "data", "tree") if row.name not in cut]
        assert {row.kind for row in uncut} == {"data", "tree"}
        assert all(row.size < MIB for row in uncut if row.kind == "data")
        there = Counter(name for number in range(SHARDS) for name in os.listdir(world.objects(number)))
        assert {there[row.name.hex()] for row in uncut} == {3}, "as many copies as losses that shards survive, and one"
        assert {there[row.name.hex()] for row in rows(world, "index", "references", "snapshot")} == {SHARDS}
        world.silence(1, 2)
        await whole(world, source)
        assert await world.differences(small, "latest:small") == []

    async def test_shards_are_claimed_and_proved_and_status_is_green(self, world: World, source: str) -> None:
        await backed_up(world)
        found = await world.status()
        [docs] = found.datasets
        assert (found.exit_code, docs.state, docs.copies, docs.promised, docs.coding) == (0, "safe", 3, 3, "4+2")
        node = world.node()
        try:
            wanted = {row.id for row in rows(world, "shard")}
            claims = [node.catalog.objects.claimed(world.identity(number)) for number in range(SHARDS)]
            assert [len(claim & wanted) for claim in claims] == [len(cut_packs(world))] * SHARDS
            places = await explain(node, world.edge, node.catalog.snapshots.all())
        finally:
            node.close()
        assert len([row for row in places.places if row["objects"]]) == SHARDS
        assert any("6 of 6 shards" in line for line in places.reasons)
        assert any("5 shards of every object are left" in line for line in places.survives)
        checked = await world.verify()
        assert (checked.problems, checked.absent) == ([], [])

    async def test_nothing_is_stored_twice(self, world: World, source: str) -> None:
        await backed_up(world)
        before = rows(world, "data", "shard")
        report = await backed_up(world)
        assert report.datasets[0].new_bytes == 0
        assert rows(world, "data", "shard") == before


class TestPublishing:
    async def test_with_four_of_six_nothing_is_published_and_later_all_is(self, world: World, source: str) -> None:
        world.silence(4, 5)
        [done] = (await world.backup()).datasets
        assert isinstance(done.error, MinimumNotMetError)
        assert "0 of 6 promised shards" in str(done.error)
        assert "fewer than 5 shards" in str(done.error)
        with pytest.raises(NotFoundError):
            await world.differences(source)
        world.answer(4, 5)
        report = await world.backup()
        assert len(report.finished_before) == 1
        assert (await world.status()).exit_code == 0
        world.silence(0, 1)
        await whole(world, source)

    async def test_with_five_of_six_it_is_published_and_the_debt_is_named_and_paid(
        self, world: World, source: str
    ) -> None:
        world.silence(2)
        [done] = (await world.backup()).datasets
        assert done.published
        assert any("have 5 of 6 promised shards" in debt for debt in done.debts)
        found = await world.status()
        assert (found.exit_code, found.datasets[0].copies) == (3, 2)
        world.answer(2)
        report = await world.repair()
        assert report.exit_code == 0
        assert (await world.status()).exit_code == 0
        world.silence(0, 1)
        await whole(world, source)

    async def test_a_run_that_was_killed_before_it_sent_goes_on_with_the_same_shards(
        self, world: World, source: str
    ) -> None:
        world.silence(*range(SHARDS))
        await world.backup()
        before = {row.name for row in rows(world, "shard")}
        assert {row.name.hex() for row in rows(world, "shard")} <= set(
            os.listdir(os.path.join(world.home, "node", "spool", "objects"))
        )
        world.answer(*range(SHARDS))
        await world.backup()
        assert {row.name for row in rows(world, "shard")} == before
        await whole(world, source)

    async def test_a_shard_that_rots_in_the_spool_is_made_of_the_others(self, world: World, source: str) -> None:
        world.silence(*range(SHARDS))
        await world.backup()
        found = next(iter(cut_packs(world).values()))
        for number in (1, 4):
            path = os.path.join(world.home, "node", "spool", "objects", found.rows[number].name.hex())
            write(path, b"rotten" + read(path)[6:])
        world.answer(*range(SHARDS))
        await world.backup()
        assert (await world.status()).exit_code == 0
        world.silence(0, 1)
        await whole(world, source)

    @pytest.mark.parametrize(("before", "after"), [(PROMISE, CODED), (CODED, PROMISE)])
    async def test_another_policy_places_all_anew_before_it_is_green(
        self, before: object, after: object, world: World, source: str
    ) -> None:
        assert isinstance(before, type(CODED))
        assert isinstance(after, type(CODED))
        world.set_policy("docs", before)
        await backed_up(world)
        assert bool(cut_packs(world)) == (before is CODED)
        world.set_policy("docs", after)
        assert (await world.status()).exit_code == 3
        await backed_up(world)
        assert (await world.status()).exit_code == 0
        assert len({row.policy for row in rows(world, "data")}) == 2
        world.silence(0, 1)
        await whole(world, source)


class TestReading:
    async def test_nothing_is_decoded_while_all_data_shards_answer(
        self, world: World, source: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await backed_up(world)
        made: list[object] = []
        monkeypatch.setattr("replicator.pack.shards.rebuild", lambda *args: made.append(args))
        await whole(world, source)
        assert made == []

    @pytest.mark.parametrize(("dead", "writers"), [((0, 1), 0), ((0, 3), 2), ((4, 5), 0)])
    async def test_any_two_may_be_silent(self, dead: tuple[int, int], writers: int, world: World, source: str) -> None:
        await backed_up(world)
        world.silence(*dead)
        target = os.path.join(world.root, "target")
        report = await world.restore(target, writers=writers)
        assert (report.lost, report.damaged, report.gaps) == ([], [], [])
        for name in os.listdir(source):
            assert read(os.path.join(target, "docs", name)) == read(os.path.join(source, name))

    async def test_a_third_silence_is_named_and_loses_nothing_else(self, world: World, source: str) -> None:
        small = world.small_dataset("small")
        await world.backup()
        world.silence(0, 1, 2)
        report = await world.restore(os.path.join(world.root, "target"), "latest:docs")
        assert report.lost
        assert any("3 of the 4 shards that it takes are within reach" in one for one in report.lost)
        world.answer(0)
        world.silence(3)
        world.answer(1, 2, 3)
        assert await world.differences(small, "latest:small") == []

    async def test_a_damaged_shard_is_reported_and_done_without_and_mended(self, world: World, source: str) -> None:
        await backed_up(world)
        [path, *_] = world.stored(2, ("shard",))
        write(path, read(path)[:-1] + b"?")
        world.silence(5)
        await whole(world, source)
        world.answer(5)
        checked = await world.verify()
        assert checked.problems
        report = await world.repair()
        assert report.made == 1
        assert (report.exit_code, report.unreadable, report.damaged) == (0, [], report.damaged)
        assert (await world.status()).exit_code == 0
        world.silence(0, 1)
        await whole(world, source)

    async def test_only_from_the_sheet_too(self, world: World, source: str) -> None:
        """A keeper that knows no holder asks around."""
        await backed_up(world)
        world.silence(1, 4)
        keeper = world.keeper()
        try:
            assert keeper.catalog.objects.holdings() == []
        finally:
            keeper.close()
        await whole(world, source)

    async def test_content_is_verified(self, world: World, source: str) -> None:
        await backed_up(world)
        keeper = world.keeper()
        try:
            async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
                library = Library(keeper, federation)
                await library.refresh()
                report = await verify_content(library, world.edge, share=1.0)
        finally:
            keeper.close()
        assert (report.problems, report.absent) == ([], [])
        assert report.chunks > 6


class TestRepair:
    @pytest.mark.parametrize("keeper", [False, True])
    async def test_two_of_six_die_two_join_and_another_two_die(self, keeper: bool, world: World, source: str) -> None:
        await backed_up(world)
        world.silence(0, 3)
        await whole(world, source)
        await joined(world, 6, 7)
        before = {number: world.used(number) for number in (1, 2, 4, 5)}
        report = await world.repair(keeper=keeper)
        assert (report.exit_code, report.unreadable, report.debts) == (0, [], [])
        assert {number: world.used(number) for number in before} == before, "what was there stays as it is"
        for number in (6, 7):
            assert len(world.stored(number, ("shard",))) == len(cut_packs(world))
        again = await world.repair(keeper=keeper)
        assert (again.made, again.planned) == (0, [])
        if not keeper:
            await backed_up(world)
        world.silence(1, 6)
        await whole(world, source)

    async def test_only_what_is_missing_is_made_and_only_as_much_fetched_as_it_takes(
        self, world: World, source: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await backed_up(world)
        cut = cut_packs(world)
        world.silence(0, 3)
        await joined(world, 6, 7)
        fetched: Counter[bytes] = Counter()
        made: list[int] = []
        really, rebuild = get_whole, pack_shards.rebuild

        async def get(connection: Connection, name: ObjectName) -> bytes:
            fetched[name] += 1
            return await really(connection, name)

        def count(found: dict[int, bytes], coding: tuple[int, int], missing: Collection[int]) -> dict[int, bytes]:
            made.append(len(missing))
            return rebuild(found, coding, missing)

        monkeypatch.setattr("replicator.engine.federation.get_whole", get)
        monkeypatch.setattr(shards, "rebuild", count)
        report = await world.repair()
        assert report.exit_code == 0
        assert made == [2] * len(cut), "both at once"
        for found in cut.values():
            assert sum(fetched[row.name] for row in found.rows) == 4
            assert fetched[next(name for name, one in cut.items() if one is found)] == 0

    async def test_a_provider_that_returns_is_surplus_and_nothing_moves(self, world: World, source: str) -> None:
        await backed_up(world)
        world.silence(0)
        await joined(world, 6)
        await world.repair()
        world.answer(0)
        report = await world.repair()
        assert (report.made, report.planned, report.exit_code) == (0, [], 0)
        await backed_up(world)
        world.silence(6, 1)
        await whole(world, source)

    async def test_too_many_losses_are_named_and_the_next_backup_reads_the_source_again(
        self, world: World, source: str
    ) -> None:
        await backed_up(world)
        lost = list(cut_packs(world))
        for number in (0, 1, 2):
            for path in world.stored(number, ("shard",)):
                os.unlink(path)
        report = await world.repair()
        assert report.exit_code == 4
        assert len(report.unreadable) == len(lost)
        [first] = (await world.backup()).datasets
        assert isinstance(first.error, MinimumNotMetError)
        assert "nowhere any more" in str(first.error)
        await backed_up(world)
        await whole(world, source)


class TestPruning:
    async def test_what_is_dead_goes_and_what_is_kept_restores(self, world: World, source: str) -> None:
        for night in range(4):
            write(os.path.join(source, "changes.raw"), SeededRng(f"night {night}").bytes(2_500_000))
            world.clock.advance(DAY_S)
            await backed_up(world)
        stored = {number: world.used(number) for number in range(SHARDS)}
        await keep(world, KeepRules(last=1))
        report = await pruned(world)
        assert report.plan.gaps == []
        assert report.exit_code == 0
        assert all(one.marked for one in report.at)
        days_pass(world)
        assert all(world.used(number) < before for number, before in stored.items())
        await world.backup()
        found = await world.status()
        assert (found.exit_code, found.problems) == (0, [])
        world.silence(0, 1)
        await whole(world, source)

    async def test_packs_that_are_mostly_dead_are_put_together_anew_as_shards(self, world: World, source: str) -> None:
        await backed_up(world)
        old = cut_packs(world)
        for number in (0, 1, 2, 4):
            write(os.path.join(source, f"{number}.raw"), b"short now")
        world.clock.advance(DAY_S)
        await backed_up(world)
        await keep(world, KeepRules(last=1))
        report = await pruned(world)
        assert (report.plan.gaps, report.exit_code) == ([], 0)
        days_pass(world)
        await world.backup()
        names = {name for number in range(SHARDS) for name in os.listdir(world.objects(number))}
        assert not any(row.name.hex() in names for one in old.values() for row in one.rows)
        new = cut_packs(world).keys() - old.keys()
        assert new
        assert (await world.status()).exit_code == 0
        world.silence(2, 3)
        await whole(world, source)


class TestTrust:
    async def test_names_of_shards_that_do_not_make_the_pack_are_found_out(
        self, world: World, source: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A machine whose memory flips a bit between sealing and cutting writes parity of something else."""
        really = pack_shards.split

        def split(data: bytes, coding: tuple[int, int]) -> list[bytes]:
            made = really(data, coding)
            return [*made[:-1], bytes([made[-1][0] ^ 1]) + made[-1][1:]]

        with monkeypatch.context() as patch:
            patch.setattr(pack_shards, "split", split)
            [done] = (await world.backup()).datasets
            assert isinstance(done.error, IntegrityError)
            assert "do not give it back" in str(done.error)
            assert cut_packs(world) == {}
            patch.setattr(pack_shards, "_try", lambda *_: None)  # as another program may do without
            await backed_up(world)
        checked = await world.verify()
        assert any("names another shard 5 of it" in problem for problem in checked.problems)
        found = next(iter(cut_packs(world).values()))
        world.silence(holder(world, found.rows[0]), holder(world, found.rows[1]))
        target = os.path.join(world.root, "target")
        report = await world.restore(target)
        assert any("are not its own" in one for one in report.lost), "nothing is taken for what it is not"

    @pytest.mark.parametrize("wrong", ["too few", "twice", "itself", "of a small pack", "of a tree pack"])
    def test_an_index_that_contradicts_itself_is_refused(self, wrong: str, world: World) -> None:
        names = [bytes([number]) * 32 for number in range(6)]
        whole = IndexedPack(
            name=bytes([9]) * 32, size=4 * MIB, kind=1, policy=policy_id(CODED), shards=list(names), ids=bytes(32)
        )
        pack = {
            "too few": msgspec.structs.replace(whole, shards=names[:5]),
            "twice": msgspec.structs.replace(whole, shards=[*names[:5], names[0]]),
            "itself": msgspec.structs.replace(whole, shards=[*names[:5], whole.name]),
            "of a small pack": msgspec.structs.replace(whole, size=MIB // 2),
            "of a tree pack": msgspec.structs.replace(whole, kind=2),
        }[wrong]
        node = world.node()
        try:
            index = Index(
                tenant=node.tenant,
                domain=node.domain_ids[0],
                writer=node.identity,
                created_ns=1,
                policies=[CODED],
                packs=[pack],
            )
            with pytest.raises(IntegrityError, match="shards of it, its policy makes"):
                take_index(node, ObjectName(bytes([8]) * 32), index, 65536, node.identity)
            assert node.catalog.objects.by_name(pack.name) is None
        finally:
            node.close()

    async def test_a_dead_pack_that_names_what_others_need_kills_none_of_it(self, world: World, source: str) -> None:
        await backed_up(world)
        victim = next(iter(cut_packs(world).values()))
        keeper = world.keeper()
        try:
            async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
                await Library(keeper, federation).refresh()
            objects = keeper.catalog.objects
            names = [row.name for row in victim.rows]
            dead = objects.add(
                name=bytes([7]) * 32,
                writer=bytes(32),
                kind="data",
                size=4 * MIB,
                policy=policy_id(CODED),
                spooled=False,
                created_ns=1,
                chunk_ids=bytes(32),
                shards=names,
                needed=4,
            )
            assert {row.name for row in objects.stored(objects.all("id = ?", (dead,)))} == set(names)
            assert objects.shards_only_of({dead}) == set()
            objects.forget([dead])
            assert stored_names(keeper, cut_packs(world).keys()) >= set(names)
            assert all(objects.by_name(name) is not None for name in names)
        finally:
            keeper.close()

    async def test_whole_objects_that_a_dead_pack_names_as_its_shards_are_relied_on_still(
        self, world: World, source: str
    ) -> None:
        await backed_up(world)
        others = [row.name for row in rows(world, "tree", "index", "references", "snapshot")]
        others += [row.name for row in next(iter(cut_packs(world).values())).rows]
        node = world.node()
        try:
            objects = node.catalog.objects
            dead = objects.add(
                name=bytes([7]) * 32,
                writer=bytes(32),
                kind="data",
                size=4 * MIB,
                policy=policy_id(CODED),
                spooled=False,
                created_ns=1,
                chunk_ids=bytes(32),
                shards=[*others[:5], bytes([8]) * 32],
                needed=4,
            )
            [own] = objects.by_names([bytes([8]) * 32])
            assert objects.shards_only_of({dead}) == {own.id}
        finally:
            node.close()


@pytest.mark.process
async def test_a_restore_that_could_have_a_fetching_process_joins_shards_itself(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await backed_up(world)

    def started(*_args: object, **_more: object) -> None:
        raise AssertionError("it knows of no shards")

    monkeypatch.setattr(MemoryConnection, "reach", lambda _: object())
    monkeypatch.setattr("replicator.engine.fetchers.Fetchers", started)
    monkeypatch.setattr(restore, "LARGE", 1)  # the processes, and slots to fetch into, are there from the first pack on
    filled: list[int] = []
    real = ChunkFetcher._fill

    async def note(fetcher: ChunkFetcher, pack: int, *values: Any) -> int:
        filled.append(pack)
        return await real(fetcher, pack, *values)

    monkeypatch.setattr(ChunkFetcher, "_fill", note)
    world.silence(0, 1)
    target = os.path.join(world.root, "target")
    report = await world.restore(target, writers=2)
    assert (report.lost, report.damaged, report.gaps) == ([], [], [])
    assert len(filled) >= len(cut_packs(world))


@pytest.mark.process
async def test_what_several_windows_need_of_a_pack_that_is_cut_is_fetched_once(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await backed_up(world)
    once = await world.restore(os.path.join(world.root, "once"))
    monkeypatch.setattr(restore, "LARGE", 1)  # the processes are there from the first pack on
    monkeypatch.setattr(restore, "WINDOW", 2)
    monkeypatch.setattr(Writers, "keep", lambda *_: False)  # as if more were needed than there are slots
    filled: Counter[int] = Counter()
    real = ChunkFetcher._fill

    async def count(fetcher: ChunkFetcher, pack: int, slot: int, memory: Held, slots: Slots) -> int:
        filled[pack] += 1
        return await real(fetcher, pack, slot, memory, slots)

    monkeypatch.setattr(ChunkFetcher, "_fill", count)
    report = await world.restore(os.path.join(world.root, "target"), writers=2)
    assert (report.files, report.lost, report.damaged, report.gaps) == (once.files, [], [], [])
    assert max(filled.values()) > 1
    assert report.fetched_bytes <= once.fetched_bytes


async def test_what_was_swept_is_known_no_more_and_nothing_else(world: World, source: str) -> None:
    await backed_up(world)
    old = cut_packs(world)
    for number in range(6):
        write(os.path.join(source, f"{number}.raw"), SeededRng(f"new {number}").bytes(900_000))
    write(os.path.join(source, "letter.txt"), b"Dear writer,\n" * 300)  # nothing of the first index is needed
    world.clock.advance(DAY_S)
    await backed_up(world)
    await keep(world, KeepRules(last=1))
    await pruned(world)
    days_pass(world)
    await pruned(world)
    keeper = world.keeper()
    try:
        known = {row.name for row in keeper.catalog.objects.all()}
        living = {name for name in cut_packs(world) if name not in old}
        shards_of = keeper.catalog.objects.shards()
    finally:
        keeper.close()
    assert living <= known
    assert not {row.name for one in old.values() for row in one.rows} & known
    assert all(len(one.rows) == SHARDS for one in shards_of.values())
    await whole(world, source)


async def test_shards_of_a_pack_that_this_home_stored_and_no_index_lists_go_as_others_do(
    world: World, source: str
) -> None:
    await backed_up(world)
    listed = next(iter(cut_packs(world).values())).rows[0].name
    rng = SeededRng("repacking that was stopped")
    left = [rng.bytes(MIB) for _ in range(5)]
    keeper = world.keeper()
    try:
        keeper.catalog.objects.add(
            name=bytes([7]) * 32,
            writer=keeper.identity,
            kind="data",
            size=4 * MIB,
            policy=policy_id(CODED),
            spooled=False,
            created_ns=1,
            chunk_ids=bytes(32),
            shards=[*map(name_of, left), listed],
            needed=4,
        )
        async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
            for link, data in zip(list(federation.links.values()), left, strict=False):
                await link.connection.put(ObjectName(name_of(data)), data)
    finally:
        keeper.close()
    assert (await pruned(world)).unnamed == []
    world.clock.advance(8 * DAY_S)
    report = await pruned(world)
    assert {(one.name, one.kind) for one in report.unnamed} == {(name_of(data), "shard") for data in left}
    assert not any("opened by no key" in one for one in report.stays)
    days_pass(world)
    lying = {name for number in range(SHARDS) for name in os.listdir(world.objects(number))}
    assert not lying & {name_of(data).hex() for data in left}
    assert listed.hex() in lying
    await whole(world, source)


async def test_shards_that_a_lost_machine_never_listed_go_after_a_week(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await backed_up(world)
    copy = shutil.copytree(source, os.path.join(world.root, "as it was", "docs"))
    for number in range(6):
        write(os.path.join(source, f"{number}.raw"), SeededRng(f"never published {number}").bytes(900_000))
    left = await given_up(world, monkeypatch)
    assert max(len(read(os.path.join(world.objects(0), name))) for name in left[0]) >= MIB
    first = await pruned(world)
    assert (first.unnamed, len(first.stays)) == ([], 1)
    world.clock.advance(8 * DAY_S)
    report = await pruned(world)
    assert {one.name.hex() for one in report.unnamed} == set.union(*left)
    assert sum(one.kind == "shard" for one in report.unnamed) >= SHARDS
    days_pass(world)
    assert not any(set(os.listdir(world.objects(number))) & left[number] for number in range(SHARDS))
    assert await world.differences(copy, "latest:docs") == []


async def test_what_lies_on_a_leaving_provider_moves_as_the_shard_it_is(world: World, source: str) -> None:
    await backed_up(world)
    before = cut_packs(world)
    await joined(world, 6)
    node = world.node()
    try:
        async with Federation(node, world.edge) as federation:
            ground = Ground(node, federation)
            ground.refresh()
            rows_ = [row for row in node.catalog.objects.all() if row.kind in {"data", "tree"}]
            by_name = {pack_id(row.name): row for row in rows_}
            counted = ground.counted(rows_)
            cut = [row for row in rows_ if ground.shards(row) is not None]
            leaving, there = peer_id(world.identity(2)), peer_id(world.identity(6))
            moves: list[dict[str, object]] = [{"pack": pack_id(row.name), "from": leaving, "to": there} for row in cut]
            moves.append({"pack": pack_id(cut[0].name), "from": None, "to": there})
            found = moved_objects(ground, by_name, moves)
            assert planned_moves(ground, rows_)["moves"] == [], "a peer that joins moves nothing"
    finally:
        node.close()
    for row, (shard, to) in zip(cut, found, strict=False):
        assert to == there
        assert shard.name == before[row.name].rows[counted[pack_id(row.name)][leaving]].name


async def test_simulate_knows_how_many_shards_suffice(world: World, source: str) -> None:
    await backed_up(world)
    node = world.node()
    try:
        scene = home_scene(node, world.edge)
    finally:
        node.close()
    cut, uncut = scene.cases
    assert (cut.policy.needed, cut.policy.copies, cut.supposed, len(cut.placement)) == (
        4,
        6,
        False,
        len(cut_packs(world)),
    )
    assert (uncut.policy.needed, uncut.policy.copies) == (1, 3)
    found = simulate(scene, Hazards())
    assert [(one.needed, one.fewest, one.gone) for one in found.outlooks] == [(4, 6, 0), (1, 3, 0)]
    assert {left.kind: (left.copies, left.lost) for left in found.outlooks[0].left}["peer"] == (5, 0)
