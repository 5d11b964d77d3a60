"""What is mounted, as the kernel says it."""

import os

import pytest

from replicator.errors import SourceError
from replicator.snapshot import walk
from replicator.snapshot.mounts import Mount, Mounts, parse_mountinfo
from replicator.snapshot.walk import PosixSource

MOUNTINFO = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
23 27 0:22 / /sys rw,nosuid shared:7 master:1 propagate_from:2 - sysfs sysfs rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
36 35 98:0 /mnt1 /mnt/with\040space\011and\134more rw - nfs4 server:/a\040b rw
37 35 0:40 / /mnt/- rw - fuse.sshfs anna@host: rw
38 35 0:41 / /home/anna/auto rw - autofs systemd-1 rw,fd=5
39 38 8:1 / /home/anna/auto rw - ext4 /dev/sda1 rw
40 35 0:43 / /run rw - tmpfs tmpfs rw
41 35 0:44 / /mnt/odd rw - fuse.of\040mine x rw
46 35 0:47 - /mnt/dash rw - nfs x rw
42 35 4294967296:0 / /mnt/huge rw - nfs x rw
43 35 nonsense / /mnt/none rw - nfs x rw
44 35 0:45 / /mnt/short rw -
45 35 0:46 / /mnt/nodash rw nfs x rw
47 35 0:48 / /mnt/old ro - fuse.replicator replicator ro

"""


def test_lines_are_read_and_escapes_undone() -> None:
    assert parse_mountinfo(MOUNTINFO) == [
        Mount(os.makedev(0, 21), b"/proc", b"proc"),
        Mount(os.makedev(0, 22), b"/sys", b"sysfs"),
        Mount(os.makedev(254, 0), b"/", b"ext4"),
        Mount(os.makedev(98, 0), b"/mnt/with space\tand\\more", b"nfs4"),
        Mount(os.makedev(0, 40), b"/mnt/-", b"fuse.sshfs"),
        Mount(os.makedev(0, 41), b"/home/anna/auto", b"autofs"),
        Mount(os.makedev(8, 1), b"/home/anna/auto", b"ext4"),
        Mount(os.makedev(0, 43), b"/run", b"tmpfs"),
        Mount(os.makedev(0, 44), b"/mnt/odd", b"fuse.of mine"),
        Mount(os.makedev(0, 47), b"/mnt/dash", b"nfs"),
        Mount(os.makedev(0, 48), b"/mnt/old", b"fuse.replicator"),
    ]
    assert parse_mountinfo(b"") == []


@pytest.mark.parametrize(
    ("device", "path", "reason"),
    [
        ((0, 21), b"/proc", "a pseudo file system (proc)"),
        ((98, 0), b"/mnt/with space\tand\\more", "a network file system (nfs4)"),
        ((0, 40), b"/mnt/-", "a network file system (fuse.sshfs)"),
        ((0, 43), b"/run", "a file system in memory (tmpfs)"),
        ((0, 48), b"/mnt/old", "a pseudo file system (fuse.replicator)"),
        ((254, 0), b"/", ""),
        ((0, 44), b"/mnt/odd", ""),
        ((77, 77), b"/nowhere", ""),
    ],
)
def test_network_pseudo_and_volatile_file_systems_are_told_from_local_ones(
    device: tuple[int, int], path: bytes, reason: str
) -> None:
    mounts = Mounts(MOUNTINFO)
    assert mounts.on_device(os.makedev(*device)) == reason
    assert mounts.at(path) == reason


def test_what_was_mounted_last_hides_what_was_there_before() -> None:
    mounts = Mounts(MOUNTINFO)
    assert mounts.on_device(os.makedev(0, 41)) == "a pseudo file system (autofs)"
    assert mounts.at(b"/home/anna/auto") == ""
    assert mounts.on_device(os.makedev(8, 1)) == ""


@pytest.mark.parametrize(
    "kind", b"ext4 xfs btrfs zfs vfat fuseblk overlay squashfs fuse.mergerfs fuse.gocryptfs fuse f2fs".split()
)
def test_local_and_unknown_file_systems_are_crossed(kind: bytes) -> None:
    mounts = Mounts(b"36 35 98:0 / /mnt rw - %s x rw" % kind)
    assert mounts.at(b"/mnt") == mounts.on_device(os.makedev(98, 0)) == ""


def test_the_machine_says_what_is_mounted() -> None:
    found = parse_mountinfo(PosixSource().mounts())
    proc = os.stat("/proc").st_dev
    assert any(mount.device == proc for mount in found)
    assert Mounts(PosixSource().mounts()).on_device(proc) == "a pseudo file system (proc)"


def test_a_machine_that_does_not_say_it_is_not_backed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MOUNTINFO", "/nowhere/mountinfo")
    with pytest.raises(SourceError, match="/nowhere/mountinfo cannot be read: No such file") as caught:
        PosixSource().mounts()
    assert "/proc" in caught.value.hint
