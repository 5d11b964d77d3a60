import datetime
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.errors import UsageError
from replicator.snapshot.retention import Candidate, Decision, KeepRules, clamped, decide, stalled
from tests.fakes import NS, START_NS

DAY_NS = 86400 * NS


def at(text: str) -> int:
    """Return a moment in UTC as nanoseconds."""
    moment = datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)
    return int(moment.timestamp()) * NS


def chain(*times: str, series: str = "docs") -> list[Candidate]:
    """Return one series of snapshots taken at these times, numbered from 1 and named by their number."""
    return [
        Candidate(name=f"{series} {number}".encode(), series=series, number=number, at_ns=at(text))
        for number, text in enumerate(times, 1)
    ]


def kept(decisions: Sequence[Decision]) -> dict[int, tuple[str, ...]]:
    """Return the reasons of what is kept, by number."""
    return {one.candidate.number: one.reasons for one in decisions if one.keep}


def changed(candidates: list[Candidate], number: int, **values: object) -> list[Candidate]:
    """Return the series with one snapshot changed."""
    import dataclasses

    return [dataclasses.replace(one, **values) if one.number == number else one for one in candidates]  # type: ignore[arg-type] # values fit


# the examples of docs/guide/retention.md


def test_of_a_day_the_newest_snapshot_is_kept_and_days_end_at_midnight_in_utc() -> None:
    found = decide(
        chain("2026-03-01 23:59:59", "2026-03-02 00:00", "2026-03-02 12:00", "2026-03-03 01:00"), KeepRules(daily=2)
    )
    assert kept(found) == {3: ("daily",), 4: ("daily", "newest")}


def test_days_without_a_snapshot_do_not_use_up_a_rule() -> None:
    found = decide(chain("2026-01-01 01:00", "2026-02-01 01:00", "2026-03-01 01:00"), KeepRules(daily=2))
    assert kept(found) == {2: ("daily",), 3: ("daily", "newest")}


def test_one_snapshot_can_be_kept_by_several_rules_which_do_not_take_from_each_other() -> None:
    found = decide(chain("2026-01-31 01:00", "2026-02-28 01:00", "2026-03-01 01:00"), KeepRules(daily=1, monthly=2))
    assert kept(found) == {2: ("monthly",), 3: ("daily", "monthly", "newest")}


def test_hours_are_told_apart() -> None:
    found = decide(chain("2026-03-01 10:05", "2026-03-01 10:55", "2026-03-01 11:00"), KeepRules(hourly=2))
    assert kept(found) == {2: ("hourly",), 3: ("hourly", "newest")}


def test_a_week_begins_on_monday_also_across_a_new_year() -> None:
    # Sunday, Monday, Friday of one week over the new year, and the Monday after it
    days = ("2025-12-28 01:00", "2025-12-29 01:00", "2026-01-02 01:00", "2026-01-05 01:00")
    found = decide(chain(*days), KeepRules(weekly=3))
    assert kept(found) == {1: ("weekly",), 3: ("weekly",), 4: ("weekly", "newest")}


def test_weeks_of_two_years_are_told_apart() -> None:
    assert kept(decide(chain("2025-03-03 01:00", "2026-03-02 01:00"), KeepRules(weekly=2))).keys() == {1, 2}


def test_months_of_two_years_and_years_are_told_apart() -> None:
    days = ("2024-12-31 23:00", "2025-01-01 01:00", "2025-12-31 23:00", "2026-01-01 01:00")
    assert kept(decide(chain(*days), KeepRules(yearly=2))) == {3: ("yearly",), 4: ("yearly", "newest")}
    assert kept(decide(chain("2025-03-01 01:00", "2026-03-01 01:00"), KeepRules(monthly=2))).keys() == {1, 2}


def test_the_last_count_by_themselves() -> None:
    found = decide(chain("2026-03-01 01:00", "2026-03-01 01:01", "2026-03-01 01:02"), KeepRules(last=2))
    assert kept(found) == {2: ("last",), 3: ("last", "newest")}


def test_within_counts_back_from_the_newest_and_leaves_out_its_edge() -> None:
    found = decide(chain("2026-03-01 01:00", "2026-03-01 01:01", "2026-03-03 01:00"), KeepRules(within_s=2 * 86400))
    assert kept(found) == {2: ("within",), 3: ("within", "newest")}


def test_any_of_several_tags_keeps() -> None:
    candidates = chain("2026-03-01 01:00", "2026-03-02 01:00", "2026-03-03 01:00")
    candidates = changed(candidates, 1, tags=frozenset({"release", "x"}))
    found = decide(candidates, KeepRules(tags=frozenset({"release", "audit"})))
    assert kept(found) == {1: ("tag",), 3: ("newest",)}


def test_a_snapshot_tagged_keep_stays_whatever_the_rules() -> None:
    candidates = changed(chain("2026-03-01 01:00", "2026-03-02 01:00"), 1, tags=frozenset({"keep"}))
    assert kept(decide(candidates, KeepRules(last=1))) == {1: ("tagged keep",), 2: ("last", "newest")}


def test_each_dataset_of_each_node_is_a_series_of_its_own() -> None:
    candidates = [*chain("2026-03-01 01:00", "2026-03-02 01:00"), *chain("2020-01-01 01:00", series="photos")]
    found = decide(candidates, KeepRules(last=1))
    assert [one.candidate.name for one in found if one.keep] == [b"docs 2", b"photos 1"]


# partial snapshots, and snapshots with gaps


def test_a_partial_snapshot_stays_while_it_is_the_newest_and_uses_up_no_rule() -> None:
    candidates = changed(chain("2026-03-01 01:00", "2026-03-02 01:00", "2026-03-02 02:00"), 3, partial=True)
    assert kept(decide(candidates, KeepRules(daily=1))) == {2: ("daily",), 3: ("newest",)}


def test_partial_snapshots_are_not_among_the_last() -> None:
    candidates = changed(chain("2026-03-01 01:00", "2026-03-02 01:00", "2026-03-02 02:00"), 3, partial=True)
    assert kept(decide(candidates, KeepRules(last=2))) == {1: ("last",), 2: ("last",), 3: ("newest",)}


def test_a_partial_snapshot_goes_when_a_newer_one_is_whole() -> None:
    candidates = changed(chain("2026-03-01 01:00", "2026-03-02 01:00"), 1, partial=True)
    assert kept(decide(candidates, KeepRules(daily=5, within_s=10**7))).keys() == {2}


def test_the_newest_whole_snapshot_stays_behind_any_number_of_partial_ones() -> None:
    candidates = chain("2026-01-01 01:00", "2026-03-01 01:00", "2026-03-02 01:00")
    candidates = changed(changed(candidates, 2, partial=True), 3, partial=True)
    found = decide(candidates, KeepRules(tags=frozenset({"nothing has it"})))
    assert kept(found) == {1: ("newest whole",), 3: ("newest",)}


def test_the_newest_snapshot_without_gaps_stays_when_every_later_one_lacks_something() -> None:
    candidates = chain("2026-01-01 01:00", "2026-03-01 01:00", "2026-03-02 01:00", "2026-03-03 01:00")
    for number in (2, 3, 4):
        candidates = changed(candidates, number, gaps=True)
    assert kept(decide(candidates, KeepRules(last=2))).keys() == {1, 3, 4}
    assert kept(decide(candidates, KeepRules(last=2)))[1] == ("newest without gaps",)


# rules that cannot be


@pytest.mark.parametrize("values", [{}, {"last": -1}, {"daily": 10**7}, {"last": 1, "within_s": -5}])
def test_rules_that_say_nothing_or_the_impossible_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        KeepRules(**values)  # type: ignore[arg-type] # numbers only


# for all series and rules

COUNTS = st.integers(0, 5)
RULES = st.builds(
    KeepRules,
    last=st.integers(1, 4),
    hourly=COUNTS,
    daily=COUNTS,
    weekly=COUNTS,
    monthly=COUNTS,
    yearly=COUNTS,
    within_s=st.integers(0, 40 * 86400),
    tags=st.frozensets(st.sampled_from(["a", "b"])),
)


@st.composite
def candidates_of(draw: st.DrawFn) -> list[Candidate]:
    """Draw snapshots of a few series, whose times rise with their numbers."""
    found = []
    for series in draw(st.lists(st.sampled_from(["docs", "photos", "mail"]), unique=True)):
        time_ns = START_NS
        for number in range(1, draw(st.integers(1, 25)) + 1):
            time_ns += draw(st.sampled_from([0, 60, 3600, 86400, 9 * 86400, 100 * 86400])) * NS
            found.append(
                Candidate(
                    name=f"{series} {number}".encode(),
                    series=series,
                    number=number,
                    at_ns=time_ns,
                    tags=draw(st.frozensets(st.sampled_from(["a", "b", "keep"]), max_size=1)),
                    partial=draw(st.sampled_from([False, False, False, True])),
                    gaps=draw(st.booleans()),
                    sure=draw(st.sampled_from([True, True, True, False])),
                )
            )
    return found


def names_kept(candidates: list[Candidate], rules: KeepRules) -> set[bytes]:
    """Return the names of what stays."""
    return {one.candidate.name for one in decide(candidates, rules) if one.keep}


@given(candidates_of(), RULES, RULES)
def test_more_rules_never_drop_more(candidates: list[Candidate], rules: KeepRules, more: KeepRules) -> None:
    both = KeepRules(
        last=max(rules.last, more.last),
        hourly=max(rules.hourly, more.hourly),
        daily=max(rules.daily, more.daily),
        weekly=max(rules.weekly, more.weekly),
        monthly=max(rules.monthly, more.monthly),
        yearly=max(rules.yearly, more.yearly),
        within_s=max(rules.within_s, more.within_s),
        tags=rules.tags | more.tags,
    )
    assert names_kept(candidates, rules) | names_kept(candidates, more) <= names_kept(candidates, both)


@given(candidates_of(), RULES)
def test_rules_applied_to_what_they_left_drop_nothing_and_give_the_same_reasons(
    candidates: list[Candidate], rules: KeepRules
) -> None:
    once = [one for one in decide(candidates, rules) if one.keep]
    assert decide([one.candidate for one in once], rules) == once


@given(candidates_of(), RULES)
def test_the_newest_and_the_newest_whole_one_of_each_series_stay(candidates: list[Candidate], rules: KeepRules) -> None:
    found = names_kept(candidates, rules)
    for series in {one.series for one in candidates}:
        members = [one for one in candidates if one.series == series]
        assert max(members, key=lambda one: one.number).name in found
        for good in (
            [one for one in members if not one.partial],
            [one for one in members if not one.partial and not one.gaps],
        ):
            assert not good or max(good, key=lambda one: one.number).name in found


@given(st.data(), candidates_of(), RULES)
def test_the_order_in_which_snapshots_are_given_does_not_matter(
    data: st.DataObject, candidates: list[Candidate], rules: KeepRules
) -> None:
    assert decide(data.draw(st.permutations(candidates)), rules) == decide(candidates, rules)


# times

NOW = START_NS + 100 * DAY_NS


def days(*count: int) -> dict[int, int]:
    """Return moments, so many days after the start each, numbered from 1."""
    return {number: START_NS + day * DAY_NS for number, day in enumerate(count, 1)}


NOBODY: frozenset[int] = frozenset()


def test_times_that_rise_up_to_now_are_believed() -> None:
    assert clamped(days(1, 2, 3), now_ns=NOW) == (days(1, 2, 3), NOBODY)


def test_a_clock_that_went_back_counts_as_standing_still() -> None:
    assert clamped(days(5, 3, 6), now_ns=NOW) == (days(5, 5, 6), NOBODY)


def test_a_clock_that_leapt_ahead_for_one_snapshot_moves_no_other() -> None:
    assert clamped(days(1, 5000, 3), now_ns=NOW) == (days(1, 1, 3), frozenset({2}))
    assert clamped(days(5000, 2, 3), now_ns=NOW) == (days(2, 2, 3), frozenset({1}))
    assert clamped(days(5000), now_ns=NOW) == ({1: NOW}, frozenset({1}))


def test_clocks_may_differ_by_a_quarter_of_an_hour() -> None:
    found = clamped({1: NOW + 800 * NS, 2: NOW + 1000 * NS}, now_ns=NOW)
    assert found == ({1: NOW + 800 * NS, 2: NOW + 800 * NS}, frozenset({2}))


def test_witnesses_are_believed_before_the_writer() -> None:
    created = days(1, 5000, 4)
    assert clamped(created, now_ns=NOW, witnessed={2: START_NS + 2 * DAY_NS}) == (days(1, 2, 4), NOBODY)
    assert clamped(days(1, 2), now_ns=NOW, witnessed={2: START_NS + 9 * DAY_NS}) == (days(1, 2), NOBODY)


TIMES = st.dictionaries(st.integers(1, 30), st.integers(0, 2**62))


@given(TIMES, TIMES)
def test_times_never_fall_and_never_pass_what_can_be(created: dict[int, int], witnessed: dict[int, int]) -> None:
    found, unknown = clamped(created, now_ns=NOW, witnessed=witnessed)
    times = [found[number] for number in sorted(found)]
    assert found.keys() == created.keys()
    assert times == sorted(times)
    assert all(time <= max(NOW + 900 * NS, *witnessed.values(), 0) for time in times)
    assert not unknown & witnessed.keys()


def test_a_writers_time_that_counts_on_by_nanoseconds_says_nothing_also_beside_other_datasets() -> None:
    assert stalled({1: 5, 3: 100, 4: 101, 7: 104, 8: 106}) == {4, 7}
    assert stalled({}) == stalled({1: 5}) == NOBODY


def test_what_was_taken_nobody_knows_when_stays_and_takes_no_other_ones_place() -> None:
    times = ("2026-03-01 01:00", "2026-03-02 01:00", "2026-03-02 01:00", "2026-03-02 01:00", "2026-03-03 01:00")
    candidates = changed(changed(chain(*times), 3, sure=False), 4, sure=False)
    assert kept(decide(candidates, KeepRules(daily=2, within_s=3600))) == {
        2: ("daily",),
        3: ("time in doubt",),
        4: ("time in doubt",),
        5: ("daily", "within", "newest"),
    }
