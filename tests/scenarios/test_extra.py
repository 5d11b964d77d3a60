"""Extra copies: what the snapshots need in a plain folder or bucket, whole, sealed, and counted for nothing."""

import os
import shutil

import msgspec
import pytest

from replicator.catalog.objects import ObjectRow, Shards
from replicator.engine.extra import MARK, OVERDUE_S, Extra, add_extra, extras, remove_extra
from replicator.engine.extrawriting import ExtraReport, needed, tidy_extra, write_extras
from replicator.engine.node import NodeHome
from replicator.errors import HomeError, LockedError, NotFoundError, UsageError
from replicator.format.merkle import name_of
from tests.buckets import FaultyBucket, silent
from tests.scenarios.conftest import Worlds
from tests.scenarios.joining import joined, opened
from tests.scenarios.test_carried import from_disks, same
from tests.scenarios.world import PROMISE, World, read, write


def place_of(world: World, name: str = "usb") -> str:
    path = os.path.join(world.root, name)
    os.makedirs(path, exist_ok=True)
    return path


def add(world: World, place: str, bucket: FaultyBucket | None = None) -> Extra:
    node = world.node()
    try:
        extra = Extra(name="usb", place=place, mark="")
        return add_extra(node, world.edge, extra, *([] if bucket is None else [bucket.maker]))
    finally:
        node.close()


def there(path: str) -> bool:
    return os.path.exists(path)


def unlink_if_there(path: str) -> None:
    if there(path):
        os.unlink(path)


async def written(world: World, bucket: FaultyBucket | None = None) -> ExtraReport:
    world.clock.advance(60)
    node = world.node()
    try:
        [report] = await write_extras(node, world.edge, (), *([] if bucket is None else [bucket.maker]))
        return report
    finally:
        node.close()


def names_in(world: World, place: str) -> set[str]:
    return set(os.listdir(os.path.join(place, world.tenant_id.hex(), "objects")))


def wanted(world: World) -> set[str]:
    node = world.node()
    try:
        records = [node.charter_object(), node.keybag_object()]
        return {row.name.hex() for row in needed(node)[0]} | {one[0].hex() for one in records if one}
    finally:
        node.close()


async def test_a_folder_gets_all_that_the_snapshots_need_once_and_counts_for_nothing(world: World, source: str) -> None:
    await world.backup()
    place = place_of(world)
    add(world, place)
    before = (await world.status()).datasets[0].copies
    first = await written(world)
    assert first.error is None
    assert first.written == first.objects == len(wanted(world))
    assert names_in(world, place) == wanted(world)
    for name in names_in(world, place):
        assert name_of(read(os.path.join(place, world.tenant_id.hex(), "objects", name))).hex() == name
    assert (await written(world)).written == 0
    found = await world.status()
    assert (found.datasets[0].copies, found.exit_code, found.extras[0].objects) == (before, 0, first.objects)
    write(os.path.join(source, "new.txt"), b"a new file\n" * 1000)
    await world.backup()
    assert 0 < (await written(world)).written < first.written + 5
    assert names_in(world, place) == wanted(world)


@pytest.mark.parametrize("in_bucket", [False, True])
async def test_two_nodes_do_not_share_a_place_and_neither_loses_anything_by_trying(
    world: World, source: str, in_bucket: bool
) -> None:
    await world.backup()
    bucket = FaultyBucket() if in_bucket else None
    place = "s3://attic/mine" if in_bucket else place_of(world)
    second = opened(await joined(world, "node", "second"), "node")
    assert isinstance(second, NodeHome)
    add(world, place, bucket)
    assert (await written(world, bucket)).error is None

    def mark() -> bytes | None:
        return read(os.path.join(place, MARK)) if bucket is None else bucket.inner.get(f"mine/{MARK}")

    first = mark()
    makers = [] if bucket is None else [bucket.maker]
    with pytest.raises(UsageError, match="another node writes") as caught:
        add_extra(second, world.edge, Extra(name="mine", place=place, mark=""), *makers)
    assert f"{place}/mine" in caught.value.hint
    assert extras(second) == []
    second.close()
    assert mark() == first
    again = await written(world, bucket)
    assert (again.error, again.written) == (None, 0)


async def test_a_node_takes_up_a_place_again_that_it_let_go_of_and_adds_none_twice(world: World, source: str) -> None:
    await world.backup()
    place = place_of(world)
    add(world, place)
    first = await written(world)
    node = world.node()
    try:
        with pytest.raises(UsageError, match="is extra copy 'usb' already"):
            add_extra(node, world.edge, Extra(name="twice", place=f"{place}/.", mark=""))
        remove_extra(node, "usb")
    finally:
        node.close()
    add(world, place)
    again = await written(world)
    assert (again.error, again.written, again.objects) == (None, 0, first.objects)


async def test_a_mark_that_another_put_first_into_a_bucket_stays(world: World, source: str) -> None:
    await world.backup()
    bucket = FaultyBucket()

    def first(verb: str, key: str) -> None:
        if (verb, key) == ("put", f"mine/{MARK}"):
            bucket.inner.put(key, b"another's", fresh=False)

    bucket.fault = first
    with pytest.raises(UsageError, match="another node writes"):
        add(world, "s3://attic/mine", bucket)
    assert bucket.inner.get(f"mine/{MARK}") == b"another's"


@pytest.mark.parametrize("coding", [None, (4, 2)])
async def test_everything_comes_back_from_it_without_any_provider(
    worlds: Worlds, coding: tuple[int, int] | None
) -> None:
    world = worlds(6)
    tree = os.path.join(world.root, "source", "tree")
    write(os.path.join(tree, "large.bin"), world.rng.bytes(5_000_000))
    write(os.path.join(tree, "letter.txt"), b"Dear reader,\n" * 300)
    world.add_dataset("tree", tree, policy=msgspec.structs.replace(PROMISE, coding=coding))
    await world.backup()
    place = place_of(world)
    add(world, place)
    assert (await written(world)).error is None
    world.silence(*range(world.providers))
    target, wrong = await from_disks(world, place)
    assert wrong == []
    assert same(tree, target) == []


async def test_a_disk_that_is_not_mounted_gets_nothing_and_is_trouble_after_a_week(world: World, source: str) -> None:
    await world.backup()
    place = place_of(world)
    add(world, place)
    await written(world)
    os.rename(place, f"{place}-away")
    os.makedirs(place)
    report = await written(world)
    assert isinstance(report.error, HomeError)
    assert os.listdir(place) == []
    assert (await world.status()).exit_code == 0
    world.clock.advance(OVERDUE_S + 3600)
    await world.backup()
    found = await world.status()
    assert found.exit_code == 3
    assert any("7 days old" in problem for problem in found.problems)
    os.rmdir(place)
    os.rename(f"{place}-away", place)
    assert (await written(world)).error is None
    assert (await world.status()).exit_code == 0


async def test_a_bucket_is_written_as_a_folder_is_and_its_silence_is_told(world: World, source: str) -> None:
    await world.backup()
    bucket = FaultyBucket()
    add(world, "s3://attic/mine", bucket)
    report = await written(world, bucket)
    assert (report.error, report.written) == (None, len(wanted(world)))
    prefix = f"mine/{world.tenant_id.hex()}/objects/"
    assert {key.removeprefix(prefix) for key in bucket.held(prefix)} == wanted(world)
    bucket.fault = silent
    again = await written(world, bucket)
    assert again.error is not None
    assert "s3://attic/mine" in again.error.message
    bucket.fault, bucket.elsewhere = (lambda _verb, _key: None), True
    assert (await written(world, bucket)).error is not None, "another bucket lacks all, and none of it is sent there"


async def test_of_packs_that_are_cut_as_many_shards_lie_there_as_it_takes(worlds: Worlds) -> None:
    world = worlds(6)
    tree = os.path.join(world.root, "source", "large")
    write(os.path.join(tree, "large.bin"), world.rng.bytes(5_000_000))
    world.add_dataset("large", tree, policy=msgspec.structs.replace(PROMISE, coding=(4, 2), copies=3))
    await world.backup()
    place = place_of(world)
    add(world, place)
    report = await written(world)
    assert (report.error, report.unreadable) == (None, 0)
    node = world.node()
    rows, cut = needed(node)
    node.close()
    assert cut
    lying = names_in(world, place)
    for row in rows:
        if row.id in cut:
            assert sum(one.name.hex() in lying for one in cut[row.id].rows) == cut[row.id].needed
        else:
            assert row.name.hex() in lying
    assert (await written(world)).written == 0


async def test_nothing_is_deleted_there_but_by_tidy_and_only_what_nothing_needs(world: World, source: str) -> None:
    await world.backup()
    place = place_of(world)
    add(world, place)
    await written(world)
    stray = b"stray" + bytes((1 << 16) - 5)
    path = os.path.join(place, world.tenant_id.hex(), "objects", name_of(stray).hex())
    write(path, stray)
    await written(world)
    assert there(path)
    node = world.node()
    try:
        assert tidy_extra(node, "usb", dry_run=True) == [name_of(stray)]
        assert there(path)
        assert tidy_extra(node, "usb", dry_run=False) == [name_of(stray)]
        assert names_in(world, place) == wanted(world)
        assert remove_extra(node, "usb").name == "usb"
        assert extras(node) == []
        assert there(os.path.join(place, MARK))
        with pytest.raises(NotFoundError):
            tidy_extra(node, "usb", dry_run=True)
    finally:
        node.close()


async def test_what_no_provider_has_any_more_is_not_tidied_away(world: World, source: str) -> None:
    await world.backup()
    place = place_of(world)
    add(world, place)
    await written(world)
    node = world.node()
    try:
        last = node.catalog.objects.all("kind = 'data'")
        assert last
        node.catalog.objects.set_lost(row.id for row in last)
        assert tidy_extra(node, "usb", dry_run=False) == []
        assert {row.name.hex() for row in last} <= names_in(world, place)
    finally:
        node.close()
    for row in last:
        os.unlink(os.path.join(place, world.tenant_id.hex(), "objects", row.name.hex()))
    report = await written(world)
    assert (report.error, report.written, report.unreadable) == (None, 0, 0), "and nobody is asked for it"


async def test_tidy_goes_by_what_is_published_once_no_run_works_any_more(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.backup()
    place = place_of(world)
    add(world, place)
    await written(world)
    node = world.node()
    looked: list[bool] = []

    def looks(half: NodeHome) -> tuple[list[ObjectRow], dict[int, Shards]]:
        with pytest.raises(LockedError), half.lock():
            pass
        looked.append(True)
        return needed(half)

    monkeypatch.setattr("replicator.engine.extrawriting.needed", looks)
    try:
        assert (tidy_extra(node, "usb", dry_run=False), looked) == ([], [True])
        with node.lock(), pytest.raises(LockedError):
            tidy_extra(node, "usb", dry_run=False)
    finally:
        node.close()
    assert names_in(world, place) == wanted(world)


async def test_a_place_within_what_is_backed_up_is_refused_also_when_it_came_later(world: World, source: str) -> None:
    inside = os.path.join(source, "extra")
    os.makedirs(inside)
    with pytest.raises(UsageError, match="lies within dataset 'docs'"):
        add(world, inside)
    with pytest.raises(HomeError, match="no folder"):
        add(world, os.path.join(world.root, "nowhere"))
    place = place_of(world)
    add(world, place)
    with pytest.raises(UsageError, match="taken already"):
        add(world, place)
    world.add_dataset("root", world.root)
    await world.backup("docs")
    assert isinstance((await written(world)).error, UsageError)


async def test_a_providers_own_place_is_refused_and_gets_no_mark(world: World, source: str) -> None:
    await world.backup()
    with pytest.raises(UsageError, match="where a provider keeps"):
        add(world, world.data(0))
    assert not there(os.path.join(world.data(0), MARK))
    bucket = FaultyBucket()
    bucket.put("mine/.replicator-store", b"its id", fresh=True)
    with pytest.raises(UsageError, match="where a provider keeps"):
        add(world, "s3://attic/mine", bucket)
    assert bucket.held("mine/") == ["mine/.replicator-store"]


async def test_what_nobody_gives_is_said_and_the_rest_is_written(world: World, source: str) -> None:
    await world.backup()
    [lost, *_] = world.stored(0)
    for number in range(world.providers):
        unlink_if_there(os.path.join(world.objects(number), os.path.basename(lost)))
    place = place_of(world)
    add(world, place)
    report = await written(world)
    assert (report.error, report.unreadable) == (None, 1)
    assert names_in(world, place) == wanted(world) - {os.path.basename(lost)}
    shutil.rmtree(place)


async def test_a_damaged_list_of_places_is_said_and_hides_no_copy_that_counts(world: World, source: str) -> None:
    await world.backup()
    add(world, place_of(world))
    write(os.path.join(world.home, "node", "extra.json"), b"rot")
    found = await world.status()
    assert (found.exit_code, found.datasets[0].state) == (3, "safe")
    assert any("extra.json: damaged" in problem and "add the places again" in problem for problem in found.problems)
