from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.standing import LOST_S, SUSPECT_S, URGENT_S, Contact, Said, standing

HOUR, DAY = 3600.0, 86400.0


def verdict(*, by_hand: bool = False, said: Said = "", silent: float = 0.0, **known: object) -> tuple[str, str]:
    contact = Contact(answers=not silent, silent_s=silent, said=said, **known)  # type: ignore[arg-type] # fields of it
    found = standing(contact, by_hand=by_hand)
    return found.word, found.state


@pytest.mark.parametrize(
    ("silent", "expected"),
    [
        (0.0, ("answers", "ok")),
        (HOUR, ("offline", "readonly")),
        (SUSPECT_S + 1, ("suspect", "readonly")),
        (URGENT_S + 1, ("suspect", "suspect")),
        (LOST_S, ("suspect", "suspect")),
        (LOST_S + 1, ("lost", "lost")),
    ],
)
def test_silence_becomes_suspicion_and_then_loss(silent: float, expected: tuple[str, str]) -> None:
    assert verdict(silent=silent) == expected


def test_by_hand_who_does_not_answer_is_lost() -> None:
    assert verdict(silent=1.0, by_hand=True) == ("lost", "lost")
    assert verdict(by_hand=True) == ("answers", "ok")


def test_a_disk_that_is_not_mounted_is_not_lost_by_hand_and_is_after_a_fortnight() -> None:
    for by_hand in (False, True):
        assert verdict(silent=HOUR, unmounted=True, by_hand=by_hand) == ("unmounted", "readonly")
        assert verdict(silent=LOST_S + 1, unmounted=True, by_hand=by_hand) == ("lost", "lost")


def test_who_said_that_it_is_away_is_waited_for_until_then_and_a_fortnight() -> None:
    month = 30 * DAY
    assert verdict(said="away", left_s=HOUR) == ("away", "readonly"), "it still answers, and takes nothing new"
    for by_hand in (False, True):
        assert verdict(silent=month, said="away", left_s=HOUR, by_hand=by_hand) == ("away", "suspect")
    assert verdict(silent=DAY, said="away", left_s=HOUR) == ("away", "readonly")
    assert verdict(silent=month, said="away", left_s=-HOUR) == ("late", "suspect")
    assert verdict(silent=month, said="away", left_s=-HOUR, by_hand=True) == ("lost", "lost")
    assert verdict(silent=month, said="away", left_s=-LOST_S - 1) == ("lost", "lost")
    assert verdict(silent=HOUR, said="away", left_s=-month) == ("late", "readonly"), "it was back, and left again"
    assert verdict(said="away", left_s=-HOUR) == ("answers", "ok")


def test_what_was_said_counts_as_long_as_the_peer_lives() -> None:
    assert verdict(said="readonly") == ("readonly", "readonly")
    assert verdict(said="draining") == ("draining", "draining")
    assert verdict(said="draining", silent=DAY) == ("draining", "draining"), "its copies are replaced anyway"
    assert verdict(said="draining", silent=LOST_S + 1) == ("lost", "lost")
    for silent in (0.0, HOUR):
        assert verdict(said="gone", silent=silent) == ("gone", "lost")


@given(st.floats(min_value=1.0, max_value=1e7), st.sampled_from(["", "away", "readonly"]), st.booleans())
def test_longer_silence_never_makes_a_peer_better(silent: float, said: Said, unmounted: bool) -> None:
    worth = ["lost", "suspect", "readonly", "ok"]
    shorter = verdict(silent=silent, said=said, unmounted=unmounted, left_s=-silent)
    longer = verdict(silent=silent * 2, said=said, unmounted=unmounted, left_s=-silent * 2)
    assert worth.index(longer[1]) <= worth.index(shorter[1])


def test_who_said_that_it_leaves_is_emptied_until_its_day_and_gone_if_it_is_silent_after_it() -> None:
    assert verdict(said="leaving", left_s=DAY) == ("leaving", "draining")
    assert verdict(said="leaving", left_s=-DAY) == ("leaving", "draining"), "it is still there, so read from it"
    assert verdict(said="leaving", left_s=DAY, silent=DAY) == ("leaving", "draining")
    assert verdict(said="leaving", left_s=DAY, silent=LOST_S + 1) == ("lost", "lost")
    assert verdict(said="leaving", left_s=0.0, silent=HOUR) == ("gone", "lost")
    assert verdict(said="leaving", left_s=-HOUR, silent=HOUR, unmounted=True) == ("gone", "lost")
