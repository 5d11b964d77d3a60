"""Which copies are more than was promised and may be given up: decided from a plan, and from who is sure of the others.

Pure functions of values. A copy is spare only if all copies that the promise is kept with, without it, are sure: what
makes one sure is the caller's, a claim or a fresh look. Nothing here gives anything up.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from scheduler import Pack, PackId, PeerId, Plan, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Spare:
    """A copy that may be given up: ``copies`` are promised, and ``beside`` are those who keep them."""

    pack: PackId
    size: int
    peer: PeerId
    beside: tuple[PeerId, ...]
    copies: int
    why: str


def spare_copies(
    plan: Plan, packs: Iterable[Pack], policies: Iterable[Policy], sure: Mapping[PackId, Collection[PeerId]]
) -> list[Spare]:
    """Return which of a plan's surplus copies may go, in its order, given whose copies are sure.

    Every other promised copy must be one of these. Shards are never spare: none stands in for another.
    """
    by_id = {pack.id: pack for pack in packs}
    rules = {policy.name: policy for policy in policies}
    found = []
    for one in plan.surplus:
        pack = by_id[one.pack]
        policy, kept = rules[pack.policy], plan.kept[one.pack]
        if policy.coding is None and len(kept) >= policy.copies and set(kept) <= set(sure.get(one.pack, ())):
            found.append(
                Spare(
                    pack=one.pack,
                    size=pack.size,
                    peer=one.peer,
                    beside=tuple(sorted(kept)),
                    copies=policy.copies,
                    why=one.why,
                )
            )
    _check(found)
    return found


def short_packs(plan: Plan) -> set[PackId]:
    """Return the packs with fewer or other copies than promised: what was given up of them is wanted back."""
    return {one.pack for rows in (plan.additions, plan.debts, plan.refused, plan.relaxations) for one in rows}


def _check(found: Iterable[Spare]) -> None:
    """Restate what must hold of all that is given up together."""
    going: dict[PackId, set[PeerId]] = {}
    for one in found:
        going.setdefault(one.pack, set()).add(one.peer)
    for one in found:
        assert len(set(one.beside)) >= one.copies, "as many copies stay as are promised"
        assert not going[one.pack] & set(one.beside), "no copy goes that another goes for"
