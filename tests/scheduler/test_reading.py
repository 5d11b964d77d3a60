from __future__ import annotations

import math

import pytest

from scheduler.reading import Fetch, ReadQueue, Speeds
from tests.scheduler.readworld import World, drifting, fetch_all, least

MIB = 2**20


class FirstHolder(ReadQueue[str, str]):
    """What is done without thinking: each pack from the first peer that has it."""

    def add(self, pack: str, size: int, holders: object) -> None:
        assert isinstance(holders, frozenset)
        super().add(pack, size, {min(holders)})


def queue_of(*packs: tuple[str, str], speeds: Speeds[str] | None = None) -> ReadQueue[str, str]:
    queue: ReadQueue[str, str] = ReadQueue(speeds)
    for pack, holders in packs:
        queue.add(pack, 16 * MIB, holders.split())
    return queue


def begun(queue: ReadQueue[str, str], peer: str, now: float = 0.0) -> Fetch[str, str]:
    fetch = queue.next(peer, now)
    assert fetch is not None
    return fetch


@pytest.mark.parametrize("link", [math.inf, 12e6], ids=["the peers' lines", "the client's own line"])
@pytest.mark.parametrize(("peers", "packs", "copies"), [(3, 60, 2), (5, 100, 3), (8, 120, 3), (8, 150, 2)])
def test_a_restore_takes_at_most_a_fifth_more_than_the_least_possible_time(
    peers: int, packs: int, copies: int, link: float
) -> None:
    for seed in range(4):
        world = drifting(seed, peers=peers, packs=packs, copies=copies, link=link)
        took, wasted = fetch_all(world, ReadQueue())
        assert took >= least(world) * (1 - 1e-9)
        assert took <= 1.2 * least(world)
        assert wasted <= 0.06 * sum(size for size, _ in world.packs.values())


def test_always_asking_the_first_holder_takes_much_longer() -> None:
    worlds = [drifting(seed, peers=5, packs=60, copies=3) for seed in range(3)]
    assert all(fetch_all(world, FirstHolder())[0] > 1.5 * least(world) for world in worlds)


def test_the_least_possible_time_is_that_of_the_tightest_set_of_peers() -> None:
    packs = {"a": (20, frozenset({"x"})), "b": (20, frozenset({"x", "y"})), "c": (10, frozenset({"y", "z"}))}
    world = World(packs, {"x": [1.0], "y": [2.0], "z": [9.0]})
    assert least(world) == pytest.approx(20.0)  # x alone has a
    assert least(World(packs, world.speeds, link=2.0)) == pytest.approx(25.0)


def test_what_only_one_peer_holds_is_fetched_from_it_first() -> None:
    queue = queue_of(("both", "fast slow"), ("mine", "fast"), ("theirs", "slow"))
    assert begun(queue, "fast").pack == "mine"
    assert begun(queue, "slow").pack == "theirs"
    assert queue.unbegun == 1


def test_a_line_that_breaks_down_does_not_hold_up_the_end() -> None:
    dying = [5e6] * 2 + [1e3] * 2000
    packs = {f"k{number}": (16 * MIB, frozenset({"good", "dying"})) for number in range(20)}
    world = World(packs, {"good": [5e6], "dying": dying})
    took, wasted = fetch_all(world, ReadQueue())
    assert took < 1.3 * least(world)
    assert 0 < wasted <= 16 * MIB


def test_the_slow_end_is_fetched_twice_and_the_first_to_come_counts() -> None:
    speeds: Speeds[str] = Speeds()
    speeds.measured("fast", 16 * MIB, 2.0)
    speeds.measured("slow", 16 * MIB, 60.0)
    queue = queue_of(("a", "fast slow"), speeds=speeds)
    late = begun(queue, "slow")
    again = begun(queue, "fast", 1.0)
    assert (again.pack, again.peer) == ("a", "fast")
    assert queue.next("fast", 1.0) is None
    assert queue.next("third", 1.0) is None
    assert queue.arrived(again, 3.0) == [late]
    assert len(queue) == 0


def test_nothing_is_fetched_twice_that_will_soon_be_there() -> None:
    speeds: Speeds[str] = Speeds()
    for peer in ("one", "two"):
        speeds.measured(peer, 16 * MIB, 4.0)
    queue = queue_of(("a", "one two"), speeds=speeds)
    begun(queue, "one")
    assert queue.next("two", 1.0) is None
    assert queue.next("two", 40.0) is not None  # it should have come long ago


def test_a_pack_that_was_refused_goes_to_another_holder_and_to_nobody_at_last() -> None:
    queue = queue_of(("a", "one two"), ("b", "one two"))
    first = begun(queue, "one")
    assert queue.failed(first)
    assert begun(queue, "one").pack == "b"
    second = begun(queue, "two")
    assert second.pack == "a"
    assert not queue.failed(second)
    assert len(queue) == 1


def test_a_refusal_of_one_of_two_fetches_leaves_the_other() -> None:
    queue = queue_of(("a", "one two"))
    first, second = begun(queue, "one"), begun(queue, "two", 99.0)
    assert queue.failed(first)
    assert queue.next("one", 200.0) is None
    assert queue.arrived(second, 201.0) == []


def test_who_answers_no_more_is_not_waited_for() -> None:
    queue = queue_of(("a", "one"), ("b", "one two"), ("c", "two"))
    fetch = begun(queue, "one")
    assert fetch.pack == "a"
    assert queue.gone("one") == []
    assert not queue.failed(fetch)
    assert {begun(queue, "two").pack, begun(queue, "two").pack} == {"b", "c"}
    assert queue_of(("a", "one"), ("b", "one two")).gone("one") == ["a"]


def test_speeds_follow_what_is_measured_and_nobody_is_never_tried() -> None:
    speeds: Speeds[str] = Speeds(guess=7.0)
    assert speeds.of("new") == 7.0
    speeds.measured("old", 100, 10.0)
    assert speeds.of("old") == 10.0
    assert speeds.of("new") == 10.0
    speeds.measured("old", 100, 1.0)
    assert 10 < speeds.of("old") < 100
    before = speeds.of("old")
    speeds.at_most("old", 10_000, 1.0)
    assert speeds.of("old") == before
    speeds.at_most("old", 1, 1.0)
    assert speeds.of("old") < before


def test_nothing_is_begun_again_for_who_only_wants_what_is_new() -> None:
    queue = queue_of(("a", "one two"))
    begun(queue, "one")
    assert queue.next("two", 99.0, again=False) is None
    assert queue.next("two", 99.0) is not None


def test_what_nobody_has_begun_can_be_taken_back() -> None:
    queue = queue_of(("a", "one"), ("b", "one"))
    first = begun(queue, "one")
    assert not queue.withdraw("a")
    assert "b" in queue
    assert queue.withdraw("b")
    assert not queue.withdraw("b")
    assert "b" not in queue
    assert queue.next("one", 1.0) is None
    assert queue.arrived(first, 1.0) == []
