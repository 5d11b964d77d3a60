"""Values people write: sizes, durations, and a home's config.toml."""

import os
import re
import tomllib
from dataclasses import dataclass

import platformdirs

from replicator.clock import DAY_S, HOUR_S, MINUTE_S
from replicator.errors import HomeError, UsageError

_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([KMGTP]?)(i?)B?\s*$", re.IGNORECASE)
_DURATION = re.compile(r"^\s*(\d+)\s*([smhdw])\s*$", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_SECONDS = {"s": 1, "m": MINUTE_S, "h": HOUR_S, "d": DAY_S, "w": 7 * DAY_S}


def parse_size(text: str) -> int:
    """Return bytes: 500G is 500 * 10**9, 500Gi is 500 * 2**30.

    Raises:
        UsageError: not a size.
    """
    match = _SIZE.match(text)
    if match is None:
        raise UsageError(f"'{text}' is not a size", hint="write it like 500G (10^9) or 500Gi (2^30)")
    number, letter, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** _POWERS[letter.upper()])


def parse_duration(text: str) -> int:
    """Return seconds: 30d, 36h, 15m, 2w.

    Raises:
        UsageError: not a duration.
    """
    match = _DURATION.match(text)
    if match is None:
        raise UsageError(f"'{text}' is not a duration", hint="write it like 30d, 36h, 15m or 2w")
    return int(match[1]) * _SECONDS[match[2].lower()]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """HOME/config.toml. Big paths may lie on other disks; None means inside the home."""

    spool: str | None = None
    spool_limit: int | None = None
    cache: str | None = None


_KNOWN = {"spool", "spool_limit", "cache"}


def load_config(home: str) -> Config:
    """Return the settings of a home; defaults if it has no config.toml.

    Raises:
        HomeError: the file cannot be read, or has a key that is not known.
    """
    path = os.path.join(home, "config.toml")
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except FileNotFoundError:
        return Config()
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise HomeError(f"{path}: {error}") from error
    node = values.pop("node", {})
    unknown = sorted(values) + sorted(f"node.{key}" for key in set(node) - _KNOWN)
    if unknown:
        raise HomeError(
            f"{path}: unknown key {', '.join(unknown)}", hint="known are node.spool, node.spool_limit, node.cache"
        )
    limit = node.get("spool_limit")
    return Config(
        spool=node.get("spool"),
        spool_limit=parse_size(str(limit)) if limit is not None else None,
        cache=node.get("cache"),
    )
