"""The whole line: what is backed up comes back, and what has not changed costs nothing."""

import os
import shutil
from pathlib import Path

import pytest

from replicator.engine.members import accept_grant, add_node, request_node
from tests.compare import Rules, compare
from tests.fakes import SeededRng
from tests.scenarios.world import World, read, small_tree, write
from tests.snapshot import nasty
from tests.snapshot.fakesource import FakeSource


async def test_a_nasty_tree_comes_back_as_it_was(world: World, tmp_path: Path) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    nasty.build(top)
    if os.geteuid():
        nasty.take_privileges(top)
    (top / "socket").unlink()  # nobody listens after a restore
    world.add_dataset("tree", str(top))
    report = await world.backup()
    [done] = report.datasets
    assert done.error is None
    assert done.published
    await world.restore(str(tmp_path / "out"))
    assert compare(top, tmp_path / "out" / "tree", Rules(owners=os.geteuid() == 0)) == []


async def test_a_second_backup_reads_only_what_changed_and_sends_little(world: World, source: str) -> None:
    first = await world.backup()
    write(os.path.join(source, "photos", "two.raw"), b"new bytes")
    opened: list[bytes] = []
    watching = FakeSource(lambda step, path: opened.append(os.path.basename(path)) if step == "open" else None)
    second = await world.backup(source=watching)
    [done] = second.datasets
    assert opened == [b"two.raw"]
    assert done.bytes_read == len(b"new bytes")
    assert done.unchanged == 3
    assert done.new_chunks < 6
    assert second.sent_bytes < first.sent_bytes
    assert second.sent_objects <= 2 * 3 + 3 * 5, "one data and one tree pack thrice, three records everywhere"
    assert await world.differences(source) == []


async def test_a_backup_of_nothing_new_sends_records_and_no_packs(world: World, source: str) -> None:
    await world.backup()
    report = await world.backup()
    [done] = report.datasets
    assert done.published
    assert (done.new_chunks, done.stored_bytes, done.bytes_read) == (0, 0, 0)
    assert report.sent_objects == 5, "one snapshot at each peer"


async def test_sending_beside_capturing_gives_the_same(world: World, source: str) -> None:
    for number in range(6):
        write(os.path.join(source, f"large {number}"), SeededRng(f"large {number}").bytes(1_500_000))
    report = await world.backup(overlap=True)
    assert [done.error for done in report.datasets] == [None]
    assert await world.differences(source) == []
    assert (await world.status()).exit_code == 0


async def test_each_dataset_has_its_own_snapshots(world: World, source: str) -> None:
    music = small_tree(os.path.join(world.root, "source", "music"), "music")
    world.add_dataset("music", music)
    report = await world.backup()
    assert [done.published for done in report.datasets] == [True, True]
    write(os.path.join(source, "only docs"), b"changed")
    await world.backup("docs")
    assert [one.details.dataset for one in await world.snapshots()] == ["docs", "music", "docs"]
    assert await world.differences(music, "latest:music") == []
    assert await world.differences(source, "latest:docs") == []
    found = await world.status()
    assert [(one.name, one.state) for one in found.datasets] == [("docs", "safe"), ("music", "safe")]


async def test_an_older_snapshot_restores_as_things_were_then(world: World, source: str) -> None:
    await world.backup()
    then = os.path.join(world.root, "then", "docs")
    shutil.copytree(source, then, symlinks=True)
    shutil.copystat(source, then)
    os.unlink(os.path.join(source, "letter.txt"))
    write(os.path.join(source, "photos", "one.raw"), SeededRng("other").bytes(300_000))
    await world.backup()
    first, second = await world.snapshots()
    assert await world.differences(then, first.id) == []
    assert await world.differences(source, second.id) == []


async def test_equal_chunks_are_stored_once_in_a_domain(world: World, source: str) -> None:
    twin = os.path.join(world.root, "source", "twin")
    shutil.copytree(source, twin, symlinks=True)
    shutil.copytree(source, os.path.join(twin, "again"), symlinks=True)
    await world.backup("docs")
    world.add_dataset("twin", twin)
    report = await world.backup("twin")
    [done] = report.datasets
    assert done.bytes > 800_000
    assert done.new_bytes < 20_000, "only trees are new"
    assert await world.differences(twin, "latest:twin") == []


async def test_losing_the_cache_costs_a_reading_and_nothing_else(world: World, source: str) -> None:
    await world.backup()
    shutil.rmtree(os.path.join(world.home, "node", "cache"))
    report = await world.backup()
    [done] = report.datasets
    assert done.bytes_read == done.bytes
    assert (done.new_chunks, done.published) == (0, True)
    assert (await world.backup()).datasets[0].bytes_read == 0
    assert await world.differences(source) == []


async def test_a_damaged_cache_costs_a_reading_and_nothing_else(world: World, source: str) -> None:
    await world.backup()
    damaged = set()
    for folder, _, names in os.walk(os.path.join(world.home, "node", "cache")):
        for name in names:
            write(os.path.join(folder, name), SeededRng(name).bytes(5000))
            damaged.add(name.split("-")[0])
    assert damaged >= {"stat", "refs", "manifest", "run"}
    report = await world.backup()
    [done] = report.datasets
    assert (done.error, done.published, done.bytes_read, done.new_chunks) == (None, True, done.bytes, 0)
    assert await world.differences(source) == []


async def test_a_damaged_memory_of_references_begins_a_new_chain_of_them(world: World, source: str) -> None:
    for number in range(20):
        write(os.path.join(source, f"small {number}"), b"%d" % number)
    await world.backup()
    write(os.path.join(source, "two"), b"two")
    await world.backup()
    node = world.node()
    assert [len(row.references) for row in node.catalog.snapshots.all()] == [1, 2]
    [path] = [os.path.join(node.cache_path, name) for name in os.listdir(node.cache_path) if name.startswith("refs")]
    node.close()
    data = bytearray(read(path))
    data[-1] ^= 1
    write(path, bytes(data))
    write(os.path.join(source, "three"), b"three")
    await world.backup()
    node = world.node()
    assert [len(row.references) for row in node.catalog.snapshots.all()] == [1, 2, 1]
    node.close()
    assert (await world.verify()).problems == []


async def second_node(world: World, name: str = "second") -> str:
    """Make another node of the tenant; return its home."""
    home = os.path.join(world.root, name)
    code = request_node(home, world.edge, name=name)
    keeper, sibling = world.keeper(), world.node()
    try:
        added = await add_node(keeper, [sibling], world.edge, code)
    finally:
        keeper.close()
        sibling.close()
    accept_grant(home, world.edge, added.code)
    return home


async def test_several_nodes_write_chains_of_their_own(world: World, source: str) -> None:
    other = await second_node(world)
    garden = small_tree(os.path.join(world.root, "source", "garden"), "garden")
    world.add_dataset("garden", garden, home=other)
    assert (await world.backup()).datasets[0].published
    assert (await world.backup(home=other)).datasets[0].published
    assert (await world.backup()).datasets[0].published
    found = await world.snapshots()
    assert [(one.details.dataset, one.node, one.row.number) for one in found] == [
        ("docs", "testhost", 1),
        ("garden", "second", 1),
        ("docs", "testhost", 2),
    ]
    assert await world.differences(garden, "latest:garden") == []
    assert await world.differences(source, "latest:docs") == []
    assert (await world.status(other)).exit_code == 0
    assert (await world.status(keeper=True)).exit_code == 0


async def test_a_node_never_relies_on_what_another_node_stored(world: World, source: str) -> None:
    """A broken node could name any chunk in its index and store something else."""
    other = await second_node(world)
    copy = os.path.join(world.root, "source", "copy")
    shutil.copytree(source, copy, symlinks=True)
    world.add_dataset("copy", copy, home=other)
    await world.backup()
    assert (await world.status(other)).exit_code in {0, 3}, "it has read the first node's indexes now"
    report = await world.backup(home=other)
    [done] = report.datasets
    assert done.error is None
    assert done.published
    assert done.new_bytes >= done.bytes
    await world.status()
    again = await world.backup()
    assert (again.datasets[0].new_chunks, again.datasets[0].published) == (0, True)
    assert (await world.status(other)).exit_code == 0
    assert (await world.status()).exit_code == 0
    assert await world.differences(copy, "latest:copy") == []


async def test_a_snapshot_comes_back_from_its_own_packs_when_another_nodes_copy_of_a_chunk_is_bad(
    world: World, source: str
) -> None:
    other = await second_node(world)
    copy = os.path.join(world.root, "source", "copy")
    shutil.copytree(source, copy, symlinks=True)
    world.add_dataset("copy", copy, home=other)
    await world.backup()
    await world.backup(home=other)
    node = world.node(other)
    names = {row.name.hex() for row in node.catalog.objects.all("writer = ?", (node.identity,)) if row.kind == "data"}
    node.close()
    for number in range(5):
        for name in names & set(os.listdir(world.objects(number))):
            os.unlink(os.path.join(world.objects(number), name))
    assert await world.differences(source, "latest:docs") == []


async def test_a_sealed_check_finds_nothing_wrong_with_a_healthy_federation(world: World, source: str) -> None:
    await world.backup()
    write(os.path.join(source, "more"), SeededRng("more").bytes(100_000))
    await world.backup()
    report = await world.verify()
    assert (report.problems, report.absent) == ([], [])
    assert report.fetched == report.objects > 6
    assert report.proofs > 0


@pytest.mark.parametrize("number", range(5))
async def test_any_one_provider_may_vanish(number: int, world: World, source: str) -> None:
    await world.backup()
    world.silence(number)
    assert await world.differences(source) == []


async def test_any_two_providers_may_vanish_under_three_copies(world: World, source: str) -> None:
    await world.backup()
    for one in range(5):
        for other in range(one):
            world.silence(one, other)
            assert await world.differences(source) == []
            world.answer(one, other)


async def test_what_a_restore_gives_is_what_was_there_byte_for_byte(world: World, source: str) -> None:
    await world.backup()
    await world.restore(os.path.join(world.root, "out"))
    for name in ("letter.txt", "photos/one.raw", "photos/two.raw", "empty"):
        assert read(os.path.join(world.root, "out", "docs", name)) == read(os.path.join(source, name))
