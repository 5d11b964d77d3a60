"""Reading from snapshots of file systems: played ones of ZFS and LVM, and real ones of btrfs."""

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from replicator.engine import prepare
from replicator.engine.backup import BackupReport
from replicator.engine.unfinished import Begun, Unfinished, Volume
from replicator.engine.volumes import snapshot_name
from replicator.errors import SourceError
from replicator.format.consistency import Consistency
from replicator.fs import PosixFs
from replicator.process import Command, Ended, Stop, SystemPrograms
from replicator.snapshot.mapped import LEFT_OUT
from tests.engine.programs import FakePrograms
from tests.scenarios.world import World, read, small_tree, write


def configure(world: World, dataset: str = "docs", *, one_file_system: bool = False, **changes: Any) -> None:
    node = world.node()
    try:
        one = node.catalog.datasets.get(dataset)
        consistency = Consistency(**changes)
        node.catalog.datasets.update(dataclasses.replace(one, consistency=consistency, one_file_system=one_file_system))
    finally:
        node.close()


def unfinished(world: World) -> list[Begun]:
    return Unfinished(os.path.join(world.home, "node", "unfinished.bin"), PosixFs()).all()


def name_of(world: World, dataset: str = "docs") -> str:
    node = world.node()
    try:
        return snapshot_name(dataset, node.identity)
    finally:
        node.close()


def good(report: BackupReport) -> None:
    assert [(done.error, done.published, done.gaps) for done in report.datasets] == [(None, True, [])]
    assert report.datasets[0].troubles.problems == report.troubles.problems == []


class Machine:
    """Plays a ZFS file system "tank", or an LVM volume "vg/data", at the folder of sources, by copying it."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        self.top = os.path.realpath(os.path.join(world.root, "source"))
        self.home = world.home
        self.name = name_of(world)
        self.kind = kind
        self.there: set[str] = set()
        self.mounted: dict[str, str] = {}
        self.ran: list[str] = []
        self.fails = ""
        self.meanwhile: Callable[[], None] = lambda: None
        world.edge = dataclasses.replace(world.edge, programs=FakePrograms(self.play), environment={})
        monkeypatch.setattr(prepare, "mountinfo", self.mountinfo)

    def mountinfo(self) -> bytes:
        fs, source = ("zfs", "tank") if self.kind == "zfs" else ("xfs", "/dev/mapper/vg-data")
        lines = ["1 0 8:1 / / rw - ext4 /dev/sda1 rw", f"2 1 8:2 / {self.top} rw - {fs} {source} rw"]
        lines += [f"9 1 8:3 / {place} ro - xfs {device} ro" for place, device in self.mounted.items()]
        return "\n".join(lines).encode()

    def place(self) -> str:
        if self.kind == "zfs":
            return os.path.join(self.top, ".zfs", "snapshot", self.name)
        [place] = [one for one in os.listdir(os.path.join(self.home, "node", "cache")) if one.startswith(self.name)]
        return os.path.join(self.home, "node", "cache", place)

    def play(self, command: Command, _stop: Stop) -> Ended:
        words = [os.fsdecode(word) for word in command.argv]
        verb = " ".join(words[:2]) if words[0] == "zfs" else "hook" if words[0] == "/bin/sh" else words[0]
        self.ran.append(verb)
        if verb == self.fails:
            return Ended(code=1, tail=b"permission denied\n")
        out = ""
        if verb == "zfs list":
            out = "".join(f"{words[-1]}@{one}\n" for one in self.there)
        elif verb == "lvs":
            out = " vg|data|\n" if "vg_name,lv_name,pool_lv" in words else "".join(f" {one}\n" for one in self.there)
        elif verb in ("zfs snapshot", "lvcreate"):
            name = words[2].removeprefix("tank@") if verb == "zfs snapshot" else words[words.index("--name") + 1]
            assert name not in self.there
            self.there.add(name)
            if verb == "zfs snapshot":
                self.freeze()
        elif verb == "mount":
            self.mounted[words[-1]] = words[-2]
            self.freeze()
        elif verb == "umount":
            del self.mounted[words[-1]]
            for one in os.scandir(words[-1]):
                shutil.rmtree(one.path)
        elif verb in ("zfs destroy", "lvremove"):
            assert not self.mounted
            self.there.remove(words[-1].split("@" if verb == "zfs destroy" else "/")[-1])
            if words[-1] == f"tank@{self.name}":
                shutil.rmtree(self.place())
        return Ended(code=0, out=out.encode())

    def freeze(self) -> None:
        for one in os.listdir(self.top):
            if one != ".zfs":
                shutil.copytree(os.path.join(self.top, one), os.path.join(self.place(), one), symlinks=True)
        self.meanwhile()


@pytest.fixture(params=["zfs", "lvm"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def machine(world: World, source: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> Machine:
    configure(world, snapshot=kind, before="begin", after="finish")
    return Machine(world, monkeypatch, kind)


ORDER = {
    "zfs": ["hook", "zfs list", "zfs snapshot", "zfs list", "zfs destroy", "hook"],
    "lvm": ["hook", "lvs", "lvs", "lvcreate", "mount", "lvs", "umount", "lvremove", "hook"],
}


async def test_what_is_read_is_as_it_was_when_the_snapshot_was_made_and_called_as_it_lives(
    world: World, source: str, machine: Machine, kind: str
) -> None:
    letter = os.path.join(source, "letter.txt")
    before = read(letter)
    machine.meanwhile = lambda: write(letter, b"changed since")
    good(await world.backup())
    assert machine.ran == ORDER[kind]
    assert (machine.there, machine.mounted, unfinished(world)) == (set(), {}, [])
    [found] = await world.snapshots()
    assert [(root.path, root.name) for root in found.details.roots] == [(os.fsencode(source), b"docs")]
    await world.restore(os.path.join(world.root, "out"))
    assert read(os.path.join(world.root, "out", "docs", "letter.txt")) == before
    assert read(letter) == b"changed since"
    assert [one for one in os.listdir(os.path.join(world.home, "node", "cache")) if "replicator-" in one] == []


@pytest.mark.parametrize(
    ("kind", "step"), [("zfs", "zfs snapshot"), ("lvm", "lvcreate"), ("lvm", "mount")], indirect=["kind"]
)
async def test_a_snapshot_that_cannot_be_made_fails_its_dataset_and_leaves_nothing(
    step: str, world: World, source: str, machine: Machine
) -> None:
    machine.fails = step
    [done] = (await world.backup()).datasets
    assert isinstance(done.error, SourceError)
    assert machine.fails in done.error.message
    assert "permission denied" in done.error.message
    assert "docs/operate/consistent.md" in done.error.hint
    assert (done.snapshot, done.troubles.problems) == (None, [])
    assert machine.ran[-1] == "hook"
    assert (machine.there, machine.mounted, unfinished(world)) == (set(), {}, [])


async def test_a_snapshot_is_removed_also_when_the_capture_fails(
    world: World, source: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **options: object) -> None:
        raise SourceError("the disk is gone")

    monkeypatch.setattr("replicator.engine.backup.capture", fails)
    [done] = (await world.backup()).datasets
    assert done.error is not None
    assert done.error.message == "the disk is gone"
    assert (machine.there, machine.mounted, unfinished(world)) == (set(), {}, [])


async def test_a_snapshot_that_cannot_be_removed_is_told_and_removed_by_a_later_run(
    world: World, source: str, machine: Machine, kind: str
) -> None:
    machine.fails = "zfs destroy" if kind == "zfs" else "lvremove"
    [done] = (await world.backup()).datasets
    assert (done.error, done.published) == (None, True)
    assert [machine.fails in problem.message for problem in done.troubles.problems] == [True]
    assert [(one.dataset, one.after, len(one.volumes)) for one in unfinished(world)] == [("docs", False, 1)]
    assert machine.ran[-1] == "hook"
    machine.fails = ""
    machine.ran.clear()
    configure(world, snapshot="none")
    good(await world.backup())
    assert (machine.there, machine.mounted, unfinished(world)) == (set(), {}, [])
    assert "hook" not in machine.ran


async def test_a_snapshot_that_cannot_be_removed_is_not_forgotten_when_its_dataset_is_captured_again(
    world: World, source: str, machine: Machine, kind: str
) -> None:
    machine.fails = "zfs destroy" if kind == "zfs" else "lvremove"
    await world.backup()
    configure(world, after="finish")
    report = await world.backup()
    assert [len(one.troubles.problems) for one in (report, report.datasets[0])] == [1, 1]
    assert [len(one.volumes) for one in unfinished(world)] == [1]
    machine.fails = ""
    good(await world.backup())
    assert (machine.there, unfinished(world)) == (set(), [])


async def test_one_that_is_still_there_is_remembered_beside_those_of_tonight(
    world: World, source: str, machine: Machine, kind: Any
) -> None:
    old = Volume(kind=kind, origin=b"old/data", name="replicator-docs-00000000", place=b"/nowhere")
    machine.there.add(old.name)
    node = world.node()
    path = node.file("unfinished.bin")
    node.close()
    Unfinished(path, PosixFs()).put(Begun(dataset="docs", consistency=Consistency(), after=False, volumes=[old]))
    machine.fails = "zfs destroy" if kind == "zfs" else "lvremove"
    await world.backup()
    [begun] = unfinished(world)
    assert {volume.name for volume in begun.volumes} == {old.name, machine.name}
    machine.fails = ""
    configure(world)
    good(await world.backup())
    assert (machine.there, unfinished(world)) == (set(), [])


async def test_what_a_killed_run_left_is_removed_at_the_next_start(
    world: World, source: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        cut: list[int] = []

        async def nothing(self: prepare.Preparation, *_: object) -> None:
            cut.append(1)

        patch.setattr(prepare.Preparation, "_undo", nothing)
        await world.backup()
        assert cut
    assert machine.there == {machine.name}
    machine.ran.clear()
    node = world.node()
    node.catalog.datasets.remove("docs")
    node.close()
    world.small_dataset("other")
    report = await world.backup()
    good(report)
    assert report.troubles.notices == ["docs: an earlier run was killed; what it had begun is put right"]
    assert (machine.there, machine.mounted, unfinished(world)) == (set(), {}, [])
    assert machine.ran[-1] == "hook"


async def test_a_leftover_that_nobody_remembers_is_known_by_its_name(
    world: World, source: str, machine: Machine, kind: str
) -> None:
    others = {"replicator-docs-00000000", "mine"}
    machine.there |= {machine.name, *others}
    if kind == "zfs":
        os.makedirs(machine.place())
    good(await world.backup())
    assert machine.there == others


async def test_auto_reads_as_it_is_what_no_snapshot_can_be_made_of(
    world: World, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(world, snapshot="auto")
    programs = FakePrograms()
    world.edge = dataclasses.replace(world.edge, programs=programs)
    monkeypatch.setattr(prepare, "mountinfo", lambda: b"1 0 8:1 / / rw - tmpfs tmpfs rw")
    report = await world.backup()
    good(report)
    assert report.datasets[0].troubles.notices == [f"docs: {source} is read as it is: it is on tmpfs (tmpfs)"]
    assert programs.ran == []
    configure(world, snapshot="btrfs")
    [done] = (await world.backup()).datasets
    assert done.error is not None
    assert "cannot be read from a btrfs snapshot: it is on tmpfs (tmpfs)" in done.error.message


# real ones


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    """A subvolume on a btrfs of its own, in a file."""
    if os.geteuid() or not all(shutil.which(word) for word in ("mkfs.btrfs", "btrfs", "losetup", "mount")):
        pytest.skip("needs root, losetup and btrfs-progs")
    image, point = tmp_path / "image", tmp_path / "mnt"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(300 << 20)
    run("mkfs.btrfs", "-q", str(image))
    try:
        device = subprocess.run(["losetup", "-f", "--show", str(image)], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop device: {error.stderr.strip()}")
    try:
        try:
            run("mount", device.stdout.strip(), str(point))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"btrfs cannot be mounted: {error.stderr.decode().strip()}")
        try:
            run("btrfs", "subvolume", "create", str(point / "data"))
            yield point / "data"
        finally:
            run("umount", str(point))
    finally:
        run("losetup", "-d", device.stdout.strip())


@pytest.mark.process
async def test_a_real_btrfs_is_read_from_a_snapshot_and_unchanged_files_are_known_again(
    world: World, btrfs: Path
) -> None:
    photos = small_tree(str(btrfs / "photos"))
    changing = os.path.join(photos, "letter.txt")
    world.add_dataset("docs", photos, str(btrfs))
    old = read(changing)
    configure(world, snapshot="btrfs")

    class Changing(SystemPrograms):
        def run(self, command: Command, **options: Any) -> Ended:
            ended = super().run(command, **options)
            if "snapshot" in command.argv:
                write(changing, b"changed since")
            return ended

    world.edge = dataclasses.replace(world.edge, programs=Changing())
    good(await world.backup(readers=2, overlap=True))
    assert sorted(os.listdir(btrfs)) == ["photos"]
    assert read(changing) == b"changed since"
    target = os.path.join(world.root, "out")
    await world.restore(target)
    assert read(os.path.join(target, "photos", "letter.txt")) == old
    assert read(os.path.join(target, "data", "photos", "letter.txt")) == old
    [found] = await world.snapshots()
    assert [root.path for root in found.details.roots] == [os.fsencode(photos), os.fsencode(btrfs)]
    [done] = (await world.backup()).datasets
    assert (done.error, done.bytes_read) == (None, 2 * len(b"changed since")), "once below each root"
    assert done.unchanged == done.files - 2


@pytest.mark.process
async def test_what_a_real_btrfs_snapshot_does_not_hold_is_a_gap_unless_it_is_not_wanted(
    world: World, btrfs: Path
) -> None:
    small_tree(str(btrfs / "photos"))
    run("btrfs", "subvolume", "create", str(btrfs / "nested"))
    write(str(btrfs / "nested" / "file"), b"elsewhere")
    world.add_dataset("docs", str(btrfs))
    configure(world, snapshot="auto")
    [done] = (await world.backup()).datasets
    assert (done.error, done.gaps) == (None, [(str(btrfs / "nested"), LEFT_OUT)])
    configure(world, snapshot="auto", one_file_system=True)
    good(await world.backup())
    world.add_dataset("inner", str(btrfs / "nested"))
    configure(world, "inner", snapshot="btrfs")
    good(await world.backup("inner"))
    assert read(f"{await _restored(world, 'latest:inner')}/nested/file") == b"elsewhere"
    assert sorted(os.listdir(btrfs)) == ["nested", "photos"]


async def _restored(world: World, what: str) -> str:
    target = os.path.join(world.root, "restored")
    await world.restore(target, what)
    return target


@pytest.mark.process
async def test_a_real_leftover_of_btrfs_is_removed_and_nobody_elses(world: World, btrfs: Path) -> None:
    small_tree(str(btrfs / "photos"))
    world.add_dataset("docs", str(btrfs))
    configure(world, snapshot="btrfs", one_file_system=True)
    for name in (name_of(world), "replicator-docs-00000000"):
        run("btrfs", "subvolume", "snapshot", "-r", str(btrfs), str(btrfs / name))
    good(await world.backup())
    assert sorted(os.listdir(btrfs)) == ["photos", "replicator-docs-00000000"]
