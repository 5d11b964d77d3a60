"""Values people write: sizes, durations, moments, names; and where a home is."""

import datetime
import os
import re
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

import platformdirs

from replicator.clock import DAY_S, HOUR_S, MINUTE_S, NS
from replicator.errors import UsageError

if TYPE_CHECKING:
    from scheduler.night import Window

_SIZE = re.compile(r"\s*([0-9]{1,19}(?:\.[0-9]{1,9})?)\s*(?:([KMGTP])(i?))?B?\s*", re.IGNORECASE)
_DURATION = re.compile(r"\s*([0-9]{1,12})\s*([smhdw])\s*", re.IGNORECASE)
_CODING = re.compile(r"\s*([0-9]{1,9})\+([0-9]{1,9})\s*")
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_SECONDS = {"s": 1, "m": MINUTE_S, "h": HOUR_S, "d": DAY_S, "w": 7 * DAY_S}
MAX_NAME = 64
MAX_WORDS = 200
MAX_SIZE = 2**62
MAX_DURATION_S = 10 * 366 * DAY_S
MOST_SHARDS = 16
LEAST_CODED = 2
"""What the formats take (docs/spec/format.md); nobody means more."""


def parse_size(text: str) -> int:
    """Return bytes: 500G is 500 * 10**9, 500Gi is 500 * 2**30. Exact; what is less than a byte is dropped.

    Raises:
        UsageError: not a size, or more than 2**62 bytes.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text}' is not a size", hint="write it like 500G (10^9) or 500Gi (2^30)")
    number, letter, binary = match.groups()
    size = int(Decimal(number) * (1024 if binary else 1000) ** (_POWERS[letter.upper()] if letter else 0))
    if size > MAX_SIZE:
        raise UsageError(f"'{text}' is more than any disk holds", hint="write it like 500G (10^9) or 500Gi (2^30)")
    return size


def parse_rate(text: str) -> int:
    """Return bytes a second that a limit leaves: as :func:`parse_size`; "unlimited" and 0 are 0, which limits nothing.

    Raises:
        UsageError: not a size, or less than :data:`LEAST_RATE`.
    """
    rate = 0 if text == UNLIMITED else parse_size(text)
    if 0 < rate < LEAST_RATE:
        raise UsageError(
            f"{text} a second is too little: one object would take longer than others wait",
            hint=f'at least {format_size(LEAST_RATE)}, or "{UNLIMITED}"',
        )
    return rate


def parse_duration(text: str) -> int:
    """Return seconds: 30d, 36h, 15m, 2w.

    Raises:
        UsageError: not a duration, or more than ten years.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text}' is not a duration", hint="write it like 30d, 36h, 15m or 2w")
    seconds = int(match[1]) * _SECONDS[match[2].lower()]
    if seconds > MAX_DURATION_S:
        raise UsageError(f"'{text}' is more than ten years", hint="write it like 30d, 36h, 15m or 2w")
    return seconds


def parse_moment(text: str, now_ns: int) -> int:
    """Return ns since 1970 of a day's beginning or a moment, in UTC unless it says otherwise, or of so long ago.

    Raises:
        UsageError: neither 2026-11-17, 2026-11-17T20:15 nor a duration such as 7d.
    """
    if _DURATION.fullmatch(text):
        return now_ns - parse_duration(text) * NS
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise UsageError(
            f"'{text}' is neither a day nor a duration", hint="write it like 2026-11-17, 2026-11-17T20:15 or 7d"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return (since.days * DAY_S + since.seconds) * NS + since.microseconds * 1000


def parse_end(text: str, now_ns: int) -> int:
    """Return ns since 1970 of a moment to come: as :func:`parse_moment`, with durations from now on.

    Raises:
        UsageError: neither 2026-11-17, 2026-11-17T20:15 nor a duration such as 7d.
    """
    if _DURATION.fullmatch(text):
        return now_ns + parse_duration(text) * NS
    return parse_moment(text, now_ns)


def parse_coding(text: str) -> tuple[int, int]:
    """Return how many shards of a pack suffice, and how many there are beside them: 4+2.

    Raises:
        UsageError: packs cannot be cut by it.
    """
    found = _CODING.fullmatch(text)
    if found is None:
        raise UsageError(f"'{text}' is no coding", hint="write it like 4+2: any 4 of 6 shards suffice")
    needed, spare = int(found[1]), int(found[2])
    if needed == 1 and 1 <= spare <= MOST_SHARDS:
        raise UsageError(f"'{text}' would make {spare + 1} copies", hint=f"say --copies {spare + 1}")
    if not (1 < needed <= MOST_SHARDS and 1 <= spare <= MOST_SHARDS):
        raise UsageError(
            f"'{text}' is no coding that packs can be cut by",
            hint=f"from 2 to {MOST_SHARDS} shards that suffice, and from 1 to {MOST_SHARDS} beside them, like 4+2",
        )
    return needed, spare


def parse_name(text: str, what: str) -> str:
    """Return a name or label that every record takes and every terminal shows as it is.

    Raises:
        UsageError: empty, longer than 64 characters, or with ones that cannot be seen; ``what`` says whose it is.
    """
    if not 1 <= len(text) <= MAX_NAME or not text.isprintable() or text.isspace():
        raise UsageError(f"{text!a} cannot be {what}", hint=f"1 to {MAX_NAME} printable characters")
    return text


def parse_words(text: str, what: str) -> str:
    """Return a line for people that every record takes; it may be empty.

    Raises:
        UsageError: longer than 200 characters, or with ones that cannot be seen; ``what`` says whose it is.
    """
    if len(text) > MAX_WORDS or (text and not text.isprintable()):
        raise UsageError(f"{text!a} cannot be {what}", hint=f"at most {MAX_WORDS} printable characters on one line")
    return text


_BUCKET = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]{1,62})((?:/[A-Za-z0-9._-]+)*)/?")
_ENDPOINT = re.compile(r"https?://[^/\s@?#]+(?:/[^\s?#]*)?")
USUAL_REGION = "us-east-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketAddress:
    """Where a bucket is. ``prefix`` is empty or ends with a slash; ``endpoint`` empty: Amazon's own.

    ``credentials`` is the path of a file with its keys, empty if they are handed over otherwise.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = USUAL_REGION
    credentials: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def is_bucket(text: str) -> bool:
    """Return whether a place for objects is meant to be a bucket, not a folder."""
    return text.startswith("s3://")


def parse_bucket(text: str, *, endpoint: str = "", region: str = "", credentials: str = "") -> BucketAddress:
    """Return the address that s3://BUCKET/PREFIX stands for.

    Raises:
        UsageError: no bucket, or no address of a server.
    """
    found = _BUCKET.fullmatch(text)
    if found is None or {".", ".."} & set(found[2].split("/")):
        raise UsageError(
            f"'{text}' is no bucket", hint="write it like s3://BUCKET/PREFIX, of letters, digits, '.', '_' and '-'"
        )
    if endpoint and not _ENDPOINT.fullmatch(endpoint):
        raise UsageError(f"'{endpoint}' is no address of a server", hint="write it like https://s3.example.org")
    if region and not re.fullmatch(r"[A-Za-z0-9-]{1,64}", region):
        raise UsageError(f"'{region}' is no region", hint=f"leave it out, or write it like {USUAL_REGION}")
    return BucketAddress(
        bucket=found[1],
        prefix=f"{found[2].strip('/')}/".lstrip("/"),
        endpoint=endpoint.rstrip("/"),
        region=region or USUAL_REGION,
        credentials=credentials,
    )


def format_size(count: int) -> str:
    """Return bytes for people, in powers of 1000 with three digits."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} PB"


def default_home() -> str:
    """Return where a home is if nobody says: systemd's state folder, else the platform's data folder."""
    state = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    return state or platformdirs.user_data_dir("replicator")


CONFIG_VARIABLE = "REPLICATOR_CONFIG"


def config_path(home: str) -> str:
    """Return where the settings of a home are: REPLICATOR_CONFIG, else config.toml in it."""
    return os.environ.get(CONFIG_VARIABLE) or os.path.join(home, "config.toml")


MOST_STREAMS = 16
"""Uploads of one tenant at a time that a provider may allow."""
UNLIMITED = "unlimited"
"""The rate that limits nothing."""
LEAST_RATE = 128 << 10
"""Bytes a second that a limit must leave: with less, one upload would take longer than providers wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSettings:
    """What this machine may take of its line, in bytes a second, None for all; ``up_day`` 0: nothing by day.

    Without ``night`` it is always night.
    """

    night: "Window | None" = None
    up: int | None = None
    up_day: int | None = None
    down: int | None = None
    down_day: int | None = None


def at_most(line: LineSettings, up: int) -> LineSettings:
    """Return limits of which none lets more be sent than ``up``; what may not be sent at all stays so."""
    up_day = line.up_day if line.up_day == 0 else up if line.up_day is None else min(line.up_day, up)
    return replace(line, up=up if line.up is None else min(line.up, up), up_day=up_day)


def read_window(text: str, zone: str) -> "Window":
    """Return the window that ``22:00-06:00`` means in a zone such as Europe/Stockholm; "" is this machine's own.

    Raises:
        UsageError: it means none, or there is no such zone.
    """
    import zoneinfo  # noqa: PLC0415 - only who has a window needs zones and the scheduler

    from scheduler.errors import PolicyError  # noqa: PLC0415
    from scheduler.night import parse_window  # noqa: PLC0415

    try:
        return parse_window(text, zoneinfo.ZoneInfo(zone) if zone else _own_zone())
    except PolicyError as error:
        raise UsageError(str(error), hint='write it like "22:00-06:00"') from error
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"'{zone}' is no time zone that this machine knows", hint="write it like Europe/Stockholm"
        ) from error


def _own_zone() -> datetime.tzinfo:
    import zoneinfo  # noqa: PLC0415

    # The rules, not today's offset: a window that begins at 22:00 does so in winter and in summer.
    name = os.environ.get("TZ", "").removeprefix(":")
    if name and not name.startswith("/"):
        return zoneinfo.ZoneInfo(name)
    path = name or "/etc/localtime"
    try:
        with open(path, "rb") as file:
            return zoneinfo.ZoneInfo.from_file(
                file, key=os.path.realpath(path).partition("zoneinfo/")[2] or "local time"
            )
    except FileNotFoundError:
        return zoneinfo.ZoneInfo("UTC")
