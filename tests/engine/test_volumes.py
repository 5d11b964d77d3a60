"""Which snapshots of file systems are made, and with which commands."""

from collections.abc import Sequence
from typing import Any

import pytest

from replicator.engine.unfinished import Volume
from replicator.engine.volumes import (
    LogicalVolume,
    Mount,
    Plan,
    RootFacts,
    creation,
    is_there,
    is_within,
    listing,
    logical_volume_query,
    mount_of,
    parse_logical_volume,
    parse_mounts,
    plan_volumes,
    removal,
    snapshot_name,
)
from replicator.errors import SourceError

MOUNTS = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:20 / /proc rw - proc proc rw
30 22 0:30 /@srv /srv rw,relatime shared:5 master:2 - btrfs /dev/sdb rw,subvolid=256,subvol=/@srv
31 30 0:30 /@srv/old /mnt/bound rw - btrfs /dev/sdb rw,subvolid=256,subvol=/@srv
40 22 0:40 / /tank rw - zfs tank rw,xattr
41 40 0:41 / /tank/home rw - zfs tank/home rw,xattr
42 22 0:42 /anna /anna rw - zfs tank/home rw
43 22 0:43 /in /lost rw - zfs tank/away rw
50 22 253:1 / /var/lib/db rw - xfs /dev/mapper/vg-db rw
51 22 253:2 /pool /home rw - ext4 /dev/mapper/vg-home rw
52 22 253:3 / /flash rw - f2fs /dev/mapper/vg-flash rw
60 22 8:9 / /my\040disk\134s rw - ext4 /dev/sdc rw
broken line
61 22 8:9 / /cut rw
"""
NAME = "replicator-photos-0a1b2c3d"
SRV = Volume(kind="btrfs", origin=b"/srv", name=NAME, place=b"/srv/" + NAME.encode())
HOME = Volume(kind="zfs", origin=b"tank/home", name=NAME, place=b"/tank/home/.zfs/snapshot/" + NAME.encode())
DB = Volume(
    kind="lvm",
    origin=b"vg/db",
    name=NAME,
    place=b"/cache/" + NAME.encode() + b"-6e9a1b2c",
    file_system="xfs",
    thin=True,
)


def facts(path: bytes, real: bytes | None = None, **more: Any) -> RootFacts:
    return RootFacts(path=path, real=path if real is None else real, **more)


def plan(wanted: Any, *roots: RootFacts, one_file_system: bool = False, mounts: bytes = MOUNTS) -> Plan:
    return plan_volumes(
        wanted, roots, parse_mounts(mounts), name=NAME, folder=b"/cache", one_file_system=one_file_system
    )


def test_mounts_are_read_with_their_escapes_and_whatever_stands_between() -> None:
    mounts = parse_mounts(MOUNTS)
    assert len(mounts) == 12
    assert mounts[2] == Mount(point=b"/srv", root=b"/@srv", kind="btrfs", source=b"/dev/sdb")
    assert mounts[-1] == Mount(point=rb"/my disk\s", root=b"/", kind="ext4", source=b"/dev/sdc")
    assert parse_mounts(b"") == []


@pytest.mark.parametrize(
    ("path", "point"),
    [
        (b"/srv", b"/srv"),
        (b"/srv/photos", b"/srv"),
        (b"/srvx", b"/"),
        (b"/tank/home/anna", b"/tank/home"),
        (b"/etc", b"/"),
    ],
)
def test_a_path_is_on_the_nearest_mount_above(path: bytes, point: bytes) -> None:
    mount = mount_of(parse_mounts(MOUNTS), path)
    assert mount is not None
    assert mount.point == point


def test_a_later_mount_hides_an_earlier_one_and_without_any_there_is_none() -> None:
    twice = [Mount(point=b"/a", root=b"/", kind=kind, source=b"x") for kind in ("ext4", "btrfs")]
    assert mount_of(twice, b"/a/b") == twice[1]
    assert mount_of([], b"/a") is None
    assert is_within(b"/a", b"/")
    assert not is_within(b"/ab", b"/a")


def test_names_differ_for_each_dataset_and_node_and_every_kind_takes_them() -> None:
    names = {snapshot_name(dataset, node) for dataset in ("a b", "a_b", "a-b", "å" * 64) for node in (b"1", b"2")}
    assert len(names) == 8
    assert all(name.isascii() and len(name) <= 60 and "-" not in name[11:-9] for name in names)
    assert snapshot_name("photos", b"1").startswith("replicator-photos-")


def test_btrfs_roots_of_one_subvolume_share_a_snapshot_and_keep_their_place_in_it() -> None:
    found = plan(
        *("btrfs", facts(b"/srv", subvolume=b"/srv"), facts(b"/link", b"/srv/a/b", subvolume=b"/srv")),
        facts(b"/srv/inner/c", subvolume=b"/srv/inner"),
    )
    inner = Volume(kind="btrfs", origin=b"/srv/inner", name=NAME, place=b"/srv/inner/" + NAME.encode())
    assert found.volumes == (SRV, inner)
    assert found.places == {b"/srv": SRV.place, b"/link": SRV.place + b"/a/b", b"/srv/inner/c": inner.place + b"/c"}
    assert found.live == ()


def test_zfs_is_read_below_where_all_of_the_file_system_is_mounted() -> None:
    found = plan("zfs", facts(b"/tank/home/anna"), facts(b"/anna/x"), facts(b"/tank"), one_file_system=True)
    tank = Volume(kind="zfs", origin=b"tank", name=NAME, place=b"/tank/.zfs/snapshot/" + NAME.encode())
    assert found.volumes == (HOME, tank)
    assert found.places == {
        b"/tank/home/anna": HOME.place + b"/anna",
        b"/anna/x": HOME.place + b"/anna/x",
        b"/tank": tank.place,
    }


def test_lvm_is_mounted_in_a_folder_for_each_volume_and_read_there() -> None:
    db = LogicalVolume(group="vg", name="db", thin=True)
    home = LogicalVolume(group="vg", name="home", thin=False)
    found = plan("lvm", facts(b"/var/lib/db", logical=db), facts(b"/home/anna", logical=home))
    first, second = found.volumes
    assert (first.origin, first.file_system, first.thin) == (b"vg/db", "xfs", True)
    assert (second.origin, second.file_system, second.thin) == (b"vg/home", "ext4", False)
    assert first.name == second.name == NAME
    assert first.place != second.place
    assert first.place.startswith(b"/cache/" + NAME.encode() + b"-")
    assert found.places == {b"/var/lib/db": first.place, b"/home/anna": second.place + b"/pool/anna"}


@pytest.mark.parametrize(
    ("wanted", "root", "said"),
    [
        ("btrfs", facts(b"/etc"), r"it is on ext4 \(/dev/sda1\)"),
        ("zfs", facts(b"/srv", subvolume=b"/srv"), r"it is on btrfs \(/dev/sdb\)"),
        ("lvm", facts(b"/srv", subvolume=b"/srv", logical=LogicalVolume(group="v", name="x", thin=False)), "btrfs"),
        ("lvm", facts(b"/flash", logical=LogicalVolume(group="vg", name="flash", thin=False)), "it is on f2fs"),
        ("lvm", facts(b"/etc"), "it is on ext4"),
        ("btrfs", facts(b"/mnt/bound", subvolume=None), "a folder of a subvolume is mounted there"),
        ("zfs", facts(b"/lost"), "and the file system nowhere"),
        ("zfs", facts(b"/tank"), r"/tank/home, another file system, is mounted in it"),
        ("btrfs", facts(b"/"), "another file system, is mounted in it"),
    ],
)
def test_what_cannot_be_read_from_a_snapshot_is_refused_and_with_auto_read_as_it_is(
    wanted: str, root: RootFacts, said: str
) -> None:
    with pytest.raises(SourceError, match=f"cannot be read from a {wanted} snapshot: .*{said}") as caught:
        plan(wanted, facts(b"/srv/x", subvolume=b"/srv") if wanted == "btrfs" else root, root)
    assert "--snapshot auto" in caught.value.hint


def test_auto_takes_what_there_is_and_says_what_it_reads_as_it_is() -> None:
    db = LogicalVolume(group="vg", name="db", thin=True)
    roots = (facts(b"/srv", subvolume=b"/srv"), facts(b"/tank/home"), facts(b"/var/lib/db", logical=db), facts(b"/etc"))
    found = plan("auto", *roots)
    assert [volume.kind for volume in found.volumes] == ["btrfs", "zfs", "lvm"]
    assert set(found.places) == {b"/srv", b"/tank/home", b"/var/lib/db"}
    assert found.live == ((b"/etc", "it is on ext4 (/dev/sda1)"),)
    nowhere = plan("auto", facts(b"/srv", subvolume=b"/srv"), mounts=b"")
    assert (nowhere.volumes, nowhere.live) == ((), ((b"/srv", "it is on no file system that is mounted"),))


def test_mounts_inside_are_left_out_only_where_that_was_asked_for() -> None:
    [volume] = plan("zfs", facts(b"/tank"), one_file_system=True).volumes
    assert volume.origin == b"tank"
    assert plan("auto", facts(b"/tank")).live[0][1].startswith("/tank/home, another file system")


@pytest.mark.parametrize(
    ("volume", "made", "removed"),
    [
        (
            SRV,
            [("btrfs", "subvolume", "snapshot", "-r", b"/srv", SRV.place)],
            [("btrfs", "subvolume", "delete", SRV.place)],
        ),
        (
            HOME,
            [("zfs", "snapshot", b"tank/home@" + NAME.encode())],
            [("zfs", "destroy", b"tank/home@" + NAME.encode())],
        ),
        (
            DB,
            [
                (
                    *("lvcreate", "--snapshot", "--permission", "r", "--setactivationskip", "n", "--activate", "y"),
                    *("--name", NAME, "--", b"vg/db"),
                ),
                (
                    *("mount", "-t", "xfs", "-o", "ro,nouuid,norecovery,nodev,nosuid,noexec", "--"),
                    *(b"/dev/vg/" + NAME.encode(), DB.place),
                ),
            ],
            [("lvremove", "--yes", "--", b"vg/" + NAME.encode())],
        ),
    ],
)
def test_commands_make_and_remove_each_kind(volume: Volume, made: Sequence[object], removed: Sequence[object]) -> None:
    assert creation(volume) == made
    assert removal(volume, []) == removed
    mounted = [Mount(point=volume.place, root=b"/", kind="xfs", source=b"/dev/vg/x")]
    first = [("umount", "--", volume.place)] if volume.kind == "lvm" else []
    assert removal(volume, mounted) == [*first, *removed]


def test_a_volume_outside_a_pool_is_given_room() -> None:
    thick = Volume(kind="lvm", origin=b"vg/home", name=NAME, place=b"/m", file_system="ext4")
    make, mount = creation(thick)
    assert make == (
        *("lvcreate", "--snapshot", "--permission", "r", "--extents", "20%ORIGIN", "--name", NAME, "--", b"vg/home"),
    )
    assert mount[4] == "ro,nodev,nosuid,noexec"


@pytest.mark.parametrize("name", ["", "home", "replicator-", "replicator-x-1", "replicator-a-00000000/x", "@"])
@pytest.mark.parametrize("kind", ["btrfs", "zfs", "lvm"])
def test_nothing_is_removed_but_what_has_the_name_of_a_snapshot(kind: Any, name: str) -> None:
    with pytest.raises(ValueError, match="no name of a snapshot"):
        removal(Volume(kind=kind, origin=b"tank/home", name=name, place=b"/p"), [])


@pytest.mark.parametrize(
    ("volume", "asked", "answer"),
    [
        (
            SRV,
            ("find", b"/srv", "-mindepth", "1", "-maxdepth", "1", "-name", NAME, "-printf", "%f"),
            NAME.encode(),
        ),
        (
            HOME,
            ("zfs", "list", "-H", "-t", "snapshot", "-d", "1", "-o", "name", b"tank/home"),
            b"tank/home@old\ntank/home@" + NAME.encode() + b"\n",
        ),
        (DB, ("lvs", "--noheadings", "-o", "lv_name", "--", b"vg"), b"  root\n  " + NAME.encode() + b"\n"),
    ],
)
def test_leftovers_are_known_by_their_whole_name(volume: Volume, asked: object, answer: bytes) -> None:
    assert listing(volume) == asked
    assert is_there(volume, answer)
    assert not is_there(volume, answer.replace(b"0a1b2c3d", b"0a1b2c3e"))
    assert not is_there(volume, b"")


def test_lvm_says_what_a_device_is() -> None:
    assert logical_volume_query(b"/dev/dm-1")[-2:] == ("--", b"/dev/dm-1")
    assert parse_logical_volume(b"  vg|db|pool\n") == LogicalVolume(group="vg", name="db", thin=True)
    assert parse_logical_volume(b"  WARNING: x\n  vg|home|\n") == LogicalVolume(group="vg", name="home", thin=False)
    for nothing in (b"", b"  |x|\n", b"vg|db\n"):
        assert parse_logical_volume(nothing) is None
