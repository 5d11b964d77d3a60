"""Since when a provider answers without its disk: it is heard of every day, and what it holds is not."""

from replicator.engine.home import Half
from replicator.ids import Identity


def disk_away_since(half: Half, identity: Identity) -> int:
    """Return the time (ns) at which its disk was first found away, 0 if it was there when it was last asked for."""
    return int.from_bytes(half.catalog.meta(_place(identity)) or b"")


def note_disk(half: Half, identity: Identity, now_ns: int, *, away: bool) -> None:
    """Remember whether the disk was there when something on it was asked for."""
    since_ns = disk_away_since(half, identity)
    if away != bool(since_ns) or since_ns > now_ns:  # a time to come is of a clock that went wrong
        half.catalog.set_meta(_place(identity), now_ns.to_bytes(8) if away else b"")


def _place(identity: Identity) -> str:
    return f"disk away since {identity.hex()}"
