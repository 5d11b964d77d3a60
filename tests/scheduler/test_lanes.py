from collections import Counter

import pytest

from scheduler.lanes import Places, Round

A, B, C = b"a", b"b", b"c"


def test_there_are_no_more_than_so_many_and_without_a_limit_any_number() -> None:
    places = Places()
    assert [places.begin(A, 0, 2) for _ in range(3)] == [True, True, False]
    assert places.begin(A, 0, None)
    places.end(A)
    assert not places.begin(A, 0, 2)
    places.end(A)
    assert places.begin(A, 0, 2)


def test_a_place_that_gets_free_is_of_who_has_fewer_also_while_it_is_away() -> None:
    places = Places()
    assert places.begin(A, 0, 2)
    assert places.begin(A, 0, 2)
    assert not places.begin(A, 0, 2)
    assert not places.begin(B, 1, 2), "and is told to come back"
    places.end(A)
    assert not places.begin(A, 30, 2), "it is kept"
    assert places.begin(B, 40, 2)
    places.end(A)
    assert places.begin(A, 41, 2)


def test_of_those_with_as_many_the_one_that_asked_first_is_first() -> None:
    places = Places()
    assert places.begin(C, 0, 1)
    assert not places.begin(B, 1, 1)
    assert not places.begin(A, 2, 1)
    places.end(C)
    assert [places.begin(A, 3, 1), places.begin(B, 4, 1)] == [False, True]
    places.end(B)
    assert places.begin(A, 5, 1)


def test_who_does_not_come_back_keeps_nobody_out_for_long() -> None:
    places = Places()
    assert places.begin(A, 0, 1)
    assert not places.begin(B, 0, 1)
    places.end(A)
    assert not places.begin(A, 89, 1)
    assert places.begin(A, 90, 1)


def test_nobody_takes_the_places_of_all_others_where_nothing_is_kept() -> None:
    places = Places()

    def begun(who: bytes) -> int:
        count = 0
        while places.begin_at_once(who, 16):
            count += 1
        return count

    assert [begun(who) for who in (A, B, C, b"d", b"e", b"f")] == [8, 4, 2, 1, 1, 0]
    assert begun(A) == 0
    places.end(A)
    assert [begun(A), begun(B), begun(b"f")] == [0, 0, 1], "it is of who has fewest"
    for who, many in ((A, 7), (B, 4), (C, 2), (b"d", 1), (b"e", 1), (b"f", 1)):
        for _ in range(many):
            places.end(who)
    assert begun(C) == 8


@pytest.mark.parametrize("many", [1, 3, 20])
def test_who_has_many_waiting_has_no_more_turns_than_who_has_one(many: int) -> None:
    """B asks anew only when the turn of the next one has begun, as whoever moves bytes does."""
    turns: Round[bytes] = Round()
    for _ in range(many):
        turns.add(A, A)
    turns.add(B, B)
    had: Counter[bytes] = Counter()
    for _ in range(100):
        one = turns.next()
        assert one is not None
        had[one] += 1
        if one == B:
            following = turns.next()
            assert following == A
            had[A] += 1
            turns.add(A, A)
        turns.add(one, one)
    assert had[A] == pytest.approx(had[B], abs=2)


def test_what_is_to_be_soon_goes_before_what_waits_for_the_same_one_alone() -> None:
    turns: Round[str] = Round()
    turns.add(A, "pack")
    turns.add(B, "another")
    turns.add(A, "record", soon=True)
    assert [turns.next() for _ in range(4)] == ["record", "another", "pack", None]


def test_what_waits_no_more_has_no_turn() -> None:
    turns: Round[str] = Round()
    turns.add(A, "first")
    turns.remove(A, "first")
    turns.remove(B, "never was")
    turns.had(A)
    turns.add(A, "second")
    turns.add(B, "third")
    assert [turns.next() for _ in range(3)] == ["third", "second", None]
