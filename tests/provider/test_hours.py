import datetime
import os

import pytest

from replicator.config import read_window
from replicator.errors import UsageError
from replicator.ids import ObjectName
from replicator.provider.hours import ALWAYS_TAKEN, Hours
from replicator.transport.handler import RequestRefusedError
from tests.fakes import NS, FakeClock
from tests.provider.stand import Stand, refusal

LARGE = 2 << 20


def clock_at(text: str) -> FakeClock:
    return FakeClock(round(datetime.datetime.fromisoformat(text).timestamp()) * NS)


def test_outside_of_its_window_a_provider_says_when_to_come_back() -> None:
    hours = Hours(window=read_window("22:00-06:00", "Europe/Stockholm"))
    with pytest.raises(RequestRefusedError, match="takes nothing large until 22:00 Europe/Stockholm") as caught:
        hours.check(LARGE, clock_at("2026-07-01T21:00:00+02:00"))
    assert (caught.value.code, caught.value.after_s) == ("busy", 3600.0)
    hours.check(ALWAYS_TAKEN, clock_at("2026-07-01T21:00:00+02:00"))
    hours.check(LARGE, clock_at("2026-07-01T22:00:00+02:00"))
    Hours().check(LARGE, clock_at("2026-07-01T12:00:00+02:00"))


def test_hours_are_kept_with_the_home_and_hold_at_once(stand: Stand) -> None:
    here = datetime.datetime.fromtimestamp(stand.clock.now_ns() / NS, datetime.UTC)
    begin, end = (f"{(here + datetime.timedelta(hours=hours)):%H:00}" for hours in (2, 3))
    stand.node.begin_put(ObjectName(b"n" * 32), LARGE).abort()
    other = stand.house.open()  # as `provider set` does beside a daemon
    other.set_hours(window=f"{begin}-{end}", zone="UTC", streams=1)
    other.close()
    assert refusal(lambda: stand.node.begin_put(ObjectName(b"n" * 32), LARGE)) == "busy"
    first = stand.node.begin_put(ObjectName(b"n" * 32), 1 << 16)
    assert refusal(lambda: stand.node.begin_put(ObjectName(b"m" * 32), 1 << 16)) == "busy"
    first.abort()
    stand.restart()
    assert refusal(lambda: stand.node.begin_put(ObjectName(b"n" * 32), LARGE)) == "busy"
    status = stand.provider.status()
    assert (status["window"], status["zone"], status["streams"]) == (f"{begin}-{end}", "UTC", 1)
    stand.provider.set_hours(window="", zone=None, streams=None)
    stand.node.begin_put(ObjectName(b"n" * 32), LARGE).abort()
    assert stand.provider.status()["zone"] == ""


def test_a_home_that_says_what_it_said_is_not_written_again(stand: Stand) -> None:
    def say() -> int:
        stand.provider.set_hours(window="22:00-06:00", zone="UTC", streams=2)
        stand.provider.set_pull_from(["nobody"])
        return os.stat(os.path.join(stand.provider.folder, "home.json")).st_ino

    first = say()
    kept = os.open(os.path.join(stand.provider.folder, "home.json"), os.O_RDONLY)  # so that its number stays taken
    try:
        assert say() == first
    finally:
        os.close(kept)


def test_a_home_file_that_means_nothing_leaves_the_hours_as_they_were(stand: Stand) -> None:
    stand.provider.set_hours(window=None, zone=None, streams=1)
    stand.node.begin_put(ObjectName(b"n" * 32), 1 << 16).abort()
    path = f"{stand.provider.folder}/home.json"
    os.rename(path, f"{path}.aside")
    first = stand.node.begin_put(ObjectName(b"n" * 32), 1 << 16)
    assert refusal(lambda: stand.node.begin_put(ObjectName(b"m" * 32), 1 << 16)) == "busy"
    first.abort()


def test_a_home_that_set_nothing_is_written_as_before(stand: Stand) -> None:
    with open(f"{stand.provider.folder}/home.json", encoding="utf-8") as file:
        assert "window" not in file.read()


@pytest.mark.parametrize(
    ("window", "zone"),
    [("22-06", ""), ("22:00-06:00", "Europe/Atlantis"), ("22:00-06:00", "../x"), ("", "Europe/Stockholm")],
)
def test_no_window_and_no_zone_are_refused(stand: Stand, window: str, zone: str) -> None:
    with pytest.raises(UsageError):
        stand.provider.set_hours(window=window, zone=zone, streams=None)
    assert stand.provider.status()["window"] == ""
