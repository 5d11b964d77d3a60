import json
import re
from pathlib import Path

import pytest

from replicator.engine.simulate import problem_scene
from replicator.errors import UsageError
from tests.cli.federation import PLACES, Federation, Place

FRIENDS = [
    {"id": name, "capacity": 1000, "used": 100, "region": f"{name} town", "country": country}
    for name, country in (("anna", "SE"), ("bo", "NO"), ("cecilia", "FI"))
]


def problem(place: Place, **changes: object) -> Path:
    document = {
        "peers": FRIENDS,
        "policies": [{"name": "photos", "copies": 3}],
        "packs": {"count": 20, "size": 10, "policy": "photos"},
    }
    path = place.path / "problem.json"
    path.write_text(json.dumps(document | changes))
    return path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(path=tmp_path)


def test_three_friends_cannot_give_nine_nines_and_are_told_so(place: Place) -> None:
    path = problem(place)
    result = place.run("simulate", "--problem", path, "--nines", "9", "--assume", "repair=3d")
    assert result.code == 3
    assert "9 nines with shocks: not reachable with three friends." in result.text
    assert "photos: 3 copies" in result.text
    document = place.json("simulate", "--problem", path, "--nines", "6", "--assume", "repair=3d", code=3)
    [photos] = document["policies"]
    assert 6.0 < photos["independent"]["nines"] < 6.2
    assert 4.5 < photos["shocks"]["nines"] < 5.5
    assert photos["after_worst_loss"]["country"] == photos["worst_losses"]["country"]["left"] == 2
    assert document["assumptions"]["repair"] == "3d"
    target = document["target"]
    assert (target["reachable"], target["chosen"]) == (False, None)
    assert target["independent_only"]["id"] == "3 copies"
    reached = place.json("simulate", "--problem", path, "--nines", "4", "--assume", "repair=3d")["target"]
    assert (reached["reachable"], reached["chosen"]["id"]) == (True, "3 copies")


def test_what_lies_badly_is_judged_as_it_lies(place: Place) -> None:
    path = problem(
        place,
        peers=[*FRIENDS, {"id": "gone", "capacity": 10, "country": "DK", "state": "lost"}],
        policies=[{"name": "photos", "coding": [2, 1]}],
        packs=[{"id": "a", "size": 10, "policy": "photos"}, {"id": "b", "size": 10, "policy": "photos"}],
        placements={"a": ["anna", "bo", "cecilia"], "b": ["anna", None, "gone"]},
    )
    result = place.run("simulate", "--problem", "-", stdin=path.read_text())
    assert result.code == 3
    assert "1 of 2 packs cannot be read" in result.text


def test_a_picture_is_drawn(place: Place) -> None:
    path = place.path / "picture.svg"
    place.ok("simulate", "--problem", problem(place), "--svg", path)
    assert "anna: 100 B of 1 kB." in path.read_text()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"peers": [FRIENDS[0] | {"country": "UK"}]}, "did you mean GB"),
        ({"peers": [FRIENDS[0] | {"capacity": -1}]}, "capacity is -1"),
        ({"peers": [{"id": "x", "country": "SE"}]}, "capacity is missing"),
        ({"peers": {"id": "x"}}, "peers is dict, not a list"),
        ({"policies": [{"name": "p", "copies": 0}]}, "copies is 0"),
        ({"policies": [{"name": "p", "coding": [4]}]}, "coding is [4]"),
        ({"policies": [{"name": "p", "copies": "3"}]}, "copies is '3'"),
        ({"packs": [{"id": "a", "size": 1, "policy": "music"}]}, "no policy 'music'"),
        ({"packs": {"count": -3, "policy": "photos"}}, "count is -3"),
        ({"packs": [{"id": "a", "size": "big", "policy": "photos"}]}, "size is 'big'"),
        ({"placements": {"a": "anna"}}, "not a list of peer ids"),
        ({"placements": {"a": ["dag"]}}, "a: unknown peer 'dag'"),
        ({"policies": [{"name": "p", "coding": ["4", 2]}]}, "coding is ['4', 2]"),
        ({"policies": [{"name": "p", "copies": 2, "spread": "owner"}]}, "spread is 'owner', not a list"),
        ({"policies": [{"name": "p", "copies": 2, "only_countries": "EEA"}]}, "only_countries is 'EEA', not a list"),
        ({"policies": [{"name": "p", "copies": 2, "max_per": 1}]}, "max_per is int, not an object"),
        ({"policies": [{"name": 3, "copies": 2}]}, "name is 3"),
        ({"peers": [FRIENDS[0] | {"id": 7}]}, "id is 7"),
        ({"nodes": []}, "unknown key nodes"),
    ],
)
def test_a_problem_with_a_slip_is_refused_and_says_where(place: Place, changes: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        problem_scene(problem(place, **changes).read_text())


def test_what_is_no_json_is_refused() -> None:
    for text in ("{", "[]", "3", ""):
        with pytest.raises(UsageError, match="problem"):
            problem_scene(text)


def test_words_that_mean_nothing_are_refused(place: Place) -> None:
    twice = problem(place, peers=FRIENDS * 2)
    assert "'anna' occurs twice" in place.fails(2, "simulate", "--problem", twice)
    path = problem(place)
    assert "unknown assumption" in place.fails(2, "simulate", "--problem", path, "--assume", "luck=1%")
    assert "4+2" in place.fails(2, "simulate", "--problem", path, "--coding", "4")
    assert "two schemes" in place.fails(2, "simulate", "--problem", path, "--coding", "4+2", "--copies", "3")
    assert "nines" in place.fails(2, "simulate", "--problem", path, "--nines", "0")
    assert "No such file" in place.fails(2, "simulate", "--problem", place.path / "nowhere")


@pytest.mark.process
def test_an_audit_says_of_every_provider_what_it_proved(federation: Federation) -> None:
    rows = federation.json("audit", "--probes", "5", home="node")
    assert {row["name"] for row in rows} == set(PLACES)
    assert all(row["answered"] and row["probes"] == row["proved"] == 5 for row in rows)
    assert all((row["wrong"], row["absent"], row["late"], row["problems"]) == (0, 0, 0, []) for row in rows)
    assert all(row["week"]["proved"] >= 5 for row in rows)
    assert "5 of 5 proofs are right" in federation.ok("audit", "--probes", "5", home="keeper").text


@pytest.mark.process
def test_a_home_judges_what_its_providers_hold(federation: Federation) -> None:
    document = federation.json("simulate", "--copies", "5", home="node")
    [docs] = [one for one in document["policies"] if one["label"] == "docs"]
    assert not docs["supposed"]
    assert (docs["promised"], docs["fewest"], docs["unreadable"]) == (3, 3, 0)
    assert docs["independent"]["nines"] > docs["shocks"]["nines"] > 2
    assert docs["worst_losses"]["peer"]["place"] in PLACES
    assert docs["after_worst_loss"]["owner"] == 2
    assert document["tried"]["possible"]
    assert document["tried"]["usable"] > 10**6
    assert "docs: 3 copies" in federation.ok("simulate", home="node").text
    assert federation.json("simulate", home="keeper")["peers"] == 5
