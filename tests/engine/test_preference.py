from collections import Counter

import pytest

from replicator.engine.preference import AGAIN, Preference
from replicator.ids import Identity
from tests.fakes import FakeClock

FAST, SLOW, FAR = (Identity(bytes([number]) * 32) for number in range(3))
MIB = 1 << 20
SPEED = {FAST: 8 * MIB, SLOW: MIB, FAR: 4 * MIB}


def fetched(asking: Preference, clock: FakeClock, packs: int) -> list[Identity]:
    asked = []
    for pack in range(packs):
        first = asking.order(pack, 16 * MIB, [FAST, SLOW], [FAR], ())[0]
        with asking.of(first, 16 * MIB) as came:
            clock.advance(16 * MIB / SPEED[first])
            came()
        asked.append(first)
    return asked


def test_who_is_fast_is_asked_more_and_who_was_slow_now_and_then() -> None:
    clock = FakeClock()
    asked = Counter(fetched(Preference(clock), clock, 10 * AGAIN))
    assert asked[FAR] == 0
    assert 5 <= asked[SLOW] <= 12
    assert asked[FAST] > 300


def test_a_line_that_became_fast_is_found_out() -> None:
    clock = FakeClock()
    asking = Preference(clock)
    fetched(asking, clock, 2 * AGAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SPEED, SLOW, 64 * MIB)
        assert Counter(fetched(asking, clock, 5 * AGAIN))[SLOW] > 2 * AGAIN


def test_packs_that_are_asked_for_at_the_same_time_go_to_different_peers() -> None:
    asking = Preference(FakeClock())
    with asking.of(FAST, 16 * MIB):
        assert asking.order(0, 16 * MIB, [FAST, SLOW], [], ())[0] == SLOW
    assert asking.order(0, 16 * MIB, [FAST, SLOW], [], ()) == [FAST, SLOW]
    assert asking.order(1, 16 * MIB, [FAST, SLOW], [], ()) == [SLOW, FAST]


def test_holders_come_before_others_and_who_denied_it_last() -> None:
    asking = Preference(FakeClock())
    assert asking.order(0, MIB, [SLOW], [FAR, FAST], ()) == [SLOW, FAR, FAST]
    assert asking.order(0, MIB, [SLOW, FAST], [FAR], {SLOW}) == [FAST, FAR, SLOW]


def test_what_did_not_come_is_not_measured_and_not_waited_for() -> None:
    clock = FakeClock()
    asking = Preference(clock)
    with asking.of(FAST, MIB):
        clock.advance(1000)
    assert asking.order(0, MIB, [FAST, SLOW], [], ()) == [FAST, SLOW]
    with asking.of(None, MIB) as came:
        came()
