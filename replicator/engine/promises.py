"""What a pack is promised now: the policy it was stored under, or a weaker one where nothing asks for more any more."""

from collections.abc import Collection, Mapping

from replicator.engine.forgetting import Forgotten, without_forgotten
from replicator.engine.home import Half
from replicator.format.policy import Policy, at_least_as_strong


def promised(stored: bytes, asked: Collection[bytes], policies: Mapping[bytes, Policy]) -> bytes:
    """Return the policy that a pack is kept by: the weakest that it was stored or is asked for under, if it is enough.

    ``stored`` is the pack's own, ``asked`` are those of all snapshots that may need it. One of them takes the place of
    the pack's own if it is as strong as every other, and no stronger than what the pack was stored under.
    """
    if stored not in policies or any(one not in policies for one in asked):
        return stored
    for one in sorted(asked):
        wanted = policies[one]
        if at_least_as_strong(policies[stored], wanted) and all(
            at_least_as_strong(wanted, policies[other]) for other in asked
        ):
            return one
    return stored


def asked_of_indexes(half: Half) -> dict[int, set[bytes]]:
    """Return the policies of the snapshots that name each index, by its row id; of forgotten snapshots none.

    Left out are indexes of what a maintainer put together anew: every snapshot of its writer may be read through them.
    """
    moved = {one.index for one in Forgotten.of(half).moved}
    by_name: dict[bytes, set[bytes]] = {}
    for snapshot in without_forgotten(half, half.catalog.snapshots.all()):
        for name in snapshot.indexes:
            by_name.setdefault(name, set()).add(snapshot.policy)
    rows = half.catalog.objects.by_names(by_name.keys() - moved)
    return {row.id: by_name[row.name] for row in rows}
