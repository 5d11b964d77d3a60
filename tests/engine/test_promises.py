"""A pack is kept by the weakest policy that is enough for every snapshot that may need it."""

import msgspec

from replicator.engine.promises import promised
from replicator.format.policy import Policy

THREE = Policy(copies=3, minimum=2, coding=None, spread=["owner"], residency=["EEA"], count_own=False, stale_after_s=9)
TWO = msgspec.structs.replace(THREE, copies=2)
ABROAD = msgspec.structs.replace(TWO, residency=[])
APART = msgspec.structs.replace(TWO, spread=["owner", "region"])
POLICIES = {b"three": THREE, b"two": TWO, b"abroad": ABROAD, b"apart": APART}


def test_what_all_snapshots_ask_for_is_enough() -> None:
    assert promised(b"three", {b"two"}, POLICIES) == b"two"
    assert promised(b"three", {b"two", b"three"}, POLICIES) == b"three"
    assert promised(b"three", {b"abroad", b"two"}, POLICIES) == b"two"


def test_more_than_it_was_stored_under_is_never_promised() -> None:
    assert promised(b"two", {b"three"}, POLICIES) == b"two"
    assert promised(b"abroad", {b"two"}, POLICIES) == b"abroad"


def test_where_none_of_them_covers_the_others_it_stays_as_it_was_stored() -> None:
    assert promised(b"three", {b"abroad", b"apart"}, POLICIES) == b"three"
    assert promised(b"apart", {b"abroad", b"two"}, POLICIES) == b"two"


def test_what_nothing_asks_for_or_nobody_knows_stays_as_it_was_stored() -> None:
    assert promised(b"three", set(), POLICIES) == b"three"
    assert promised(b"three", {b"two", b"unheard of"}, POLICIES) == b"three"
    assert promised(b"unheard of", {b"two"}, POLICIES) == b"unheard of"
