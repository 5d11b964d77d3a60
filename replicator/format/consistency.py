"""What is done around a dataset's capture so that what is read belongs together."""

from typing import Annotated, Final, Literal

import msgspec

from replicator.format.codec import Part

MAX_COMMAND: Final = 64 << 10
DEFAULT_LIMIT_S: Final = 600
MAX_LIMIT_S: Final = 7 * 86400

Failure = Literal["fail", "warn"]
SnapshotKind = Literal["none", "btrfs", "zfs", "lvm", "auto"]
ShellCommand = Annotated[str, msgspec.Meta(max_length=MAX_COMMAND)]
LimitS = Annotated[int, msgspec.Meta(ge=1, le=MAX_LIMIT_S)]


class Consistency(Part, frozen=True, kw_only=True):
    """The hooks of a dataset, and the file system's snapshot that it is read from.

    ``before`` and ``after`` are for the shell, empty for none; each has ``limit_s`` seconds. ``failure`` is what a
    failing one does to its dataset. ``snapshot`` is what kind is made; "auto" takes what there is, or none.
    """

    before: ShellCommand = ""
    after: ShellCommand = ""
    limit_s: LimitS = DEFAULT_LIMIT_S
    failure: Failure = "fail"
    snapshot: SnapshotKind = "none"
