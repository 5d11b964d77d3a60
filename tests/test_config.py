import pytest

from replicator.config import (
    MAX_NAME,
    counted,
    default_home,
    format_size,
    parse_duration,
    parse_moment,
    parse_name,
    parse_size,
    read_window,
)
from replicator.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500G", 500 * 10**9),
        ("500Gi", 500 * 2**30),
        ("500GiB", 500 * 2**30),
        ("500 GB", 500 * 10**9),
        ("1k", 1000),
        ("1ki", 1024),
        ("0", 0),
        ("12345", 12345),
        ("12B", 12),
        ("1.5T", 1_500_000_000_000),
        (" 2M ", 2_000_000),
        ("0.1M", 100_000),
        ("0.3P", 300_000_000_000_000),
        ("4611686018427387904", 2**62),
    ],
)
def test_sizes_are_exact(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "G",
        "-5G",
        "5X",
        "5GG",
        "5i",
        "5iB",
        "1,5G",
        "1.G",
        ".5G",
        "٥G",
        "1e9",
        "inf",
        "nan",
        "5G\nx",
        "9" * 400,
        "9999P",
    ],
)
def test_what_is_not_a_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert "500Gi" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 30 * 86400), ("36h", 129600), ("15m", 900), ("2w", 14 * 86400), (" 5 s ", 5), ("0d", 0), ("1D", 86400)],
)
def test_durations_are_seconds(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "30", "-1d", "1.5h", "1y", "3661d", "9" * 500 + "d", "٣d", "1d x"])
def test_what_is_not_a_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert "30d" in caught.value.hint


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (65536, "65.5 kB"),
        (16 << 20, "16.8 MB"),
        (5 * 10**9, "5 GB"),
        (10**12, "1 TB"),
        (3 * 10**18, "3e+03 PB"),
    ],
)
def test_sizes_for_people_have_three_digits(count: int, text: str) -> None:
    assert format_size(count) == text


@pytest.mark.parametrize("text", ["a", "Åsa och Per", "x" * MAX_NAME])
def test_a_name_is_what_a_terminal_shows(text: str) -> None:
    assert parse_name(text, "a name") == text


@pytest.mark.parametrize("text", ["", " ", "a\nb", "\x1b[31m", "a\u202eb", "\u2028", "x" * (MAX_NAME + 1)])
def test_a_name_that_cannot_be_seen_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be a petname"):
        parse_name(text, "a petname")


def test_a_home_is_where_systemd_says_or_in_the_users_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/replicator:/var/lib/other")
    assert default_home() == "/var/lib/replicator"
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_DATA_HOME", "/home/x/data")
    assert default_home() == "/home/x/data/replicator"


def test_a_window_without_a_zone_is_by_this_machines_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Lisbon")
    assert str(read_window("22:00-06:00", "").zone) == "Europe/Lisbon"
    monkeypatch.setenv("TZ", "Nowhere/At-All")
    with pytest.raises(UsageError, match="time zone"):
        read_window("22:00-06:00", "")
    monkeypatch.delenv("TZ")
    read_window("22:00-06:00", "")


NOW_NS = 1_800_000_000 * 10**9


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01", 0),
        ("1970-01-02", 86400 * 10**9),
        ("1969-12-31", -86400 * 10**9),
        ("2026-01-01", 1_767_225_600 * 10**9),
        ("2026-01-01T00:00:01", 1_767_225_601 * 10**9),
        ("2026-01-01T01:00:00.5+01:00", 1_767_225_600_500_000_000),
        ("1677-09-22", -9_223_286_400 * 10**9),
        ("7d", NOW_NS - 7 * 86400 * 10**9),
        (" 36h ", NOW_NS - 36 * 3600 * 10**9),
    ],
)
def test_moments_are_exact(text: str, ns: int) -> None:
    assert parse_moment(text, NOW_NS) == ns


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "7", "7x", "2026", "11y", "9999d"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_moment(text, NOW_NS)


def test_a_count_bends_its_noun_and_what_goes_with_it() -> None:
    assert [counted(count, "file") for count in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert [counted(count, "copy is", "copies are") for count in (0, 1, 2)] == [
        "0 copies are",
        "1 copy is",
        "2 copies are",
    ]
