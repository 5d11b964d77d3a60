"""`--coding`: what cannot be meant, and six real providers of which two die, twice."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.federation import Federation
from tests.fakes import SeededRng

HOUSES = {
    "alice": ("cellar", "umea", "SE"),
    "bob": ("loft", "skane", "SE"),
    "carol": ("shed", "oslo", "NO"),
    "dave": ("office", "helsinki", "FI"),
    "erin": ("barn", "jutland", "DK"),
    "frank": ("garage", "bremen", "DE"),
    "grace": ("tower", "tallinn", "EE"),
    "heidi": ("barge", "utrecht", "NL"),
}
FIRST, LATER = tuple(HOUSES)[:6], tuple(HOUSES)[6:]


@pytest.mark.parametrize("coding", ["0+2", "4+0", "300+2", "17+2", "4+17", "4", "4+", "four+two", "4+2+1", "-4+2"])
def test_what_no_pack_can_be_cut_by_is_a_usage_error(coding: str, federation: Federation) -> None:
    said = federation.fails(2, "dataset", "add", "new", federation.path, f"--coding={coding}", home="node")
    assert f"'{coding}'" in said
    assert "4+2" in said


def test_one_shard_that_suffices_is_copies(federation: Federation) -> None:
    said = federation.fails(2, "dataset", "add", "new", federation.path, "--coding", "1+2", home="node")
    assert "--copies 3" in said


def test_copies_and_coding_exclude_one_another(federation: Federation) -> None:
    options = ("--coding", "4+2", "--copies", "3")
    assert "two promises" in federation.fails(2, "dataset", "add", "new", federation.path, *options, home="node")
    assert "two promises" in federation.fails(2, "dataset", "set", "docs", *options, home="node")


def test_a_minimum_that_no_loss_may_strike_is_refused(federation: Federation) -> None:
    options = ("--coding", "4+2", "--minimum", "1")
    assert "at least 2" in federation.fails(2, "dataset", "add", "new", federation.path, *options, home="node")
    options = ("--coding", "4+2", "--minimum", "4")
    assert "more than 3 copies" in federation.fails(2, "dataset", "add", "new", federation.path, *options, home="node")


def test_five_households_are_told_what_would_help(federation: Federation) -> None:
    said = federation.fails(2, "dataset", "add", "new", federation.path, "--coding", "3+1", home="node")
    assert "from 6 households on" in said
    assert "of 5" in said
    assert "1 more household" in said
    assert "--copies" in said
    assert [row["id"] for row in federation.json("dataset", "list", home="node")] == ["docs"]


@pytest.fixture
def six(tmp_path: Path) -> Iterator[Federation]:
    """Six providers that answer, two more homes, a keeper that is a node."""
    made = Federation(path=tmp_path)

    def make(name: str) -> None:
        site, region, country = HOUSES[name]
        made.ok(
            *("provider", "init", "--data", made.path / name / "data", "--capacity", "10G", "--owner", name),
            *("--site", site, "--region", region, "--country", country, "--listen", "127.0.0.1:0"),
            home=name,
        )

    assert made.passphrase_file.exists()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make, HOUSES))
    made.start(*FIRST)
    try:
        made.ok("init", "--name", "björkby", "--recovery-sheet", made.sheet, home="home")
        made.join("home", FIRST)
        yield made
    finally:
        made.stop(kill=True)


def same(source: Path, target: Path) -> bool:
    """Say whether the files of two folders have the same bytes."""
    names = sorted(os.listdir(source))
    return sorted(os.listdir(target)) == names and all(
        (source / name).read_bytes() == (target / name).read_bytes() for name in names
    )


@pytest.mark.process
@pytest.mark.slow
def test_two_of_six_die_two_join_a_shard_rots_and_another_two_die(six: Federation) -> None:
    source = six.path / "docs"
    source.mkdir()
    for number in range(3):
        (source / f"{number}.raw").write_bytes(SeededRng(f"raw {number}").bytes(1_500_000))
    (source / "letter").write_text("dear friend\n")
    said = six.fails(2, "dataset", "add", "docs", source, "--coding", "5+2", home="home")
    assert "--coding 4+2, which fits" in said
    made = six.json("dataset", "add", "docs", source, "--coding", "4+2", home="home")
    assert (made["coding"], made["shards"], made["minimum_shards"], made["copies"]) == ("4+2", 6, 5, 3)
    six.ok("backup", home="home")
    stored = [sum(path.stat().st_size for path in six.objects(name)) for name in FIRST]
    assert all(1_000_000 < size < 2_500_000 for size in stored), "a quarter each, not 4.5 MB"
    found = six.json("status", home="home")
    [docs] = found["datasets"]
    assert (docs["state"], docs["copies"], docs["promised"], docs["coding"]) == ("safe", 3, 3, "4+2")
    assert any("6 of 6 shards" in line for line in six.json("why", "docs", home="home")["reasons"])

    six.stop("alice", "dave", kill=True)
    six.ok("restore", "latest", "--target", six.path / "once", home="home")
    assert same(source, six.path / "once" / "docs")

    six.start(*LATER)
    six.join("home", LATER)
    planned = six.json("repair", "--dry-run", home="home", code=six.run("repair", "--dry-run", home="home").code)
    assert {row["kind"] for row in planned["planned"]} >= {"shard"}
    assert {row["peer"] for row in planned["planned"] if row["kind"] == "shard"} == set(LATER)
    six.ok("repair", home="home")

    rotten = max(six.objects("bob"), key=lambda path: path.stat().st_size)
    data = bytearray(rotten.read_bytes())
    data[len(data) // 2] ^= 1
    rotten.write_bytes(data)
    six.stop("erin", kill=True)
    assert "bob" in six.fails(4, "restore", "latest", "--target", six.path / "twice", home="home")
    assert same(source, six.path / "twice" / "docs")
    six.run("repair", home="home")
    six.stop("heidi", kill=True)
    six.ok("restore", "latest", "--target", six.path / "thrice", home="home")
    assert same(source, six.path / "thrice" / "docs")
