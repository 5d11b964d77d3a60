from __future__ import annotations

import pytest

from scheduler import PackId, why
from scheduler.explain import amount
from tests.scheduler.problems import ids, pack, peer, policy

A, B = PackId("a"), PackId("b")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (12_345_678_901, "12.4 GB"),
        (16 << 20, "16.8 MB"),
        (10**18, "1 EB"),
        (10**21, "1000 EB"),
    ],
)
def test_amounts_are_short_and_never_rounded_down(size: int, text: str) -> None:
    assert amount(size) == text


def test_every_peer_is_named_with_its_reason() -> None:
    roster = [
        peer("anna", used=400),
        peer("bo"),
        peer("twin", owner="Owner anna"),
        peer("near", region="region bo"),
        peer("full", capacity=12, used=5),
        peer("us", country="US"),
        peer("mine", own=True),
        peer("ro", state="readonly"),
        peer("mute", state="suspect"),
        peer("leaver", state="draining"),
        peer("gone", state="lost"),
        peer("spare"),
    ]
    rule = policy(3, 2, spread=frozenset({"owner", "region"}), only_countries=frozenset({"SE"}))
    lines = why(pack("a"), {A: ids("anna", "bo")}, roster, rule)
    assert lines == [
        "pack a: 2 of 3 copies, policy p",
        "on anna (owner anna, region anna, SE): only copy in its household, site, region; 60 % free",
        "on bo (owner bo, region bo, SE): only copy in its household, site, region; 100 % free",
        "not on full (owner full, region full, SE): full (7 B free, 10 B needed)",
        "not on gone (owner gone, region gone, SE): is lost",
        "not on leaver (owner leaver, region leaver, SE): is leaving (draining)",
        "not on mine (owner mine, region mine, SE): is in your own household",
        "not on mute (owner mute, region mute, SE): has not answered for long (suspect)",
        "not on near (owner near, region bo, SE): same region as bo",
        "not on ro (owner ro, region ro, SE): takes nothing new (readonly)",
        "not on spare (owner spare, region spare, SE): could take one more copy",
        "not on twin (Owner anna, region twin, SE): same household as anna",
        "not on us (owner us, region us, US): residency does not allow US",
    ]


def test_a_peer_that_is_not_needed_is_called_so() -> None:
    lines = why(pack("a"), {A: ids("anna")}, [peer("anna"), peer("bo")], policy(1))
    assert lines[-1].endswith("not needed, the promised copies (1) are placed")


def test_copies_that_break_the_policy_are_called_so() -> None:
    roster = [peer("anna"), peer("twin", owner="owner anna"), peer("us", country="US")]
    rule = policy(3, only_countries=frozenset({"SE"}))
    lines = why(pack("a"), {A: ids("anna", "twin", "us", "ghost")}, roster, rule)
    assert "on ghost: not among the peers, does not count" in lines
    assert any(line.endswith("does not count: us is in US, where it must not lie") for line in lines)
    assert "but anna, twin share one household, where 1 may hold it" in lines


def test_packs_on_the_same_peers_are_told_of_once() -> None:
    packs = [pack("a"), pack("b"), pack("c")]
    placement = {A: ids("anna"), B: ids("anna"), PackId("c"): ids("bo")}
    lines = why(packs, placement, [peer("anna"), peer("bo")], policy(1))
    assert [line for line in lines if "policy p" in line] == [
        "2 packs (a, …): 1 of 1 copies, policy p",
        "pack c: 1 of 1 copies, policy p",
    ]


def test_a_pack_that_is_nowhere_is_explained_too() -> None:
    assert why(pack("a"), {}, [], policy(2)) == ["pack a: 0 of 2 copies, policy p"]
