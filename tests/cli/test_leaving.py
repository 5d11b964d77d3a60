"""What an operator is told of leaving, of another disk and of one that was brought, and with which exit code."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicator.clock import DAY_S
from replicator.format.merkle import name_of
from tests.cli.federation import Place
from tests.provider.stand import Stand
from tests.provider.tenant import SMALL, data_object, put


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.ok(
        *("provider", "init", "--data", tmp_path / "data", "--capacity", "10G", "--owner", "bob", "--site", "loft"),
        *("--region", "skane", "--country", "SE", "--listen", "127.0.0.1:0"),
        home="home",
    )
    return made


@contextmanager
def serving(place: Place) -> Iterator[None]:
    """Hold the home as a daemon does."""
    with (place.path / "home" / "provider" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_a_drain_is_said_shown_and_taken_back_and_a_look_changes_nothing(place: Place) -> None:
    drain = ("provider", "drain")
    assert "has told nobody" in place.ok(*drain, home="home").text
    place.ok(*drain, "--by", "60d", "--dry-run", home="home")
    assert "has told nobody" in place.ok(*drain, home="home").text
    assert "This provider leaves by" in place.ok(*drain, "--by", "60d", home="home").text
    for wrong in (("--cancel", "--dry-run"), ("--cancel", "--by", "60d"), ("--dry-run",), ("--to", "1G")):
        place.fails(2, *drain, *wrong, home="home")
    assert "This provider leaves by" in place.ok(*drain, home="home").text
    text = place.ok(*drain, home="home").text
    assert ("No tenant had to be told" in text, "BY ITS WORD" in text) == (True, False)
    assert "taken back: no tenant had to be told" in place.ok(*drain, "--cancel", home="home").err
    assert "nothing was said" in place.fails(2, *drain, "--cancel", home="home")


def test_a_move_switches_only_while_no_daemon_runs_and_says_what_is_left_to_do(place: Place) -> None:
    move = ("provider", "move", "--data", place.path / "new")
    with serving(place):
        found = place.run(*move, home="home")
        assert (found.code, "Stop the daemon" in found.text) == (3, True)
    assert place.json("provider", "status", home="home")["data"] == str(place.path / "data")
    assert "--remove-old" in place.ok(*move, home="home").text
    assert place.json("provider", "status", home="home")["moved_from"] == str(place.path / "data")
    place.ok(*move, "--remove-old", "--dry-run", home="home")
    assert (place.path / "data").exists()
    place.ok(*move, "--remove-old", home="home")
    assert list((place.path / "data").iterdir()) == []
    assert "lie there already" in place.fails(1, *move, "--remove-old", home="home")


def test_what_each_tenant_kept_sent_and_fetched_is_listed_by_month(tmp_path: Path) -> None:
    stand = Stand(str(tmp_path))
    data = data_object(1)
    put(stand.node, data)
    stand.node.get(name_of(data))
    stand.service.stop()
    stand.clock.advance(31 * DAY_S)
    stand.restart(orderly=False)
    stand.service.stop()
    stand.provider.close()
    place, lies = Place(tmp_path), 3 * SMALL
    rows = place.json("provider", "usage", home="home")
    assert [(row["month"], row["kept"], row["taken"], row["given"]) for row in rows] == [
        ("2026-02", lies, 0, 0),
        ("2026-01", lies, lies, SMALL),
    ]
    assert {row["tenant"] for row in rows} == {stand.tenant.id.hex()}
    assert place.json("provider", "usage", "--month", "2026-01", home="home") == rows[1:]
    text = place.ok("provider", "usage", "--month", "2026-02", home="home").text
    assert ("2026-02" in text, "2026-01" in text) == (True, False)
    assert (
        "Nothing was written down for 2025-12" in place.ok("provider", "usage", "--month", "2025-12", home="home").text
    )
    for wrong in ("2026-13", "january", "2026-1"):
        assert "is no month" in place.fails(2, "provider", "usage", "--month", wrong, home="home")


def test_rates_are_set_shown_declared_and_taken_back(place: Place) -> None:
    def rates() -> tuple[int, int]:
        status = place.json("provider", "status", home="home")
        return status["down"], status["up"]

    assert "All tenants together" not in place.ok("provider", "status", home="home").text
    assert (
        "takes 2 MB a second at the most, from now on" in place.ok("provider", "set", "--down", "2M", home="home").text
    )
    assert place.json("provider", "set", "--up", "5M", home="home")["down"] == 2_000_000
    assert rates() == (2_000_000, 5_000_000)
    assert "it takes 2 MB a second and gives 5 MB a second" in place.ok("provider", "status", home="home").text
    assert "No limit" in place.ok("provider", "set", "--down", "unlimited", "--up", "0", home="home").text
    assert rates() == (0, 0)
    for wrong in ("100k", "fast", "-1"):
        place.fails(2, "provider", "set", "--down", wrong, home="home")
    config = place.path / "home" / "config.toml"
    config.write_text(
        f'[provider]\ndata = "{place.path / "data"}"\ncapacity = "10M"\nowner = "bob"\nsite = "loft"\n'
        'region = "skane"\ncountry = "SE"\nlisten = "127.0.0.1:0"\nup = "1M"\n'
    )
    assert "declares the up" in place.fails(2, "provider", "set", "--up", "5M", home="home")
    assert "that gives 1 MB a second at the most" in place.ok("check-config", config).text
    place.ok("provider", "set", "--down", "3M", home="home")
    assert "takes 3 MB a second and gives 1 MB a second" in place.ok("provider", "prove", home="home").text
    assert rates() == (3_000_000, 1_000_000), "what is not declared stays"


def test_a_look_settles_no_move_and_old_folders_are_all_named_until_they_go(place: Place) -> None:
    old, new, newer = (place.path / name for name in ("data", "new", "newer"))
    place.ok("provider", "move", "--data", new, home="home")
    (new / ".replicator-moving").write_text("left by a power cut\n")
    place.ok("provider", "move", "--data", new, "--dry-run", home="home")
    assert (new / ".replicator-moving").exists()
    place.ok("provider", "move", "--data", new, home="home")
    assert not (new / ".replicator-moving").exists()
    place.ok("provider", "move", "--data", newer, home="home")
    status = place.ok("provider", "status", home="home").text
    assert all(f"before a move still lie in {folder}\n" in status for folder in (old, new))
    assert "give one of the two" in place.fails(
        2, "provider", "move", "--data", newer, "--remove-old", "--forget-old", home="home"
    )
    for end, what in (("--remove-old", "deleted"), ("--forget-old", "forgotten")):
        never = place.fails(1, "provider", "move", "--data", place.path / "never", end, home="home")
        assert f"nothing was {what}: the objects still lie in {newer}" in never
        assert f"lie in {newer}" in place.fails(2, "provider", "move", "--data", new, end, home="home")
    assert place.json("provider", "move", "--data", newer, "--forget-old", "--dry-run", home="home")["forgotten"] == [
        str(old),
        str(new),
    ]
    gone = place.json("provider", "move", "--data", newer, "--remove-old", home="home")
    assert gone["folders"] == [str(old), str(new)]
    assert (list(old.iterdir()), list(new.iterdir())) == ([], [])
    assert "before a move" not in place.ok("provider", "status", home="home").text


def test_a_disk_that_is_no_more_is_forgotten_by_the_operators_word(place: Place) -> None:
    place.ok("provider", "move", "--data", place.path / "new", home="home")
    shutil.rmtree(place.path / "data")
    again = ("provider", "move", "--data", place.path / "new")
    assert "nothing was deleted" in place.fails(1, *again, "--remove-old", home="home")
    assert "are forgotten" in place.ok(*again, "--forget-old", home="home").text
    assert "before a move" not in place.ok("provider", "status", home="home").text


def test_a_disk_with_nothing_for_this_provider_is_a_gap_and_no_fault_of_it(place: Place) -> None:
    disk = place.path / "disk"
    assert "is the disk mounted?" in place.fails(1, "provider", "adopt", disk, home="home")
    disk.mkdir()
    assert "nothing of any tenant lies there" in place.fails(3, "provider", "adopt", disk, home="home")
    (disk / ("ab" * 16) / "objects").mkdir(parents=True)
    assert "no tenant here" in place.fails(3, "provider", "adopt", disk, home="home")
    with serving(place):
        assert "serves this home already" in place.fails(1, "provider", "adopt", disk, home="home")
