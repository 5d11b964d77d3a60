from __future__ import annotations

import pytest
from hypothesis import given

from scheduler import (
    COUNTRIES,
    EEA,
    EU,
    Peer,
    PolicyError,
    RosterError,
    country_code,
    default_residency,
    fold,
    households,
    qualify,
    queries,
    residency,
)
from tests.scheduler.problems import one_household, peer, rosters


def test_the_tables_have_the_known_numbers_of_countries() -> None:
    assert len(COUNTRIES) == 249
    assert len(EU) == 27
    assert len(EEA) == 30
    assert EEA < COUNTRIES
    assert not {"GB", "CH"} & EEA


def test_a_country_code_is_read_in_any_case() -> None:
    assert country_code(" se ") == "SE"


@pytest.mark.parametrize("text", ["", "XX", "SWE", "Sverige"])
def test_an_unknown_country_is_refused(text: str) -> None:
    with pytest.raises(RosterError, match="unknown country"):
        country_code(text)


def test_a_code_that_people_mistake_is_answered_with_the_right_one() -> None:
    with pytest.raises(RosterError, match="did you mean GB"):
        country_code("UK")
    with pytest.raises(PolicyError, match="did you mean GR"):
        residency("SE,EL")


def test_residency_is_groups_and_codes_together() -> None:
    assert residency("EEA") == EEA
    assert residency("se, no") == {"SE", "NO"}
    assert residency("EU,CH") == EU | {"CH"}


@pytest.mark.parametrize("text", ["", "SE,", "Europe"])
def test_a_residency_that_names_nothing_known_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match="unknown residency"):
        residency(text)


def test_the_default_residency_is_the_eea_from_inside_it() -> None:
    assert default_residency("NO") == EEA
    assert default_residency("CH") is None


@pytest.mark.parametrize(
    ("one", "other"),
    [("umea", "Umeå"), ("Umea\u030a", "UMEÅ"), ("North  side", "north-side"), ("Tromsø", "tromso"), ("Łódź", "lodz")],
)
def test_labels_fold_over_case_accents_and_spacing(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_labels_that_differ_in_a_digit_stay_apart() -> None:
    assert fold("site 1") != fold("site 2")


def test_near_duplicate_labels_are_asked_about() -> None:
    found = queries([peer("a", region="umea"), peer("b", region="Umeå"), peer("c", owner="Owner A")])
    assert [(row.domain, row.labels) for row in found] == [
        ("owner", ("Owner A", "owner a")),
        ("region", ("Umeå", "umea")),
    ]
    assert "write them alike" in found[0].message


def test_spellings_without_accents_are_asked_about_but_stay_apart() -> None:
    found = queries([peer("a", region="Malmö"), peer("b", region="malmoe")])
    assert [row.labels for row in found] == [("Malmö", "malmoe")]
    assert "count as different" in found[0].message
    assert fold("Malmö") != fold("malmoe")


def test_a_place_that_lies_in_two_larger_places_is_asked_about() -> None:
    found = queries([peer("a", site="cellar"), peer("b", site="cellar"), peer("c", region="region b", country="NO")])
    assert [(row.domain, row.labels) for row in found] == [
        ("site", ("cellar", "region a", "region b")),
        ("region", ("region b", "NO", "SE")),
    ]


def test_an_orderly_roster_raises_no_question() -> None:
    assert queries([peer("a"), peer("b")]) == []


def test_qualified_labels_keep_two_cellars_in_two_towns_apart() -> None:
    north = qualify(country="se", region="umea", site="cellar")
    south = qualify(country="SE", region="lund", site="cellar")
    assert north == ("SE/umea", "SE/umea/cellar")
    assert fold(north[1]) != fold(south[1])


@given(rosters())
def test_households_are_what_a_walk_over_owners_and_sites_reaches(roster: list[Peer]) -> None:
    homes = households(roster)
    for one in roster:
        assert homes[one.id] == min(other.id for other in roster if one_household(one, other, roster))
