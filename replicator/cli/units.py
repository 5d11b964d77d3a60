"""Units for systemd, as text: the same walls as the NixOS modules have (nix/lib/hardening.nix). No I/O."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from replicator.errors import UsageError

MARK: Final = (
    "# Written by `replicator service install`, which writes it over: put changes into a drop-in (systemctl edit)."
)
HARDENING: Final[tuple[tuple[str, str], ...]] = (
    ("CapabilityBoundingSet", ""),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("NoNewPrivileges", "yes"),
    ("PrivateDevices", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateUsers", "yes"),
    ("ProcSubset", "pid"),
    ("ProtectClock", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectHome", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectProc", "invisible"),
    ("ProtectSystem", "strict"),
    ("RemoveIPC", "yes"),
    ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallErrorNumber", "EPERM"),
    ("SystemCallFilter", "@system-service"),
    ("UMask", "0077"),
)
_READER: Final = "CAP_DAC_READ_SEARCH"
_HOMES: Final = ("/home", "/root", "/run/user")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """What the units are for. ``roles`` are those of the home; ``program`` begins every command.

    ``writes`` are the folders that are written to, ``besides`` Borg repositories, without which it runs all the same;
    ``credentials`` are the names that config.toml takes from systemd.
    """

    home: str
    user: str
    group: str
    program: Sequence[str]
    roles: Sequence[str]
    writes: Sequence[str]
    besides: Sequence[str] = ()
    credentials: Sequence[str] = ()
    config: str = ""
    tells: bool = False
    start: str = "01:00"
    everyone: bool = False
    """``home`` is a folder with a home for each tenant, whose nights they are."""


def units(wanted: Installed) -> dict[str, str]:
    """Return the units of a home by their names: nights for who has keys, a daemon for a provider."""
    found: dict[str, str] = {}
    if wanted.everyone:
        found["replicator-run-all.service"] = _oneshot(wanted, "replicator: everybody's night", "run --all", reads=True)
        found["replicator-run-all.timer"] = _timer("everybody's night", f"*-*-* {wanted.start}:00", "60min")
        return found
    if "node" in wanted.roles or "maintainer" in wanted.roles:
        # A node reads everybody's files; a maintainer reads none.
        reads = "node" in wanted.roles
        found["replicator-run.service"] = _oneshot(wanted, "replicator: the night", "run", reads=reads)
        found["replicator-run.timer"] = _timer("the night", f"*-*-* {wanted.start}:00", "60min")
        if wanted.tells:
            about = "replicator: tell people what no run is there to tell"
            found["replicator-notify.service"] = _oneshot(wanted, about, "notify", reads=False)
            found["replicator-notify.timer"] = _timer("telling people", "*-*-* 08,20:00:00", "10min")
    if "provider" in wanted.roles:
        found["replicator-provider.service"] = _daemon(wanted)
    return found


def to_enable(names: Iterable[str]) -> list[str]:
    """Return which units have to be enabled."""
    timed = {name.removesuffix(".timer") for name in names if name.endswith(".timer")}
    return sorted(name for name in names if name.endswith(".timer") or name.removesuffix(".service") not in timed)


def _oneshot(wanted: Installed, about: str, words: str, *, reads: bool) -> str:
    changes = {"ProtectHome": "read-only"} if reads or _at_home(wanted) else {}
    if reads:
        # In a user namespace of its own the capability would count for nothing.
        changes |= {"CapabilityBoundingSet": _READER, "PrivateUsers": "no"}
    besides = " ".join(_word(f"-{path}") for path in wanted.besides) if reads else ""
    more = [
        ("Type", "oneshot"),
        ("ExecStart", _command(wanted, words)),
        *([("AmbientCapabilities", _READER)] if reads else []),
        *([("ReadWritePaths", besides)] if besides else []),
        ("TimeoutStartSec", "infinity"),
        # Of many runs each has a quarter of an hour to stop, side by side.
        ("TimeoutStopSec", "20min" if wanted.everyone else "15min"),
        ("Nice", "10"),
        ("IOSchedulingClass", "idle"),
        # 3: published, with gaps that are named, and that are told once they stay.
        ("SuccessExitStatus", "3"),
    ]
    return _service(wanted, about, more, changes)


def _daemon(wanted: Installed) -> str:
    changes = {"ProtectHome": "read-only"} if _at_home(wanted) else {}
    more = [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("ExecStart", _command(wanted, "provider serve")),
        ("Restart", "on-failure"),
        ("RestartSec", "5s"),
        ("WatchdogSec", "10min"),
        # Uploads in flight are finished first.
        ("TimeoutStopSec", "5min"),
        ("LimitNOFILE", "16384"),
    ]
    about = "replicator: keep objects for others"
    return _service(wanted, about, more, changes) + "\n[Install]\nWantedBy=multi-user.target\n"


def _service(wanted: Installed, about: str, more: Sequence[tuple[str, str]], changes: Mapping[str, str]) -> str:
    variable = "REPLICATOR_HOMES" if wanted.everyone else "REPLICATOR_HOME"
    lines = [
        MARK,
        "[Unit]",
        f"Description={about}",
        "Wants=network-online.target",
        "After=network-online.target",
        f"RequiresMountsFor={' '.join(map(_word, wanted.writes))}",
        "",
        "[Service]",
        f"User={wanted.user}",
        f"Group={wanted.group}",
        f"Environment={_word(f'{variable}={wanted.home}')}",
        *([f"Environment={_word(f'REPLICATOR_CONFIG={wanted.config}')}"] if wanted.config else []),
        f"ReadWritePaths={' '.join(map(_word, wanted.writes))}",
        *(f"LoadCredential={_word(name)}" for name in wanted.credentials),
        *(f"{key}={value}" for key, value in more),
        "",
        *(f"{key}={changes.get(key, value)}" for key, value in HARDENING),
        "SystemCallFilter=~@privileged @resources",
    ]
    return "".join(f"{line}\n" for line in lines)


def _timer(about: str, calendar: str, delay: str) -> str:
    lines = [
        MARK,
        "[Unit]",
        f"Description=replicator: {about}",
        "",
        "[Timer]",
        f"OnCalendar={calendar}",
        "Persistent=true",
        f"RandomizedDelaySec={delay}",
        "FixedRandomDelay=true",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return "".join(f"{line}\n" for line in lines)


def _command(wanted: Installed, words: str) -> str:
    return " ".join([*(_word(word).replace("$", "$$") for word in wanted.program), words])  # $ begins a variable


def _word(text: str) -> str:
    """Return one word of a unit: % begins a specifier there, quotes keep spaces together.

    Raises:
        UsageError: it would end its line, and what follows be another setting.
    """
    if not text.isprintable():
        raise UsageError(f"{text!a} cannot be written into a unit", hint="choose a name without control characters")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if any(one.isspace() or one in "'\";#" for one in text) else escaped


def _at_home(wanted: Installed) -> bool:
    return any(path == top or path.startswith(f"{top}/") for path in wanted.writes for top in _HOMES)
