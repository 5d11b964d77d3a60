"""Which copies may go: those that a kept promise can do without, and only while all who keep it are sure."""

from collections.abc import Collection, Mapping

from hypothesis import given
from hypothesis import strategies as st

from replicator.engine.releaseplan import Spare, short_packs, spare_copies
from scheduler import Pack, PackId, Peer, PeerId, Plan, Policy, place

POLICY = Policy(name="p", copies=2, minimum=1)
PACK = PackId("pack")
NAMES = ("a", "b", "c", "d")


def peer(name: str, **changes: object) -> Peer:
    values: dict[str, object] = {"capacity": 10**9, "owner": name, "site": name, "region": name, "country": "SE"}
    return Peer(id=PeerId(name), **(values | changes))  # type: ignore[arg-type]


def plan_of(held: Collection[str], *peers: Peer, policy: Policy = POLICY) -> Plan:
    packs = [Pack(id=PACK, size=100, policy="p")]
    return place(packs, peers or [peer(name) for name in NAMES], policy, {PACK: {PeerId(one) for one in held}})


def spare(plan: Plan, sure: Collection[str], policy: Policy = POLICY) -> list[Spare]:
    known: Mapping[PackId, set[PeerId]] = {PACK: {PeerId(one) for one in sure}}
    return spare_copies(plan, [Pack(id=PACK, size=100, policy="p")], [policy], known)


def test_a_copy_beyond_the_promise_is_spare_if_all_others_are_sure() -> None:
    plan = plan_of("abc")
    kept = set(plan.kept[PACK])
    [one] = spare(plan, kept)
    assert ({one.peer, *one.beside}, set(one.beside)) == ({"a", "b", "c"}, kept)
    assert (one.copies, one.size) == (2, 100)
    assert "2 promised copies lie on" in one.why
    for unsure in kept:
        assert spare(plan, kept - {unsure}) == []
    assert spare(plan, ()) == []


def test_as_many_as_are_promised_are_never_spare() -> None:
    for held in ("a", "ab", ""):
        assert spare(plan_of(held), NAMES) == []


def test_a_copy_on_who_is_leaving_is_spare_once_the_others_are_enough() -> None:
    leaving = [peer("a", state="draining"), *(peer(name) for name in "bcd")]
    assert spare(plan_of("ab", *leaving), NAMES) == []
    [one] = spare(plan_of("abc", *leaving), NAMES)
    assert (one.peer, one.beside) == ("a", ("b", "c"))


def test_nothing_is_spare_where_copies_share_what_they_must_not() -> None:
    together = [peer("a", region="x"), peer("b", region="x"), peer("c", region="x")]
    policy = Policy(name="p", copies=2, minimum=1, spread=frozenset({"owner", "region"}))
    plan = plan_of("abc", *together, policy=policy)
    assert spare(plan, NAMES, policy) == []
    assert short_packs(plan) == {PACK}


def test_of_who_is_silent_nobody_is_sure() -> None:
    silent = [peer("a", state="suspect"), peer("b"), peer("c"), peer("d", state="lost")]
    plan = plan_of("abc", *silent)
    assert [one.peer for one in spare(plan, ("b", "c"))] == ["a"]
    assert spare(plan, ("a", "b")) == []


@given(
    held=st.sets(st.sampled_from(NAMES)),
    sure=st.sets(st.sampled_from(NAMES)),
    states=st.lists(st.sampled_from(["ok", "readonly", "draining", "lost", "suspect"]), min_size=4, max_size=4),
    copies=st.integers(1, 4),
)
def test_whatever_lies_wherever_all_promised_copies_are_sure_after_all_that_is_spare_went(
    held: set[str], sure: set[str], states: list[str], copies: int
) -> None:
    policy = Policy(name="p", copies=copies, minimum=1)
    peers = [peer(name, state=state) for name, state in zip(NAMES, states, strict=True)]
    plan = plan_of(held, *peers, policy=policy)
    found = spare(plan, sure, policy)
    left = (held & sure) - {str(one.peer) for one in found}
    counting = {one.id for one in peers if one.state in {"ok", "readonly", "suspect"}}
    assert not found or len(left & counting) >= copies
    assert {str(one.peer) for one in found} <= held
    assert not found or not short_packs(plan)
