"""The trial restores that a home has made and signed."""

from typing import Final

from replicator.crypto.sign import Context, verify
from replicator.engine.home import Half
from replicator.errors import ReplicatorError
from replicator.format.codec import decode
from replicator.format.drill import Drill

RUN: Final = "drill"
"""What the catalog's runs call it."""


def drills(half: Half) -> list[Drill]:
    """Return the newest drill of each dataset that this home has made, by name; what it did not sign does not count."""
    newest: dict[str, Drill] = {}
    for run in half.catalog.runs(RUN):
        try:
            signed = bytes.fromhex(str(run["signed"]))
            found = decode(Drill, verify(signed, Context.DRILL, [half.signing.public]))
        except (KeyError, ValueError, ReplicatorError):
            continue
        newest[found.dataset] = found
    return [newest[name] for name in sorted(newest)]
