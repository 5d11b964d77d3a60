from __future__ import annotations

import pytest

from scheduler import RosterError
from scheduler.hazards import Hazards, assuming


def test_assumptions_are_read_as_they_are_shown() -> None:
    changed = assuming(["peer=20%", "repair=3d", "common-hit=0.1", "found=12h"])
    assert (changed.peer, changed.repair, changed.common_hit, changed.found) == (0.2, 3 * 86400, 0.1, 43200)
    assert assuming(f"{name}={value}" for name, value in changed.words().items()) == changed


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("flood=1%", "unknown assumption 'flood'"),
        ("peer", "peer="),
        ("peer=often", "write a share"),
        ("peer=-1%", "must lie between"),
        ("peer=nan", "must lie between"),
        ("common-hit=101%", "must lie between"),
        ("repair=0d", "must lie between"),
        ("repair=3", "write a time"),
        ("repair=3y", "write a time"),
    ],
)
def test_what_cannot_be_assumed_is_refused_with_a_reason(word: str, says: str) -> None:
    with pytest.raises(RosterError, match=says):
        assuming([word])


def test_one_thing_is_assumed_once() -> None:
    with pytest.raises(RosterError, match="twice"):
        assuming(["peer=1%", "peer=2%"])


def test_independent_losses_know_no_shocks() -> None:
    alone = Hazards().independent
    assert alone.peer == Hazards().peer
    assert alone.rot == Hazards().rot
    assert (alone.owner, alone.site, alone.region, alone.country, alone.common) == (0, 0, 0, 0, 0)
