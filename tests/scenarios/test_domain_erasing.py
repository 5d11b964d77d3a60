"""A domain is erased: nobody writes into it or reads it, the rest stays whole, and a stopped run is finished."""

import dataclasses
import os
from collections.abc import Callable
from contextlib import suppress

import pytest

from replicator.crypto.recovery import from_words, root_of, to_words
from replicator.engine.browse import Library
from replicator.engine.closing import Closing, KeybagsAt, carry_out, find_keybags, keybags_at, look
from replicator.engine.federation import Federation
from replicator.engine.inspect import verify_content
from replicator.engine.keeper import KeeperHome, domain_file
from replicator.engine.keys import change_passphrase, check_sheet, check_wrapped, rotate_index
from replicator.engine.node import NodeHome
from replicator.engine.recover import recover
from replicator.engine.sync import sync_all
from replicator.engine.tenant import open_keybag
from replicator.errors import (
    IntegrityError,
    KeyMissingError,
    KeyWrongError,
    MinimumNotMetError,
    NotFoundError,
    ReplicatorError,
    UnreachableError,
    UsageError,
)
from replicator.format.keybag import JoiningRole
from replicator.ids import Identity
from replicator.transport.memory import Phase
from tests.crashfs import Crash, CrashFs
from tests.scenarios.conftest import Worlds
from tests.scenarios.joining import joined, keeping, opened
from tests.scenarios.test_domains import added, both, dataset_in
from tests.scenarios.test_pruning import days_pass, pruned
from tests.scenarios.world import PASSPHRASE, World, read, write


@pytest.fixture
def world(worlds: Worlds) -> World:
    """As many providers as a copy needs, as days pass quicker at fewer."""
    return worlds(3)


def words_of(world: World) -> list[str]:
    assert world.tenant is not None
    return world.tenant.words


async def looked(world: World, name: str = "private") -> Closing:
    with keeping(world) as (keeper, siblings):
        return await look(keeper, siblings, world.edge, words_of(world), name)


async def erased(world: World) -> list[KeybagsAt]:
    """Erase the second domain as the command does; return what is to become of keybags."""
    with keeping(world) as (keeper, siblings):
        found = await look(keeper, siblings, world.edge, words_of(world), "private")
        await carry_out(keeper, siblings, world.edge, found)
        lying, problems = await find_keybags(keeper, world.edge, words_of(world), found.id)
        assert problems == []
    assert (await pruned(world)).plan.gaps == []
    with keeping(world) as (keeper, _):
        return await keybags_at(keeper, world.edge, lying)


def end(world: World, name: str) -> None:
    node = world.node()
    node.catalog.datasets.remove(name)
    node.close()


def openable(world: World, domain: bytes) -> int:
    """Return how many stored objects are keybags from which the sheet gets the domain's restore key."""
    root, count = root_of(from_words(words_of(world))), 0
    for number in range(3):
        for name in os.listdir(world.objects(number)):
            with suppress(ReplicatorError):  # it is something else
                bag = open_keybag(root, read(os.path.join(world.objects(number), name)))
                count += any(one.id == domain for one in bag.domains)
    return count


async def test_it_goes_with_its_keys_and_the_rest_stays_whole(world: World) -> None:
    domain, source, _ = await both(world)
    with keeping(world) as (keeper, siblings):
        await rotate_index(keeper, siblings, world.edge)
        path = keeper.file(domain_file(domain))
    assert os.path.exists(path)  # noqa: ASYNC240 - in memory
    end(world, "papers")
    before = sum(len(world.stored(number)) for number in range(3))
    found = await looked(world)
    assert (len(found.snapshots), found.writing, found.unread, found.erased_ns) == (1, [], [], 0)
    at = await erased(world)
    assert not os.path.exists(path)  # noqa: ASYNC240 - in memory
    assert openable(world, domain) == 6, "two of before, at each provider"
    assert [(one.there, one.marked, one.done, one.until_ns > world.clock.now_ns()) for one in at] == [
        (2, 2, True, True)
    ] * 3
    assert {one.details.dataset for one in await world.snapshots()} == {"docs"}
    with keeping(world) as (keeper, siblings):
        with pytest.raises(KeyMissingError, match=r"'private' was erased on \d{4}-"):
            keeper.reader(domain)
        with pytest.raises(KeyMissingError, match=r"'private' was erased on \d{4}-"):
            siblings[0].domain_named("private")
        assert [one.problem for one in await check_sheet(keeper, world.edge, words_of(world))] == [""] * 5
        assert [one.problem for one in check_wrapped(keeper, world.clock.now_ns())] == [""] * 4
    assert days_pass(world) > 6
    assert openable(world, domain) == 0
    assert sum(len(world.stored(number)) for number in range(3)) < before
    write(os.path.join(source, "more"), b"more" * 1000)
    assert all(one.published for one in (await world.backup()).datasets)
    assert await world.differences(source, "latest:docs") == []
    assert (await world.status()).exit_code == 0
    again = await erased(world)
    assert [(one.there, one.done) for one in again] == [(0, True)] * 3
    assert [one.objects for one in (await pruned(world)).at] == [0] * 3, "nothing of it lies anywhere"


async def test_it_is_refused_while_somebody_writes_into_it(world: World) -> None:
    domain, _, second = await both(world)
    with pytest.raises(UsageError, match="dataset 'papers' of"):
        await erased(world)
    home = await joined(world, "node", "far")
    end(world, "papers")
    far = opened(home, "node")
    node = world.node()
    docs = node.catalog.datasets.get("docs")
    theirs = dataclasses.replace(docs, name="theirs", domain=domain, roots=(second.encode(),))
    node.close()
    far.catalog.datasets.add(theirs)
    far.close()
    await world.backup(home=home)
    found = await looked(world)
    assert len(found.writing) == 1
    assert "dataset 'theirs' of far, last on" in found.writing[0]
    with pytest.raises(UsageError, match="theirs"):
        await erased(world)
    keeper = world.keeper()
    assert domain in keeper.living_ids
    keeper.close()


async def test_a_snapshot_that_cannot_be_read_stops_it_and_no_key_is_touched(world: World) -> None:
    domain, _, _ = await both(world)
    end(world, "papers")
    await looked(world)
    keeper = world.keeper()
    names = [row.name.hex() for row in keeper.catalog.snapshots.all()]
    keeper.close()
    for number in range(3):
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(world.objects(number), name))
    found = await looked(world)
    assert found.unsure
    with pytest.raises((NotFoundError, IntegrityError), match="not all is known"):
        await erased(world)
    keeper = world.keeper()
    assert domain in keeper.living_ids
    assert os.path.exists(keeper.file(domain_file(domain)))  # noqa: ASYNC240 - in memory
    keeper.close()


async def test_a_provider_that_was_away_is_done_in_the_next_run(world: World) -> None:
    domain, _, _ = await both(world)
    end(world, "papers")
    world.silence(2)
    at = await erased(world)
    assert [one.done for one in at].count(False) == 1
    world.answer(2)
    assert all(one.done for one in await erased(world))
    days_pass(world)
    assert openable(world, domain) == 0


async def test_its_keys_stay_while_a_node_elsewhere_could_publish_without_having_heard(world: World) -> None:
    domain, _, _ = await both(world)
    home = await joined(world, "node", "far")
    end(world, "papers")
    far, node = opened(home, "node"), world.node()
    late = dataclasses.replace(node.catalog.datasets.get("docs"), name="late", domain=domain)
    assert isinstance(far, NodeHome)
    far.catalog.datasets.add(late)
    node.close()
    far.close()
    world.silence(0, 1)  # two of three: as many as its policy's minimum
    with pytest.raises(MinimumNotMetError):
        await erased(world)  # what is forgotten has to be told first
    world.answer(0, 1)

    def deaf(identity: Identity, op: str, _phase: Phase) -> None:
        if op == "charter" and identity != world.identity(2):
            raise UnreachableError("a peer", "went away")

    world.network.faults = deaf
    with keeping(world) as (keeper, siblings):
        found = await look(keeper, siblings, world.edge, words_of(world), "private")
        await carry_out(keeper, siblings, world.edge, found)
        assert len(found.unheard) == 2
        assert os.path.exists(keeper.file(domain_file(domain)))  # noqa: ASYNC240 - in memory
    world.silence(2)
    [done] = (await world.backup(home=home)).datasets
    assert done.published, "nobody it reaches had heard"
    world.answer(2)
    world.network.faults = lambda *_: None
    [done] = (await world.backup(home=home)).datasets
    assert "'private' was erased on" in str(done.error)
    with keeping(world) as (keeper, siblings):
        found = await look(keeper, siblings, world.edge, words_of(world), "private")
        assert found.erased_ns
        await carry_out(keeper, siblings, world.edge, found)
        assert found.unheard == []
        assert not os.path.exists(keeper.file(domain_file(domain)))  # noqa: ASYNC240 - in memory


async def test_its_keys_go_at_once_if_that_is_said_or_nobody_could_publish_unheard(world: World) -> None:
    world.small_dataset()
    await world.backup()
    for at_once, silent in ((True, (0, 1)), (False, (0,))):
        name = f"private {at_once}"
        domain = await added(world, name)
        if at_once:
            await joined(world, "node", "far")

        def deaf(identity: Identity, op: str, _phase: Phase, silent: tuple[int, ...] = silent) -> None:
            if op == "charter" and identity in {world.identity(number) for number in silent}:
                raise UnreachableError("a peer", "went away")

        with keeping(world) as (keeper, siblings):
            found = await look(keeper, siblings, world.edge, words_of(world), name)
            world.network.faults = deaf
            await carry_out(keeper, siblings, world.edge, found, at_once=at_once)
            world.network.faults = lambda *_: None
            assert found.unheard == []
            assert not os.path.exists(keeper.file(domain_file(domain)))  # noqa: ASYNC240 - in memory


async def test_which_domain_and_whose_sheet_is_asked_first(world: World) -> None:
    with pytest.raises(UsageError, match="only domain"):
        await looked(world, "main")
    await added(world)
    with pytest.raises(UsageError, match="names none"):
        await looked(world, "main")
    with pytest.raises(NotFoundError, match="main, private"):
        await looked(world, "public")
    with keeping(world) as (keeper, siblings), pytest.raises(KeyWrongError):
        await look(keeper, siblings, world.edge, to_words(bytes(32)), "private")


async def test_no_node_writes_into_it_any_more_and_its_name_is_not_given_again(world: World) -> None:
    domain, _, _ = await both(world)
    end(world, "papers")
    await erased(world)
    dataset_in(world, domain, "late")
    report = await world.backup()
    assert {one.dataset: one.published for one in report.datasets} == {"docs": True, "late": False}
    [late] = [one for one in report.datasets if one.dataset == "late"]
    assert "'private' was erased on" in str(late.error)
    with pytest.raises(UsageError, match="was erased"):
        await added(world)
    await added(world, "other")


@pytest.mark.parametrize("role", ["node", "maintainer", "drill"])
async def test_one_that_joins_later_reads_the_rest_and_blames_nobody(role: JoiningRole, world: World) -> None:
    domain, _, _ = await both(world)
    end(world, "papers")
    await erased(world)
    half = opened(await joined(world, role, "late"), role)
    assert domain not in half.living_ids
    async with Federation(half, world.edge) as federation:
        await sync_all(half, federation)
        assert federation.integrity == []
        assert len(half.catalog.snapshots.all()) == (2 if role == "maintainer" else 1)
    half.close()


async def test_the_sheet_brings_back_the_rest(world: World) -> None:
    domain, source, _ = await both(world)
    end(world, "papers")
    await erased(world)
    home = os.path.join(world.root, "recovered")
    address = f"somewhere.example:7144/{world.identity(2).hex()}"
    await recover(home, world.edge, words=words_of(world), addresses=[address], passphrase=PASSPHRASE)
    old, world.keeper = world.keeper, lambda *_: old(home, PASSPHRASE)  # type: ignore[method-assign]
    assert await world.differences(source, "latest:docs") == []
    keeper = world.keeper()
    assert (domain in keeper.domain_ids, [one.name for one in keeper.private.erased]) == (False, ["private"])
    change_passphrase(keeper, world.edge, PASSPHRASE, keeper.cost())
    keeper.close()
    assert (await pruned(world, beside=False)).plan.gaps == []


async def test_what_is_left_is_verified_to_its_content(world: World) -> None:
    await both(world)
    end(world, "papers")
    await erased(world)
    keeper = world.keeper()
    async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
        library = Library(keeper, federation)
        await library.refresh()
        report = await verify_content(library, world.edge, share=1.0)
    keeper.close()
    assert (report.problems, report.absent, report.fetched > 0) == ([], [], True)


@pytest.mark.slow
async def test_stopped_anywhere_another_run_finishes_it(worlds: Callable[[int], World], fresh: str) -> None:
    for step in range(200):
        one = worlds(3)
        domain, source, _ = await both(one)
        end(one, "papers")
        fs = CrashFs(os.path.join(fresh, f"graveyard-{step}"))
        keeper = KeeperHome(one.home, fs, lambda _: PASSPHRASE)
        node = one.node()
        found = await look(keeper, [node], one.edge, words_of(one), "private")
        node.close()
        fs.stop_at(step)
        try:
            await carry_out(keeper, [], dataclasses.replace(one.edge, fs=fs), found)
        except Crash:
            stopped = True
        else:
            stopped = False
        keeper.close()
        if stopped:
            fs.power_loss(keep=lambda _: False, torn=False)
        fs.close()
        assert all(each.done for each in await erased(one))
        again = one.keeper()
        assert domain_file(domain) not in again.key_files()
        bag = again.keybag_object()
        assert bag is not None
        assert domain not in {each.id for each in open_keybag(root_of(from_words(words_of(one))), bag[1]).domains}
        assert not os.path.exists(again.file(domain_file(domain)))  # noqa: ASYNC240 - in memory
        again.close()
        assert await one.differences(source, "latest:docs") == []
        if not stopped:
            break
    assert 10 < step < 199, "some steps, and in the end all of them"
