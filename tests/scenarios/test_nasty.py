"""One of everything that file systems have, over the whole way, whatever becomes of the providers meanwhile.

What is restored is compared object by object by a walker that shares no code with the project (tests/compare.py).
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replicator.engine.members import remove_peer
from replicator.engine.restore import RestoreReport
from replicator.snapshot.apply import A_FOLDER
from replicator.snapshot.metadata import GUARDED, OWNER, SETID
from tests.compare import Rules, compare
from tests.scenarios.world import World, read
from tests.snapshot import nasty
from tests.snapshot.support import IS_ROOT, NOBODY, as_nobody, open_fds

RULES = Rules(owners=IS_ROOT, holes=True)


@pytest.fixture
def tree(world: World, tmp_path: Path) -> Path:
    """A nasty folder that is a dataset of the world."""
    top = tmp_path / "tree"
    top.mkdir()
    nasty.build(top)
    if not IS_ROOT:
        nasty.take_privileges(top)
    (top / "socket").unlink()  # nobody listens after a restore
    world.add_dataset("tree", str(top))
    return top


def whole(report: RestoreReport) -> bool:
    return (report.gaps, report.lost, report.damaged) == ([], [], [])


async def check(world: World, tree: Path, into: Path, snapshot: str = "latest") -> None:
    """Restore a snapshot to a new folder, which must be what the tree is now."""
    before = open_fds()
    assert whole(await world.restore(str(into), snapshot))
    assert open_fds() == before
    assert compare(tree, into / "tree", RULES) == []


async def backup(world: World) -> None:
    [done] = (await world.backup()).datasets
    assert (done.error, done.published, done.debts, done.gaps) == (None, True, [], [])


async def two_snapshots(world: World, tree: Path, old: Path) -> list[str]:
    """Make a snapshot, restore it to ``old``, change everything and make another; return their ids."""
    await backup(world)
    await check(world, tree, old)
    nasty.change(tree)
    assert compare(tree, old / "tree", RULES) != []
    await backup(world)
    return [one.id for one in await world.snapshots()]


async def check_both(world: World, tree: Path, old: Path, ids: list[str], into: Path) -> None:
    """Restore both snapshots, which must be what they were."""
    await check(world, tree, into / "second", ids[1])
    await check(world, old / "tree", into / "first", ids[0])
    shutil.rmtree(into)


async def test_both_of_two_snapshots_come_back(world: World, tree: Path, tmp_path: Path) -> None:
    ids = await two_snapshots(world, tree, tmp_path / "old")
    await check_both(world, tree, tmp_path / "old", ids, tmp_path / "out")
    report = await world.verify()
    assert (report.problems, report.absent) == ([], [])


async def test_they_come_back_from_another_set_of_providers(world: World, tree: Path, tmp_path: Path) -> None:
    ids = await two_snapshots(world, tree, tmp_path / "old")
    await world.add_peer(world.start_provider(5))
    for gone in (0, 3):
        keeper, node = world.keeper(), world.node()
        pin = next(pin for pin in keeper.peers if pin.identity == world.identity(gone))
        await remove_peer(keeper, [node], world.edge, pin.name)
        keeper.close()
        node.close()
        world.silence(gone)
        repaired = await world.repair()
        assert (repaired.unreadable, repaired.debts) == ([], [])
    os.utime(tree, ns=(3, 3))
    await backup(world)
    assert (await world.status()).exit_code == 0
    ids = [ids[0], (await world.snapshots())[-1].id]
    assert world.used(5) > 0
    await check_both(world, tree, tmp_path / "old", ids, tmp_path / "out")


async def test_they_come_back_when_providers_are_lost_for_good(world: World, tree: Path, tmp_path: Path) -> None:
    ids = await two_snapshots(world, tree, tmp_path / "old")
    world.silence(1)
    shutil.rmtree(world.data(1))
    await check_both(world, tree, tmp_path / "old", ids, tmp_path / "before the repair")
    repaired = await world.repair()
    assert (repaired.unreadable, repaired.made > 0) == ([], True)
    await check_both(world, tree, tmp_path / "old", ids, tmp_path / "after it")
    world.silence(2)
    shutil.rmtree(world.data(2))
    await check_both(world, tree, tmp_path / "old", ids, tmp_path / "and without another")


def outside(top: Path) -> Path:
    """Make a folder that links in the target lead to."""
    folder = top / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(b"secret")
    return folder


def spoil(target: Path, out: Path) -> None:
    """Leave of a restored tree what somebody made of it: half of it right, and traps in it."""
    same = (target / "large").stat()
    with open(target / "large", "r+b") as file:
        file.write(b"X")  # of the same size and time, and two more names
    os.utime(target / "large", ns=(same.st_mtime_ns, same.st_mtime_ns))
    os.unlink(target / "sparse")
    os.symlink(out / "secret", target / "sparse")
    os.unlink(target / "hard a")
    os.link(out / "secret", target / "hard a")
    os.unlink(target / "absolute link")
    (target / "absolute link").write_bytes(b"was a link")
    os.unlink(target / "loop")
    os.symlink(out, target / "loop")
    shutil.rmtree(target / "0" / "1")
    os.symlink(out, target / "0" / "1")  # on the way to what lies deep
    shutil.rmtree(target / "empty folder")
    os.mkfifo(target / "empty folder")
    os.chmod(target / "mode 777", 0)
    os.chmod(target / "folder 700", 0o777)  # noqa: S103 - is what is wrong with it
    os.setxattr(target / "attribute 0", "user.more", b"more")
    (target / "extra").mkdir()
    os.symlink(out, target / "extra" / "link")
    (target / "folder 1777" / "extra").write_bytes(b"extra")
    (target / "...").unlink()


async def test_a_folder_that_is_half_right_is_made_right_in_place(world: World, tree: Path, tmp_path: Path) -> None:
    await backup(world)
    target, out = tmp_path / "out", outside(tmp_path)
    await check(world, tree, target)
    spoil(target / "tree", out)
    assert compare(tree, target / "tree", RULES) != []
    report = await world.restore(str(target), overwrite="always", delete=True)
    assert whole(report)
    assert sorted(report.removed) == ["tree/extra/", "tree/folder 1777/extra"]
    assert report.reused_bytes > 0
    assert compare(tree, target / "tree", RULES) == []
    assert (read(str(out / "secret")), os.listdir(out), (out / "secret").stat().st_nlink) == (b"secret", ["secret"], 1)
    nasty.change(tree)
    await backup(world)
    report = await world.restore(str(target), overwrite="always", delete=True)
    assert report.gaps == [("tree/links", A_FOLDER)]
    shutil.rmtree(target / "tree" / "links")  # a folder is never replaced: its owner moves it away
    report = await world.restore(str(target), overwrite="if-changed", delete=True)
    assert whole(report)
    assert compare(tree, target / "tree", RULES) == []


@pytest.fixture
def open_world(worlds: Callable[[int], World], fast_folder: str) -> Iterator[World]:
    """A world that belongs to a user without rights, who is to restore from it."""
    world = worlds(3)
    if IS_ROOT:
        for folder in (fast_folder, os.path.dirname(world.root)):
            os.chmod(folder, 0o711)  # noqa: S103 - on the way to the user's own
    yield world
    if IS_ROOT:
        for folder, _, _ in os.walk(world.root):
            os.chmod(folder, 0o700)


def give_away(world: World) -> None:
    """Let everything of a world belong to the user without rights."""
    for folder, _, files in os.walk(world.root):
        for name in ("", *files):
            os.chown(os.path.join(folder, name), NOBODY, NOBODY, follow_symlinks=False)


@pytest.mark.skipif(not IS_ROOT, reason="root makes what a user cannot restore")
async def test_what_a_user_cannot_set_is_counted_and_named_and_the_rest_is_the_same(
    open_world: World, tmp_path: Path
) -> None:
    world, tree = open_world, tmp_path / "tree"
    tree.mkdir()
    missing = nasty.build(tree)
    (tree / "socket").unlink()
    world.add_dataset("tree", str(tree))
    await backup(world)
    await world.snapshots()
    give_away(world)
    target = Path(world.root, "out")
    with as_nobody():
        report = await world.restore(str(target))
    assert (report.lost, report.damaged) == ([], [])
    by_reason: dict[str, set[str]] = {}
    assert report.gaps == [], "and that is no gap"
    for path, reason in report.unset:
        by_reason.setdefault(reason, set()).add(path.removeprefix("tree/"))
    everything = sum(len(folders) + len(files) for _, folders, files in os.walk(tree))
    assert len(by_reason[OWNER]) > everything - 10, "all that was root's, under each of its names once"
    assert by_reason[SETID] == {"mode 4755", "mode 2755", "mode 6711", "folder 2755"}
    if "security.capability" not in missing:
        assert by_reason[GUARDED] == {"attribute 3", "attribute 4"}
    devices = {name for reason, names in by_reason.items() if "device" in reason for name in names}
    if "devices" not in missing:
        assert devices == {"null", "disk"}
        for name in devices:
            os.unlink(tree / name)
    assert set(by_reason) <= {OWNER, SETID, GUARDED} | {reason for reason in by_reason if "device" in reason}
    nasty.take_privileges(tree)
    assert compare(tree, target / "tree", Rules(owners=False, holes=True)) == []
    assert {os.lstat(target / "tree" / name).st_uid for name in os.listdir(target / "tree")} == {NOBODY}


def test_all_kinds_of_things_are_in_the_tree(tmp_path: Path) -> None:
    nasty.build(tmp_path)
    (tmp_path / "socket").unlink()
    first = {name: os.lstat(tmp_path / name).st_mode >> 12 for name in os.listdir(tmp_path)}
    nasty.change(tmp_path)
    second = {name: os.lstat(tmp_path / name).st_mode >> 12 for name in os.listdir(tmp_path)}
    changed = {name for name in first.keys() & second.keys() if first[name] != second[name]}
    assert len(set(first.values())) == (6 if IS_ROOT else 4)
    assert {"new\nline", "links", "fifo", "empty"} <= changed
