"""Which of several charters, shown by providers that need not be honest, is the newest; which exclude each other. Pure.

Whoever recovers remembers nothing, so one provider alone can show him an old charter, or one by an owner that root has
replaced. What root named last goes before any number, since numbers are the owner's to choose.
"""

from collections.abc import Sequence
from itertools import combinations

from replicator.charter.verify import MOST_AHEAD, VerifiedCharter

HIGHEST: int = 2**62
"""The end of the range of a charter's numbers (format.md)."""


def excludes(one: VerifiedCharter, other: VerifiedCharter) -> bool:
    """Return whether two charters of a tenant cannot both be in its chain: the owner key, or root, signed twice.

    Under two root statements of different numbers neither tells: the later one names another owner for a reason.
    """
    if one.charter.root != other.charter.root:
        return one.root.number == other.root.number
    earlier, later = sorted((one, other), key=lambda charter: charter.number)
    if earlier.number == later.number:
        return earlier.hash != later.hash
    return later.number == earlier.number + 1 and later.charter.previous != earlier.hash


def forks(charters: Sequence[VerifiedCharter]) -> list[tuple[VerifiedCharter, VerifiedCharter]]:
    """Return the pairs that exclude each other, each once, the earlier first."""
    different = list({charter.hash: charter for charter in charters}.values())
    pairs = [pair for pair in combinations(different, 2) if excludes(*pair)]
    return [(one, two) if (one.number, one.hash) < (two.number, two.hash) else (two, one) for one, two in pairs]


def ranked(charters: Sequence[VerifiedCharter]) -> list[VerifiedCharter]:
    """Return different charters, the newest first: by root's number, then the owner's, then how many show it.

    What leaps from another that is shown, so that who has that one refuses it, comes after all that does not.
    """
    shown: dict[bytes, int] = {}
    for charter in charters:
        shown[charter.hash] = shown.get(charter.hash, 0) + 1
    different = list({charter.hash: charter for charter in charters}.values())
    lowest = {one.root.number: one.number for one in sorted(different, key=lambda one: one.number, reverse=True)}

    def rank(one: VerifiedCharter) -> tuple[int, bool, int, int, bytes]:
        reached = one.number <= lowest[one.root.number] + MOST_AHEAD
        return one.root.number, reached, one.number, shown[one.hash], one.hash

    return sorted(different, key=rank, reverse=True)


def next_number(base: VerifiedCharter, charters: Sequence[VerifiedCharter]) -> int:
    """Return the number of a charter upon ``base`` that every provider which showed one of these can take.

    A number may jump, and one that follows directly must name what it follows; so where another charter than ``base``
    has the highest number, one is left out. A number that cannot be reached from ``base`` is passed over.
    """
    most = min(base.number + MOST_AHEAD, HIGHEST) - 2
    others = [one.number for one in charters if one.hash != base.hash and base.number <= one.number <= most]
    return max((base.number + 1, *(number + 2 for number in others)))
