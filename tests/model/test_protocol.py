"""Every state of the protocol: nothing live is lost, and as soon as a rule is left out, something is."""

import pytest

from tests.model.protocol import Protocol, Rules, Size
from tests.model.search import Found, search

PLANTED: dict[str, tuple[Rules, Size]] = {
    "no claim": (Rules(claim=False), Size(providers=1)),
    "a stale view is accepted": (Rules(view=False), Size(providers=1)),
    "no compare-and-set": (Rules(compare=False), Size(providers=1, names=2, writers=1)),
    "grace by the clock alone": (
        Rules(view=False, compare=False, refuse_claimed=False, clears=False, anew=False),
        Size(providers=1),
    ),
    "claimed objects can be marked": (Rules(refuse_claimed=False), Size(providers=1)),
    "a claim leaves the mark": (Rules(clears=False), Size(providers=1)),
    "a retired writer publishes": (Rules(retired_heads=False), Size(providers=1)),
    "a store that was put back takes marks at once": (Rules(anew=False, anew_heads=False), Size(providers=1)),
    "a store that was put back takes heads at once": (Rules(anew_heads=False), Size(providers=1)),
    "a release without current receipts": (Rules(receipts=False), Size(providers=2, writers=1, maintainers=1)),
    "a release is counted twice by two maintainers": (Rules(adopt=False, hold=False), Size(providers=2, writers=1)),
    "a release before the writer let go": (Rules(let_go=False), Size(providers=2, writers=1, maintainers=1)),
    "a claim that hung undoes a retirement unheard": (Rules(fence=False), Size(providers=1, late=True)),
}


def _at_least(found: Found, states: int) -> None:
    assert found.trace == ()
    assert found.states >= states or found.complete
    assert found.gone > 0, "nothing was ever deleted: this proves nothing"


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str) -> None:
    rules, size = PLANTED[bug]
    found = search(Protocol(size, rules), limit=5_000_000)
    assert found.trace, f"{found.states} states and nothing lost"
    assert found.trace[-1].startswith(("sweep", "publish"))


@pytest.mark.parametrize(
    "size",
    [
        Size(providers=1),
        Size(providers=1, names=2, writers=1),
        Size(providers=1, names=2, maintainers=1),
        Size(providers=1, late=True),
        Size(providers=2, writers=1, maintainers=1),
    ],
    ids=str,
)
def test_nothing_is_lost_in_any_state_of_a_small_federation(size: Size) -> None:
    found = search(Protocol(size), limit=5_000_000)
    assert found.complete
    _at_least(found, 1)


def test_two_writers_two_maintainers_and_two_providers_lose_nothing_in_a_million_states() -> None:
    _at_least(search(Protocol(Size(providers=2)), limit=1_000_000), 1_000_000)


def test_shards_of_which_two_of_three_are_needed_are_not_lost() -> None:
    # Each is a name of its own at one provider, so none is surplus to another.
    _at_least(
        search(Protocol(Size(providers=3, writers=1, maintainers=1, minimum=3, needed=2, shards=True)), limit=10**6), 1
    )


@pytest.mark.slow
def test_receipts_alone_do_not_keep_two_maintainers_from_giving_up_both_copies() -> None:
    found = search(Protocol(Size(providers=2, writers=1), Rules(adopt=False)), limit=10_000_000)
    assert found.trace[-1].startswith("sweep")


@pytest.mark.slow
@pytest.mark.parametrize(
    "size",
    [
        Size(providers=2),
        Size(providers=2, writers=1),
        Size(providers=1, names=2),
        Size(providers=3, writers=1),
        Size(providers=2, minimum=2),
        Size(providers=3, writers=1, minimum=2),
        Size(providers=3, writers=1, maintainers=1, copies=2),
        Size(providers=2, late=True),
        Size(providers=2, writers=1, late=True),
    ],
    ids=str,
)
def test_nothing_is_lost_in_ten_million_states(size: Size) -> None:
    _at_least(search(Protocol(size), limit=10_000_000), 10_000_000)
