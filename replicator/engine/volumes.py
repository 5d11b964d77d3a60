"""Which snapshots of file systems a dataset is to be read from, and the commands for them; nothing is run here.

A snapshot is called ``replicator-DATASET-xxxxxxxx``: what is left of a killed run is known by that, and two homes on
one machine never take each other's. ``docs/operate/consistent.md`` says what each kind needs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from blake3 import blake3

from replicator.engine.unfinished import Volume
from replicator.errors import SourceError
from replicator.format.consistency import SnapshotKind
from replicator.snapshot.mounts import mount_fields
from replicator.snapshot.tree import escape

Kind = Literal["btrfs", "zfs", "lvm"]
Argv = tuple[str | bytes, ...]

LVM_ROOM: Final = "20%ORIGIN"
"""Room for what changes on the origin while a snapshot outside a pool is read; a full one can be read no more."""
_ON_LVM: Final = {"ext2": "ro", "ext3": "ro", "ext4": "ro", "xfs": "ro,nouuid,norecovery"}
"""File systems of which an LVM snapshot is mounted, and how. A second btrfs of one id would be taken for the first."""
_NAME: Final = re.compile(r"replicator-[A-Za-z0-9_]{1,40}-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A mounted file system: ``root`` is the folder in it that is seen at ``point``."""

    point: bytes
    root: bytes
    kind: str
    source: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LogicalVolume:
    """What a device is to LVM."""

    group: str
    name: str
    thin: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RootFacts:
    """What has to be looked up about a root: ``real`` is it with links followed.

    ``subvolume`` is the btrfs subvolume's folder that ``real`` is in, None if that is out of reach from where it is
    mounted; ``logical`` what LVM says of the device.
    """

    path: bytes
    real: bytes
    subvolume: bytes | None = None
    logical: LogicalVolume | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The snapshots to make, where each root is then to be read, and which are read as they are, with the reason."""

    volumes: tuple[Volume, ...]
    places: Mapping[bytes, bytes]
    live: tuple[tuple[bytes, str], ...]


class _NotPossibleError(Exception):
    """A root cannot be read from a snapshot."""


def snapshot_name(dataset: str, identity: bytes) -> str:
    """Return what the snapshots of a node's dataset are called; every kind takes such a name."""
    tag = blake3(identity + dataset.encode("utf-8", "surrogatepass")).hexdigest(length=4)
    return f"replicator-{re.sub('[^A-Za-z0-9_]', '_', dataset)[:40]}-{tag}"


def parse_mounts(text: bytes) -> list[Mount]:
    """Return what ``/proc/self/mountinfo`` says, in its order (proc_pid_mountinfo(5))."""
    return [
        Mount(point=fields[2], root=fields[1], kind=fields[3].decode("ascii", "replace"), source=fields[4])
        for fields in mount_fields(text)
        if len(fields) > 4
    ]


def is_within(path: bytes, folder: bytes) -> bool:
    """Return whether a path is a folder or below it."""
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def mount_of(mounts: Sequence[Mount], path: bytes) -> Mount | None:
    """Return the mount that a path is on; of several at one place the last hides the others."""
    best: Mount | None = None
    for mount in mounts:
        if is_within(path, mount.point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def plan_volumes(
    wanted: SnapshotKind,
    facts: Sequence[RootFacts],
    mounts: Sequence[Mount],
    *,
    name: str,
    folder: bytes,
    one_file_system: bool,
) -> Plan:
    """Decide which snapshots are made for a dataset's roots.

    ``name`` is what they are called, ``folder`` (its real path) where file systems may be mounted.

    Raises:
        SourceError: a root cannot be read from the kind of snapshot that is wanted; with "auto" it is read as it is.
    """
    volumes: dict[tuple[str, bytes], Volume] = {}
    places: dict[bytes, bytes] = {}
    live: list[tuple[bytes, str]] = []
    for root in facts:
        try:
            volume, place = _for_root(wanted, root, mounts, name, folder, one_file_system=one_file_system)
        except _NotPossibleError as error:
            if wanted != "auto":
                raise SourceError(
                    f"{escape(root.path)} cannot be read from a {wanted} snapshot: {error}",
                    hint="correct the dataset's paths, or `dataset set NAME --snapshot auto` or `none`",
                ) from error
            live.append((root.path, str(error)))
            continue
        volumes.setdefault((volume.kind, volume.origin), volume)
        places[root.path] = place
    return Plan(volumes=tuple(volumes.values()), places=places, live=tuple(live))


def _for_root(
    wanted: SnapshotKind,
    root: RootFacts,
    mounts: Sequence[Mount],
    name: str,
    folder: bytes,
    *,
    one_file_system: bool,
) -> tuple[Volume, bytes]:
    mount = mount_of(mounts, root.real)
    if mount is None:
        raise _NotPossibleError("it is on no file system that is mounted")
    if not one_file_system:
        below = [other.point for other in mounts if other.point != root.real and is_within(other.point, root.real)]
        if below:
            raise _NotPossibleError(
                f"{escape(below[0])}, another file system, is mounted in it; use --one-file-system and name that as a "
                "path of its own"
            )
    kind = _kind_of(mount, root)
    if kind is None or wanted not in (kind, "auto"):
        raise _NotPossibleError(f"it is on {mount.kind} ({escape(mount.source)})")
    if kind == "btrfs":
        if root.subvolume is None:
            raise _NotPossibleError("a folder of a subvolume is mounted there, not the subvolume")
        place = _joined(root.subvolume, name.encode())
        volume = Volume(kind=kind, origin=root.subvolume, name=name, place=place)
        return volume, _below(place, root.real, root.subvolume)
    if kind == "zfs":
        whole = next((one for one in mounts if one.source == mount.source and one.root == b"/"), None)
        if whole is None:
            raise _NotPossibleError("a folder of a ZFS file system is mounted there, and the file system nowhere")
        place = _joined(whole.point, b".zfs/snapshot/" + name.encode())
        volume = Volume(kind=kind, origin=mount.source, name=name, place=place)
    else:
        logical = root.logical
        assert logical is not None, "that is what makes it LVM"
        origin = f"{logical.group}/{logical.name}".encode()
        # One folder for each: two volumes of a dataset have snapshots of the same name.
        place = _joined(folder, f"{name}-{blake3(origin).hexdigest(length=4)}".encode())
        volume = Volume(kind=kind, origin=origin, name=name, place=place, file_system=mount.kind, thin=logical.thin)
    return volume, _below(_below(place, mount.root, b"/"), root.real, mount.point)


def _kind_of(mount: Mount, root: RootFacts) -> Kind | None:
    if mount.kind == "btrfs":
        return "btrfs"
    if mount.kind == "zfs":
        return "zfs"
    return "lvm" if root.logical is not None and mount.kind in _ON_LVM else None


def _joined(folder: bytes, name: bytes) -> bytes:
    return folder.rstrip(b"/") + b"/" + name


def _below(place: bytes, path: bytes, top: bytes) -> bytes:
    """Return where in ``place`` lies what lies at ``path`` in ``top``."""
    rest = path[len(top.rstrip(b"/")) :].strip(b"/")
    return _joined(place, rest) if rest else place


def logical_volume_query(device: bytes) -> Argv:
    """Return the command that says what a device is to LVM."""
    return ("lvs", "--noheadings", "--separator", "|", "-o", "vg_name,lv_name,pool_lv", "--", device)


def parse_logical_volume(answer: bytes) -> LogicalVolume | None:
    """Return what the answer to :func:`logical_volume_query` says."""
    for line in answer.decode("utf-8", "replace").splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 3 and all(fields[:2]):
            return LogicalVolume(group=fields[0], name=fields[1], thin=bool(fields[2]))
    return None


def listing(volume: Volume) -> Argv:
    """Return the command that lists what could be snapshots of the origin."""
    if volume.kind == "btrfs":
        return ("find", volume.origin, "-mindepth", "1", "-maxdepth", "1", "-name", volume.name, "-printf", "%f")
    if volume.kind == "zfs":
        return ("zfs", "list", "-H", "-t", "snapshot", "-d", "1", "-o", "name", volume.origin)
    return ("lvs", "--noheadings", "-o", "lv_name", "--", _group(volume))


def is_there(volume: Volume, answer: bytes) -> bool:
    """Return whether the answer to :func:`listing` names this snapshot."""
    name = volume.name.encode()
    listed = volume.origin + b"@" + name if volume.kind == "zfs" else name
    return listed in {line.strip() for line in answer.splitlines()}


def creation(volume: Volume) -> list[Argv]:
    """Return the commands that make a snapshot that can be read. ``place`` of an LVM one is a folder that exists."""
    if volume.kind == "btrfs":
        return [("btrfs", "subvolume", "snapshot", "-r", volume.origin, volume.place)]
    if volume.kind == "zfs":
        return [("zfs", "snapshot", volume.origin + b"@" + volume.name.encode())]
    room: Argv = ("--setactivationskip", "n", "--activate", "y") if volume.thin else ("--extents", LVM_ROOM)
    device = b"/dev/" + _group(volume) + b"/" + volume.name.encode()
    options = f"{_ON_LVM[volume.file_system]},nodev,nosuid,noexec"
    return [
        ("lvcreate", "--snapshot", "--permission", "r", *room, "--name", volume.name, "--", volume.origin),
        ("mount", "-t", volume.file_system, "-o", options, "--", device, volume.place),
    ]


def removal(volume: Volume, mounts: Sequence[Mount]) -> list[Argv]:
    """Return the commands that remove a snapshot. Nothing but what has a snapshot's name is ever named in them."""
    if not _NAME.fullmatch(volume.name):
        raise ValueError(f"{volume.name!r} is no name of a snapshot")
    name = volume.name.encode()
    if volume.kind == "btrfs":
        return [("btrfs", "subvolume", "delete", _joined(volume.origin, name))]
    if volume.kind == "zfs":
        return [("zfs", "destroy", volume.origin + b"@" + name)]
    remove: Argv = ("lvremove", "--yes", "--", _group(volume) + b"/" + name)
    mounted = any(mount.point == volume.place for mount in mounts)
    return [("umount", "--", volume.place), remove] if mounted else [remove]


def _group(volume: Volume) -> bytes:
    return volume.origin.split(b"/")[0]
