"""Gaps are named up to a limit and counted without one."""

import pytest

from replicator.snapshot import gaps
from replicator.snapshot.gaps import Gap, Gaps


def test_the_first_are_named_and_all_are_counted_by_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "MAX_NAMED", 2)
    found = Gaps()
    for number in range(5):
        found.add(b"%d" % number, "even" if number % 2 == 0 else "odd")
    assert found.named == [Gap(b"0", "even"), Gap(b"1", "odd")]
    assert found.by_reason == {"even": 3, "odd": 2}
    assert found.total == 5
