"""Several domains in one tenant: no chunk shared, a restore key each, and all the rest as with one."""

import asyncio
import dataclasses
import os
from collections.abc import Callable

import pytest

from replicator.catalog.snapshots import Dataset
from replicator.crypto.recovery import from_words, root_of
from replicator.engine.browse import ChunkFetcher, Library
from replicator.engine.domains import add_domain
from replicator.engine.drill import drill
from replicator.engine.federation import Federation
from replicator.engine.inspect import verify_content
from replicator.engine.keeper import KeeperHome
from replicator.engine.keys import change_passphrase, check_sheet, check_wrapped, rotate_index
from replicator.engine.mount import Mounted, MountReport, Shown
from replicator.engine.mounting import Reach
from replicator.engine.packmemory import Chunks, PackMemory
from replicator.engine.recover import recover
from replicator.engine.sync import sync_all
from replicator.engine.tenant import open_keybag
from replicator.errors import KeyMissingError, NotFoundError, UsageError
from replicator.format.keybag import JoiningRole
from replicator.snapshot.retention import KeepRules
from tests.crashfs import Crash, CrashFs
from tests.fakes import SeededRng
from tests.scenarios.joining import joined, keeping, opened
from tests.scenarios.test_forgetting import keep
from tests.scenarios.test_pruning import days_pass, pruned
from tests.scenarios.world import PASSPHRASE, PROMISE, World, read, small_tree, write

NEW = "another passphrase"


async def added(world: World, name: str = "private") -> bytes:
    """Make a domain; return its id."""
    with keeping(world) as (keeper, siblings):
        made = await add_domain(keeper, siblings, world.edge, name)
    assert made.notices == []
    return made.id


def dataset_in(world: World, domain: bytes, name: str) -> str:
    """Make a dataset in a domain, with the same files as every other; return its folder."""
    path = small_tree(os.path.join(world.root, "source", name), "docs")
    world.add_dataset(name, path)
    node = world.node()
    node.catalog.datasets.update(dataclasses.replace(node.catalog.datasets.get(name), domain=domain))
    node.close()
    return path


async def both(world: World) -> tuple[bytes, str, str]:
    """Back up the same files into two domains; return the second, and the folders."""
    source = dataset_in(world, b"", "docs")
    domain = await added(world)
    second = dataset_in(world, domain, "papers")
    report = await world.backup()
    assert [one.published for one in report.datasets] == [True, True]
    return domain, source, second


async def test_the_same_files_in_two_domains_share_nothing_and_both_come_back(world: World) -> None:
    domain, source, second = await both(world)
    found = {one.details.dataset: one.snapshot for one in await world.snapshots()}
    assert found["papers"].domain == domain != found["docs"].domain
    assert not set(found["papers"].indexes) & set(found["docs"].indexes)
    assert await world.differences(source, "latest:docs") == []
    assert await world.differences(second, "latest:papers") == []
    write(os.path.join(second, "more"), b"more" * 1000)
    assert all(one.published for one in (await world.backup()).datasets)
    assert await world.differences(second, "latest:papers") == []
    assert (await world.status()).exit_code == 0


async def test_every_pack_is_opened_with_the_keys_of_its_own_domain(world: World) -> None:
    await both(world)
    keeper = world.keeper()
    async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
        library = Library(keeper, federation)
        await library.refresh()
        report = await verify_content(library, world.edge, share=1.0)
        packs = [row for row in keeper.catalog.objects.all() if row.kind in {"data", "tree"}]
    keeper.close()
    assert report.problems == []
    assert report.fetched >= len(packs) >= 4
    victim = world.stored(0)[-1]
    for number in range(5):
        path = os.path.join(world.objects(number), os.path.basename(victim))
        if os.path.exists(path):  # noqa: ASYNC240 - in memory
            write(path, read(path)[:-100] + bytes(100))
    keeper = world.keeper()
    async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
        library = Library(keeper, federation)
        await library.refresh()
        report = await verify_content(library, world.edge, share=1.0)
    keeper.close()
    assert len(report.absent) + len(report.problems) > 0


async def test_an_index_rotation_gives_both_domains_a_new_epoch(world: World) -> None:
    domain, _, second = await both(world)
    with keeping(world) as (keeper, siblings):
        assert await rotate_index(keeper, siblings, world.edge) == []
        assert [one.epoch for one in keeper.private.domains] == [2, 2]
        assert sorted(siblings[0].keys(domain).index_keys) == [1, 2]
    write(os.path.join(second, "more"), b"more" * 1000)
    assert all(one.published for one in (await world.backup()).datasets)
    assert await world.differences(second, "latest:papers") == []


async def test_the_sheet_brings_back_what_is_in_every_domain(world: World) -> None:
    _, source, second = await both(world)
    assert world.tenant is not None
    keeper = world.keeper()
    assert [one.problem for one in await check_sheet(keeper, world.edge, world.tenant.words)] == [""] * 7
    assert [one.problem for one in check_wrapped(keeper, world.clock.now_ns())] == [""] * 6
    change_passphrase(keeper, world.edge, NEW, keeper.cost())
    keeper.close()
    home = os.path.join(world.root, "recovered")
    address = f"somewhere.example:7144/{world.identity(3).hex()}"
    await recover(home, world.edge, words=world.tenant.words, addresses=[address], passphrase=NEW)
    old, world.keeper = world.keeper, lambda *_: old(home, NEW)  # type: ignore[method-assign]
    assert await world.differences(source, "latest:docs") == []
    assert await world.differences(second, "latest:papers") == []


@pytest.mark.parametrize("role", ["node", "maintainer"])
async def test_members_that_joined_before_are_given_its_keys_by_the_charter(role: JoiningRole, world: World) -> None:
    home = await joined(world, role, "far")
    domain = await added(world)
    half = opened(home, role)
    with pytest.raises(KeyMissingError):
        half.keys(domain)
    async with Federation(half, world.edge):
        pass
    keys = half.keys(domain)
    half.close()
    assert (keys.mix != b"") == (role == "node"), "a maintainer names no chunk"
    again = opened(home, role)
    assert again.keys(domain).index_keys == keys.index_keys
    with keeping(world) as (keeper, siblings):
        await rotate_index(keeper, siblings, world.edge)
    async with Federation(again, world.edge):
        pass
    assert sorted(again.keys(domain).index_keys) == [1, 2]
    again.close()


async def test_one_that_joins_later_has_it_from_the_beginning(world: World) -> None:
    domain = await added(world)
    home = await joined(world, "drill", "attic")
    half = opened(home, "drill")
    assert domain in half.domain_ids
    half.close()


async def test_a_drill_host_that_was_not_given_it_reads_the_rest_and_says_what_it_passes_over(world: World) -> None:
    home = await joined(world, "drill", "attic")
    await both(world)
    write(os.path.join(world.root, "source", "docs", "more"), b"more" * 1000)
    await world.backup()
    half = opened(home, "drill")
    assert len(half.domain_ids) == 1
    async with Federation(half, world.edge) as federation:
        library = Library(half, federation)  # type: ignore[arg-type]  # a drill host
        await library.refresh()
        found = await library.snapshots()
        assert {one.details.dataset for one in found} == {"docs"}
        assert len(found) == 2, "it reads past the ones that it cannot open"
        assert federation.integrity == []
        assert any("of domain private" in text for text in federation.notices)
    half.close()


async def test_a_node_that_writes_beside_another_sees_its_snapshots_in_all_domains(world: World) -> None:
    home = await joined(world, "node", "far")
    await both(world)
    half = opened(home, "node")
    async with Federation(half, world.edge) as federation:
        await sync_all(half, federation)
        assert (federation.integrity, len(half.catalog.snapshots.all())) == ([], 2)
    half.close()


async def test_a_dataset_moved_to_another_domain_is_stored_anew_and_both_are_read(world: World) -> None:
    source = dataset_in(world, b"", "docs")
    await world.backup()
    domain = await added(world)
    node = world.node()
    node.catalog.datasets.update(dataclasses.replace(node.catalog.datasets.get("docs"), domain=domain))
    node.close()
    assert (await world.backup()).datasets[0].published
    first, last = await world.snapshots()
    assert (first.snapshot.domain != domain, last.snapshot.domain) == (True, domain)
    assert not set(first.snapshot.references) & set(last.snapshot.references)
    for one in (first, last):
        assert await world.differences(source, one.id) == []


async def test_prune_frees_in_each_domain_what_nothing_there_needs(world: World) -> None:
    _, source, second = await both(world)
    for path in (source, second):
        write(os.path.join(path, "gone tomorrow"), SeededRng(path).bytes(300_000))
    await world.backup()
    for path in (source, second):
        os.unlink(os.path.join(path, "gone tomorrow"))
    await world.backup()
    await keep(world, KeepRules(last=1))
    report = await pruned(world)
    assert (report.exit_code, report.plan.gaps) == (0, [])
    assert sum(one.kind == "data" for one in report.plan.dead) >= 2, "some of each domain"
    assert days_pass(world) > 10
    assert await world.differences(source, "latest:docs") == []
    assert await world.differences(second, "latest:papers") == []


def _read_there(mounted: Mounted, path: str) -> bytes:
    """Read a file as a thread of libfuse does."""
    found = mounted.get(path.encode())
    assert found is not None
    return mounted.open(found).read(0, 1 << 26)


async def test_drills_and_mounts_read_every_domain(world: World, fresh: str) -> None:
    _, source, second = await both(world)
    keeper = world.keeper()
    async with Federation(keeper, world.edge, ticket=lambda _: keeper.ticket()) as federation:
        library = Library(keeper, federation)
        await library.refresh()
        for name, path in (("docs", source), ("papers", second)):
            snapshot = await library.find(f"latest:{name}")
            report = await drill(library, world.edge, snapshot, scratch=fresh)
            assert report.exit_code == 0
            reach = Reach(federation, world.edge, MountReport(pytest.fail))
            memory = PackMemory(world.clock, redial=reach.redial, settled=reach.settle)
            source_of = Chunks(memory, ChunkFetcher(library, snapshot.snapshot.domain), reach.told)
            mounted = Mounted([Shown(snapshot=snapshot, source=source_of)], owner=(0, 0), direct=True)
            got = await asyncio.to_thread(_read_there, mounted, f"{name}/photos/one.raw")
            await memory.close()
            assert got == read(os.path.join(path, "photos", "one.raw"))
    keeper.close()


async def test_names_of_domains_are_told(world: World) -> None:
    domain = await added(world)
    with pytest.raises(UsageError, match="already"):
        await added(world)
    node = world.node()
    assert node.domain_named("private").id == domain
    with pytest.raises(NotFoundError, match="there are: main, private"):
        node.domain_named("public")
    node.close()


@pytest.mark.slow
async def test_stopped_anywhere_no_keybag_is_ever_without_a_domain_that_the_charter_has(
    worlds: Callable[[int], World], fresh: str
) -> None:
    for step in range(0, 80, 4):
        one = worlds(0)
        assert one.tenant is not None
        fs = CrashFs(os.path.join(fresh, f"graveyard-{step}"))
        keeper = KeeperHome(one.home, fs, lambda _: PASSPHRASE)
        fs.stop_at(step)
        try:
            await add_domain(keeper, [], dataclasses.replace(one.edge, fs=fs), "private")
        except Crash:
            stopped = True
        else:
            stopped = False
        keeper.close()
        if stopped:
            fs.power_loss(keep=lambda _: False, torn=False)
        fs.close()
        again = one.keeper()
        if len(again.private.domains) == 1:
            await add_domain(again, [], one.edge, "private")
        await rotate_index(again, [], one.edge)
        found = again.keybag_object()
        assert found is not None
        bag = open_keybag(root_of(from_words(one.tenant.words)), found[1])
        assert [each.id for each in bag.domains] == [each.id for each in again.private.domains]
        assert len(bag.domains) == 2
        again.close()
        if not stopped:
            break
    assert step > 5


def test_a_dataset_keeps_its_domain_on_disk(world: World) -> None:
    domain = bytes(range(16))
    world.small_dataset("docs")
    node = world.node()
    before = read(node.file("datasets.bin"))
    node.catalog.datasets.add(
        Dataset(
            name="papers",
            roots=(b"/papers",),
            policy=PROMISE,
            exclude=(),
            one_file_system=False,
            created_ns=1,
            domain=domain,
        )
    )
    assert (before[1], read(node.file("datasets.bin"))[1]) == (2, 3), "an earlier build reads what needs no domain"
    again = world.node()
    assert {one.name: one.domain for one in again.catalog.datasets.all()} == {"docs": b"", "papers": domain}
    again.catalog.datasets.remove("papers")
    assert read(node.file("datasets.bin")) == before
    again.close()
    node.close()
