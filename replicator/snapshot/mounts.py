"""Which file systems a backup does not walk into, read from ``/proc/self/mountinfo``.

What is a type of its own is decided by name, and an unknown type is crossed: to save too much is seen the same night,
to save too little when it is too late.
"""

import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

NETWORK: Final = frozenset(
    b"9p afs beegfs ceph cifs coda davfs fuse.ceph fuse.ceph-fuse fuse.cephfs fuse.curlftpfs fuse.davfs fuse.gcsfuse "
    b"fuse.glusterfs fuse.goofys fuse.gvfsd-fuse fuse.juicefs fuse.lizardfs fuse.mfs fuse.moosefs fuse.rclone "
    b"fuse.s3fs fuse.seaweedfs fuse.sshfs fuse.vmhgfs-fuse gpfs lustre ncpfs nfs nfs4 orangefs prl_fs pvfs2 smb2 smb3 "
    b"smbfs vboxsf virtiofs vmhgfs".split()
)
"""Somebody else's files, also those of the host of a virtual machine: they are for a node over there."""
PSEUDO: Final = frozenset(
    b"autofs binder binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs functionfs "
    b"fuse.lxcfs fuse.portal fuse.replicator fusectl hugetlbfs mqueue nfsd nsfs proc pstore resctrl rpc_pipefs "
    b"securityfs selinuxfs smackfs sysfs tracefs".split()
)
"""No files at all, or those that lie elsewhere, as snapshots that are shown. To open what ``autofs`` waits for would
mount it."""
VOLATILE: Final = frozenset({b"tmpfs", b"ramfs"})
"""Local, but nothing in them is meant to live longer than until the machine is switched off."""

_OCTAL = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line: the device as in ``st_dev``, where it is seen, and its type."""

    device: int
    path: bytes
    type: bytes


def parse_mountinfo(text: bytes) -> list[Mount]:
    """Return what is mounted, in the kernel's order; a line of another form than proc(5) has is passed over."""
    found = []
    for fields in mount_fields(text):
        try:
            device, _, path, kind = fields[:4]
            major, minor = map(int, device.split(b":"))
            found.append(Mount(os.makedev(major, minor), path, kind))
        except (ValueError, OverflowError):
            continue
    return found


def mount_fields(text: bytes) -> Iterator[list[bytes]]:
    """Yield of each line of ``/proc/self/mountinfo`` that has one: device, root, place, type, source and options.

    Those that a line ends before are not there (proc_pid_mountinfo(5)).
    """
    for line in text.splitlines():
        fields = line.split(b" ")
        if b"-" in fields[6:]:
            dash = fields.index(b"-", 6)  # as many optional fields are before it as the kernel likes
            yield [_decoded(field) for field in (*fields[2:5], *fields[dash + 1 :])]


def _decoded(field: bytes) -> bytes:
    # Space, tab, newline and backslash are written as three octal digits.
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), field)


class Mounts:
    """The file systems of a machine that are left out, by device and by place."""

    def __init__(self, text: bytes = b"") -> None:
        mounts = parse_mountinfo(text)
        self._devices = {mount.device: reason for mount in mounts if (reason := _reason(mount.type))}
        # What was mounted last at a place hides what was there before.
        places = {mount.path: mount.type for mount in mounts}
        self._places = {path: reason for path, kind in places.items() if (reason := _reason(kind))}

    def on_device(self, device: int) -> str:
        """Return why what lies on a device is left out, or nothing."""
        return self._devices.get(device, "")

    def at(self, path: bytes) -> str:
        """Return why what is mounted at a path is left out, or nothing."""
        return self._places.get(path, "")


def _reason(kind: bytes) -> str:
    name = kind.decode("ascii", "backslashreplace")
    if kind in NETWORK:
        return f"a network file system ({name})"
    if kind in PSEUDO:
        return f"a pseudo file system ({name})"
    if kind in VOLATILE:
        return f"a file system in memory ({name})"
    return ""
