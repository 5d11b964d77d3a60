"""What an operator declares in a config.toml: settings of a node, datasets, peers; a provider and its tenants.

A home without one has the defaults. Every key is known here and nowhere else; all that is wrong is said at once.
"""

import difflib
import os
import re
import shlex
import tomllib
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from replicator.config import (
    CONFIG_VARIABLE,
    LEAST_CODED,
    LEAST_RATE,
    MOST_STREAMS,
    UNLIMITED,
    LineSettings,
    config_path,
    format_size,
    is_bucket,
    parse_bucket,
    parse_coding,
    parse_duration,
    parse_name,
    parse_size,
    read_window,
)
from replicator.endpoints import NOBODY, parse_address, parse_identity, parse_reach, split_endpoint
from replicator.errors import HomeError, UsageError
from replicator.ids import Identity, address_form
from scheduler import PolicyError, RosterError, country_code, fold, residency

T = TypeVar("T")
FAILURE_DOMAINS = ("owner", "site", "region", "country")
SNAPSHOTS = ("none", "btrfs", "zfs", "lvm", "auto")
KEEP_RULES = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
MAX_COPIES = 64
LISTEN = "0.0.0.0:7144"
LOCK = "30d"
GRACE = "14d"
SENDMAIL = "/usr/sbin/sendmail"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_CREDENTIAL = re.compile(r"[A-Za-z0-9_.-]+")
_MAIL = re.compile(r"[^\s@<>,;\"]+@[^\s@<>,;\"]+")
ROOT_KEY_SIZE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredDataset:
    """One ``[dataset.NAME]``. None is "not said": the program's default for a new one, else as it was.

    ``keep`` are retention rules, which a node cannot carry out: (rule, number) in the order of ``KEEP_RULES``.
    """

    name: str
    paths: tuple[str, ...]
    copies: int | None = None
    coding: tuple[int, int] | None = None
    minimum: int | None = None
    spread: tuple[str, ...] | None = None
    residency: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    exclude_if_present: tuple[str, ...] = ()
    exclude_larger_than: str | None = None
    keep_caches: bool = False
    one_file_system: bool = False
    before: str = ""
    after: str = ""
    hook_timeout: str = "10m"
    hook_failure: str = "fail"
    snapshot: str = "none"
    also_borg: str = ""
    keep: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredPeer:
    """One ``[peer.NAME]``: a provider that the operator wants in the charter. Labels that are None are its own."""

    name: str
    identity: Identity
    address: str
    owner: str | None = None
    site: str | None = None
    region: str | None = None
    country: str | None = None
    own: bool = False

    def label(self, domain: str) -> str | None:
        """Return what is declared of a failure domain."""
        value: str | None = getattr(self, domain)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredTenant:
    """One ``[tenant.NAME]``: who holds this root key may store so much here, without an invite."""

    name: str
    root_key: bytes
    quota: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredProvider:
    """``[provider]``: what a provider offers. ``identity`` None: whichever key this home has.

    ``window`` in ``zone`` ("" each for always, and for this machine's), ``streams``, ``down`` and ``up`` (bytes a
    second, 0 for any number), ``pull_from``, ``notice_s``, ``for_members``, ``via``, ``relay_for`` and ``relay_rate``
    (bytes a second) None: as the home has them. ``data`` is an absolute path or s3://BUCKET/PREFIX; ``s3_...`` are for
    that.
    """

    data: str
    capacity: int
    owner: str
    site: str
    region: str
    country: str
    listen: str
    advertise: tuple[str, ...] = ()
    lock_s: int
    grace_s: int
    identity: Identity | None = None
    window: str | None = None
    zone: str | None = None
    streams: int | None = None
    down: int | None = None
    up: int | None = None
    pull_from: tuple[str, ...] | None = None
    via: tuple[str, ...] | None = None
    relay_for: tuple[str, ...] | None = None
    relay_rate: int | None = None
    notice_s: int | None = None
    s3_endpoint: str = ""
    s3_region: str = ""
    s3_credentials: str = ""
    for_members: int | None = None
    tenants: tuple[DeclaredTenant, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """A value that may be secret: written in the file, or where it is: an absolute path, or a systemd credential."""

    text: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandChannel:
    """``[notify.command]``: shell that is run with the message on its standard input."""

    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SendmailChannel:
    """``[notify.sendmail]``: a program that takes a message as sendmail(8) does. ``sender`` empty: its own choice."""

    to: tuple[str, ...]
    sender: str = ""
    program: str = SENDMAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class NtfyChannel:
    """``[notify.ntfy]``: a topic's whole address, and a token where it asks for one."""

    url: Handed
    token: Handed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PingChannel:
    """``[notify.ping]``: an address that expects to be asked for after each run, and rings when it is not."""

    url: Handed


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifySettings:
    """``[notify]``: the ways to somebody. ``name`` is what messages call this machine; empty: its own name."""

    name: str = ""
    command: CommandChannel | None = None
    sendmail: SendmailChannel | None = None
    ntfy: NtfyChannel | None = None
    ping: PingChannel | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """``[metrics]``: a text file that is written after each run, and where a provider answers Prometheus."""

    textfile: str | None = None
    listen: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A config.toml. Big paths may lie on other disks; None means inside the home."""

    spool: str | None = None
    spool_limit: int | None = None
    cache: str | None = None
    line: LineSettings = field(default_factory=LineSettings)
    datasets: tuple[DeclaredDataset, ...] = ()
    peers: tuple[DeclaredPeer, ...] = ()
    provider: DeclaredProvider | None = None
    notify: NotifySettings = field(default_factory=NotifySettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)


def load_config(home: str) -> Config:
    """Return the settings of a home; defaults if it has no config.toml.

    Raises:
        HomeError: the file cannot be read, or is not what it may be; a file that REPLICATOR_CONFIG names is missing.
    """
    path = config_path(home)
    try:
        return read_config(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.environ.get(CONFIG_VARIABLE):
            raise HomeError(f"{path}: missing", hint=f"{CONFIG_VARIABLE} names a file that exists") from error
        return Config()


def read_config(path: str) -> Config:
    """Return the settings in a file.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none.
        HomeError: the file cannot be read, or is not what it may be; the message has all that is wrong.
    """
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise HomeError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise HomeError(f"{path}: {error}", hint="correct the file, or remove it") from error
    problems: list[str] = []
    config = _config(_Table("", values, problems))
    if not problems and config is not None:
        problems = _contradictions(config)
    if problems or config is None:
        raise HomeError(f"{path}: {'; '.join(problems)}", hint="correct the file; `replicator check-config` reads it")
    return config


def keeper_commands(config: Config) -> list[str]:
    """Return what the owner has to type on the keeper so that all that is declared becomes true.

    Peers and what is forgotten are the owner's word: no node can carry them out.
    """
    lines = []
    for peer in config.peers:
        own = " --own" if peer.own else ""
        lines.append(f"replicator peer add {shlex.quote(peer.address)} --name {shlex.quote(peer.name)}{own}")
        labels = [(domain, peer.label(domain)) for domain in FAILURE_DOMAINS]
        said = [f"--{domain} {shlex.quote(label)}" for domain, label in labels if label is not None]
        if said:
            lines.append(f"replicator peer set {shlex.quote(peer.name)} {' '.join(said)}")
    for dataset in config.datasets:
        if dataset.keep:
            rules = " ".join(f"--keep-{rule} {number}" for rule, number in dataset.keep)
            lines.append(f"replicator dataset set {shlex.quote(dataset.name)} {rules}")
    return lines


class _Table:
    """One table of the file: gives each key once, notes what is wrong, and at its end what nobody asked for."""

    def __init__(self, path: str, values: dict[str, Any], problems: list[str]) -> None:
        self.path = path
        self._values = dict(values)
        self._known: list[str] = []
        self.problems = problems

    def wrong(self, key: str, what: str) -> None:
        self.problems.append(f"{self._name(key)} {what}")

    def failed(self, key: str, error: Exception) -> None:
        hint = getattr(error, "hint", "")
        self.problems.append(f"{self._name(key)}: {error}{f'; {hint}' if hint else ''}")

    def _name(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def take(self, key: str) -> Any:
        self._known.append(key)
        return self._values.pop(key, None)

    def peek(self, key: str) -> Any:
        """Return a value that is still to be taken."""
        return self._values.get(key)

    def end(self) -> None:
        """Note the keys that are left: nothing takes them."""
        for key in sorted(self._values):
            near = difflib.get_close_matches(key, self._known, 1)
            meant = f"; did you mean {near[0]}?" if near else f" (known: {', '.join(sorted(self._known))})"
            self.wrong(key, f"is an unknown key{meant}")

    def table(self, key: str) -> "_Table | None":
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.wrong(key, f"is not a table: begin it with [{self._name(key)}]")
            return None
        return _Table(self._name(key), value, self.problems)

    def tables(self, key: str) -> "Iterable[tuple[str, _Table]]":
        """Give the tables [key.NAME] with their names."""
        group = self.table(key)
        if group is None:
            return
        for name in group.names():
            found = group.table(name)
            if found is not None:
                yield name, found

    def names(self) -> list[str]:
        """Return the keys that nobody took."""
        return list(self._values)

    def parsed(self, key: str, parse: Callable[[str], T], *, required: bool = False) -> T | None:
        """Give what ``parse`` makes of a text; it raises UsageError or ValueError."""
        value = self.text(key, required=required)
        if value is None:
            return None
        try:
            return parse(value)
        except (UsageError, ValueError) as error:
            self.failed(key, error)
        return None

    def text(self, key: str, *, required: bool = False) -> str | None:
        value = self.take(key)
        if value is None and required:
            self.wrong(key, "is missing")
        if value is None or (isinstance(value, str) and value.isprintable() and value):
            return value
        self.wrong(key, f"is {value!r}, not a text on one line")
        return None

    def label(self, key: str, what: str, *, required: bool = False) -> str | None:
        return self.parsed(key, lambda text: parse_name(text, what), required=required)

    def size(self, key: str, *, required: bool = False) -> int | None:
        value = self.take(key)
        if value is None:
            if required:
                self.wrong(key, 'is missing; write it like "500G"')
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            self.wrong(key, f'is {value!r}, not a size like "500G"')
            return None
        try:
            return parse_size(str(value))
        except UsageError as error:
            self.failed(key, error)
            return None

    def folder(self, key: str, *, required: bool = False) -> str | None:
        value = self.take(key)
        if value is None:
            if required:
                self.wrong(key, "is missing; name an absolute path")
            return None
        if isinstance(value, str) and os.path.isabs(value) and "\0" not in value:
            return value
        self.wrong(key, f'is {value!r}, not an absolute path; write: {key} = "/where/it/lies"')
        return None

    def flag(self, key: str) -> bool:
        value = self.take(key)
        if value is None or isinstance(value, bool):
            return bool(value)
        self.wrong(key, f"is {value!r}, neither true nor false")
        return False

    def count(self, key: str, low: int, high: int) -> int | None:
        value = self.take(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and low <= value <= high):
            return value
        self.wrong(key, f"is {value!r}, not a number from {low} to {high}")
        return None

    def words(self, key: str, allowed: Iterable[str] | None = None) -> tuple[str, ...] | None:
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
            self.wrong(key, f'is {value!r}, not a list of texts; write: {key} = ["one", "two"]')
            return None
        for one in value:
            if allowed is not None and one not in allowed:
                self.wrong(key, f"has {one!r}; there is {', '.join(allowed)}")
        return tuple(value)

    def choice(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        value = self.take(key)
        if value is None:
            return default
        if value not in allowed:
            self.wrong(key, f"is {value!r}; there is {', '.join(allowed)}")
            return default
        return str(value)


def _config(top: _Table) -> Config | None:
    node = top.table("node")
    spool = spool_limit = cache = None
    if node is not None:
        spool, spool_limit, cache = node.folder("spool"), node.size("spool_limit"), node.folder("cache")
        node.end()
    line = _line(top.table("line"))
    datasets = [_dataset(name, table) for name, table in top.tables("dataset")]
    peers = [_peer(name, table) for name, table in top.tables("peer")]
    tenants = [_tenant(name, table) for name, table in top.tables("tenant")]
    provider = top.table("provider")
    if provider is None and tenants:
        top.wrong("tenant", "says who may store here, and there is no [provider]")
    offered = None if provider is None else _provider(provider, tuple(one for one in tenants if one is not None))
    notify, metrics = _notify(top.table("notify")), _metrics(top.table("metrics"))
    top.end()
    if top.problems:
        return None
    return Config(
        spool=spool,
        spool_limit=spool_limit,
        cache=cache,
        line=line,
        datasets=tuple(datasets),
        peers=tuple(one for one in peers if one is not None),
        provider=offered,
        notify=notify,
        metrics=metrics,
    )


def _notify(table: _Table | None) -> NotifySettings:
    if table is None:
        return NotifySettings()
    command = sendmail = ntfy = ping = None
    name = table.label("name", "the name of a machine") or ""
    if (part := table.table("command")) is not None:
        command = CommandChannel(run=part.text("run", required=True) or "")
        part.end()
    if (part := table.table("sendmail")) is not None:
        sendmail = _sendmail(part)
    if (part := table.table("ntfy")) is not None:
        url, token = _url(part), _handed(part, "token", None, required=False)
        if token is not None and url.text.startswith("http://"):
            part.wrong("url", "begins with http:// and there is a token, which anybody on the way could read")
        ntfy = NtfyChannel(url=url, token=token)
        part.end()
    if (part := table.table("ping")) is not None:
        ping = PingChannel(url=_url(part))
        part.end()
    table.end()
    return NotifySettings(name=name, command=command, sendmail=sendmail, ntfy=ntfy, ping=ping)


def _sendmail(table: _Table) -> SendmailChannel:
    to = table.words("to") or ()
    if not to:
        table.wrong("to", 'is missing; write: to = ["me@example.org"]')
    sender = table.text("from") or ""
    for key, address in (*(("to", one) for one in to), *((("from", sender),) if sender else ())):
        if not _MAIL.fullmatch(address):
            table.wrong(key, f"has {address!r}, which is no address")
    program = table.folder("program") or SENDMAIL
    table.end()
    return SendmailChannel(to=to, sender=sender, program=program)


def _url(table: _Table) -> Handed:
    return _handed(table, "url", parse_url, required=True) or Handed()


def _handed(table: _Table, key: str, parse: Callable[[str], str] | None, *, required: bool) -> Handed | None:
    """Take KEY or KEY_file, one of the two; the value of a file is parsed when it is read."""
    text = table.text(key) if parse is None else table.parsed(key, parse)
    where = table.text(f"{key}_file")
    if text is not None and where is not None:
        table.wrong(key, f"is given, and {key}_file too: give one of the two")
    if where is not None and not os.path.isabs(where) and not _CREDENTIAL.fullmatch(where):
        table.wrong(f"{key}_file", f"is {where!r}, neither an absolute path nor the name of a systemd credential")
    if text is None and where is None:
        if required:
            table.wrong(key, f"is missing; or give {key}_file, where it is")
        return None
    return Handed(text=text or "", where=where or "")


def parse_url(text: str) -> str:
    """Return a web address that can be asked for.

    Raises:
        UsageError: it is none. Its text is not repeated: such addresses are secrets as a rule.
    """
    try:
        parts = urllib.parse.urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable() and " " not in text
        good = good and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise UsageError("no web address", hint="write it like https://ntfy.example.org/topic")
    return text


def _metrics(table: _Table | None) -> MetricsSettings:
    if table is None:
        return MetricsSettings()
    listen = table.parsed("listen", _loopback)
    found = MetricsSettings(textfile=table.folder("textfile"), listen=listen)
    table.end()
    return found


def _loopback(text: str) -> str:
    host, _ = split_endpoint(text)
    if host not in LOOPBACK:
        raise UsageError(
            f"{text} is not on this machine alone", hint="write it like 127.0.0.1:9144, and let a proxy ask there"
        )
    return text


def _line(table: _Table | None) -> LineSettings:
    if table is None:
        return LineSettings()
    zone = table.text("zone") or ""
    night = table.parsed("night", lambda text: read_window(text, zone))
    up, down, down_day = _rate(table, "up"), _rate(table, "down"), _rate(table, "down_day")
    up_day = _rate(table, "up_day", nothing="nothing by day")
    table.end()
    if night is None and not table.problems:
        by_day = {"zone": zone or None, "up_day": up_day, "down_day": down_day}
        for key in [key for key, value in by_day.items() if value is not None][:1]:
            table.wrong(key, 'means something only with line.night; write: night = "22:00-06:00"')
    return LineSettings(night=night, up=up, up_day=up_day, down=down, down_day=down_day)


def _rate(table: _Table, key: str, *, nothing: str = "") -> int | None:
    """Take bytes a second; ``nothing`` says what 0 is for, if it is for something."""
    rate = table.size(key)
    if rate is None or rate >= LEAST_RATE or (nothing and rate == 0):
        return rate
    least = f"{format_size(LEAST_RATE)} a second" + (f" or 0, for {nothing}" if nothing else "")
    table.wrong(key, f"is {format_size(rate)}: at least {least}; bytes a second: 500k, 5M")
    return None


def _limit(table: _Table, key: str) -> int | None:
    """Take bytes a second for what comes or goes; 0 is no limit."""
    if table.peek(key) == UNLIMITED:
        table.take(key)
        return 0
    return _rate(table, key, nothing="no limit")


def _dataset(name: str, table: _Table) -> DeclaredDataset:
    paths = table.words("paths") or ()
    if not paths:
        table.wrong("paths", 'is missing; write: paths = ["/srv/what"]')
    for path in paths:
        if not os.path.isabs(path) or "\0" in path:
            table.wrong("paths", f"has {path!r}, which is not absolute")
    copies, minimum = table.count("copies", 1, MAX_COPIES), table.count("minimum", 1, MAX_COPIES)
    coding = table.parsed("coding", parse_coding)
    if coding is not None and copies is not None:
        table.wrong("coding", f"and copies are two promises: give one; coding has {coding[1] + 1} of what stays whole")
    most = copies if coding is None else coding[1] + 1
    if most is not None and minimum is not None and minimum > most:
        raised = "copies" if coding is None else "coding"
        table.wrong("minimum", f"of {minimum} is more than {most} copies: lower it, or raise {raised}")
    if coding is not None and minimum is not None and minimum < LEAST_CODED:
        table.wrong("minimum", f"with coding is at least {LEAST_CODED}")
    keep = table.table("keep")
    rules: list[tuple[str, int]] = []
    if keep is not None:
        rules = [(rule, number) for rule in KEEP_RULES if (number := keep.count(rule, 1, 100_000)) is not None]
        keep.end()
    found = DeclaredDataset(
        name=name,
        paths=paths,
        copies=copies,
        coding=coding,
        minimum=minimum,
        spread=table.words("spread", FAILURE_DOMAINS),
        residency=table.words("residency"),
        exclude=table.words("exclude") or (),
        exclude_if_present=table.words("exclude_if_present") or (),
        exclude_larger_than=table.parsed("exclude_larger_than", _size_as_written),
        keep_caches=table.flag("keep_caches"),
        one_file_system=table.flag("one_file_system"),
        before=table.text("before") or "",
        after=table.text("after") or "",
        hook_timeout=table.parsed("hook_timeout", _duration_as_written) or "10m",
        hook_failure=table.choice("hook_failure", ("fail", "warn"), "fail"),
        snapshot=table.choice("snapshot", SNAPSHOTS, "none"),
        also_borg=_also_borg(table),
        keep=tuple(rules),
    )
    table.end()
    return found


def _also_borg(table: _Table) -> str:
    found = table.text("also_borg") or ""
    if found and (not (os.path.isabs(found) or ":" in found) or "::" in found or not found.isprintable()):
        table.wrong("also_borg", f"is {found!r}; write the absolute path of a Borg repository, or ssh://USER@HOST/PATH")
    return found


def _size_as_written(text: str) -> str:
    if not parse_size(text):
        raise UsageError("of 0, nothing would be saved", hint="name a size, or leave it out for no limit")
    return text


def _duration_as_written(text: str) -> str:
    parse_duration(text)
    return text


def _peer(name: str, table: _Table) -> DeclaredPeer | None:
    address = table.parsed("address", _pinned, required=True)
    owner, site, region = (table.label(domain, f"a {domain}") for domain in FAILURE_DOMAINS[:3])
    country = table.parsed("country", _country)
    own = table.flag("own")
    table.end()
    if address is None:
        return None
    endpoint, identity = address
    return DeclaredPeer(
        name=name,
        identity=identity,
        address=f"{endpoint}/{address_form(identity)}",
        owner=owner,
        site=site,
        region=region,
        country=country,
        own=own,
    )


def _pinned(text: str) -> tuple[str, Identity]:
    endpoint, identity = parse_address(text)
    if identity is None:
        raise UsageError(f"'{text}' has no identity", hint="write HOST:PORT/IDENTITY, as `provider status` shows it")
    return endpoint, identity


def _country(text: str) -> str:
    try:
        return country_code(text)
    except RosterError as error:
        raise ValueError(str(error)) from error


def _endpoint(text: str) -> str:
    split_endpoint(text)
    return text


def _root_key(text: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != ROOT_KEY_SIZE:
        raise UsageError(f"'{text}' is no root key", hint="copy all 64 digits of the id of root in `key list --json`")
    return key


def _tenant(name: str, table: _Table) -> DeclaredTenant | None:
    root_key = table.parsed("root", _root_key, required=True)
    quota = table.size("quota", required=True)
    table.end()
    if root_key is None or quota is None:
        return None
    return DeclaredTenant(name=name, root_key=root_key, quota=quota)


def _provider(table: _Table, tenants: tuple[DeclaredTenant, ...]) -> DeclaredProvider | None:
    data, (s3_endpoint, s3_region, s3_credentials) = _data(table)
    capacity = table.size("capacity", required=True)
    owner, site, region = (table.label(domain, f"a {domain}", required=True) for domain in FAILURE_DOMAINS[:3])
    country = table.parsed("country", _country, required=True)
    listen = table.parsed("listen", _endpoint) or LISTEN
    advertise = table.words("advertise") or ()
    for one in advertise:
        try:
            split_endpoint(one)
        except ValueError as error:
            table.failed("advertise", error)
    lock_s = table.parsed("lock", parse_duration)
    grace_s = table.parsed("grace", parse_duration)
    notice_s = table.parsed("notice", parse_duration)
    identity = table.parsed("identity", parse_identity)
    window, zone = _provider_window(table)
    streams = table.count("streams", 1, MOST_STREAMS)
    down, up = _limit(table, "down"), _limit(table, "up")
    pull_from = table.words("pull_from")
    try:
        parse_reach(pull_from or ())
    except UsageError as error:
        table.failed("pull_from", error)
    if pull_from == ():
        table.wrong("pull_from", 'is empty; write: pull_from = ["nobody"]')
    via, relay_for, relay_rate = _relaying(table)
    for_members = table.size("for_members")
    if for_members and capacity and for_members > capacity:
        table.wrong("for_members", f"of {format_size(for_members)} is more than the capacity, {format_size(capacity)}")
    table.end()
    if not (data and capacity and owner and site and region and country):
        if capacity == 0:
            table.wrong("capacity", "of 0 offers nothing")
        return None
    return DeclaredProvider(
        data=data,
        capacity=capacity,
        owner=owner,
        site=site,
        region=region,
        country=country,
        listen=listen,
        advertise=advertise,
        lock_s=parse_duration(LOCK) if lock_s is None else lock_s,
        grace_s=parse_duration(GRACE) if grace_s is None else grace_s,
        identity=identity,
        window=window,
        zone=zone,
        streams=streams,
        down=down,
        up=up,
        pull_from=pull_from,
        via=via,
        relay_for=relay_for,
        relay_rate=relay_rate,
        notice_s=notice_s,
        s3_endpoint=s3_endpoint,
        s3_region=s3_region,
        s3_credentials=s3_credentials,
        for_members=for_members,
        tenants=tenants,
    )


def _relaying(table: _Table) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None, int | None]:
    """Return at which relays it waits, whom it relays itself, and how many bytes a second for each."""
    via, relay_for = table.words("via"), table.words("relay_for")
    for one in via or ():
        try:
            if one != NOBODY and parse_address(one)[1] is None:
                table.wrong("via", f"'{one}' does not say which relay that is; write HOST:PORT/IDENTITY")
        except UsageError as error:
            table.failed("via", error)
    for one in relay_for or ():
        try:
            if one not in ("members", NOBODY):
                parse_identity(one)
        except UsageError as error:
            table.failed("relay_for", error)
    for key, value in (("via", via), ("relay_for", relay_for)):
        if value == ():
            table.wrong(key, f'is empty; write: {key} = ["nobody"]')
    rate = table.size("relay_rate")
    if rate == 0:
        table.wrong("relay_rate", 'of 0 passes nothing on; write: relay_for = ["nobody"]')
    return via, relay_for, rate


def _data(table: _Table) -> tuple[str | None, tuple[str, str, str]]:
    """Take where the objects lie: a folder, or a bucket with its server, its region and the file with its keys."""
    server = table.text("s3_endpoint") or "", table.text("s3_region") or "", table.folder("s3_credentials") or ""
    place = table.peek("data")
    if not isinstance(place, str) or not is_bucket(place):
        if any(server):
            table.wrong("data", 'is no bucket, and s3_... are for one: data = "s3://BUCKET/PREFIX"')
        return table.folder("data", required=True), server
    endpoint, region, credentials = server
    found = table.parsed(
        "data", lambda text: parse_bucket(text, endpoint=endpoint, region=region, credentials=credentials)
    )
    return None if found is None else str(found), server


def _provider_window(table: _Table) -> tuple[str | None, str | None]:
    """Return both as `provider set` keeps them; a window is always declared together with its zone."""
    zone = table.text("zone")
    window = table.parsed("window", lambda text: _window(text, zone or ""))
    if zone is not None and not window:
        table.wrong("zone", 'means something only with provider.window; write: window = "22:00-06:00"')
    return window, None if window is None else zone or ""


def _window(text: str, zone: str) -> str:
    if text == "always":
        return ""
    read_window(text, zone)
    return text


def _contradictions(config: Config) -> list[str]:
    """Return what cannot be meant although each value alone can."""
    problems = []
    identities = [peer.identity for peer in config.peers]
    problems += [
        f"peer.{peer.name} has the identity of another peer: one of them is copied wrongly"
        for place, peer in enumerate(config.peers)
        if peer.identity in identities[:place]
    ]
    for dataset in config.datasets:
        problems += _unmet(dataset, config.peers)
    provider = config.provider
    if provider is None:
        return problems
    roots = [tenant.root_key for tenant in provider.tenants]
    problems += [
        f"tenant.{tenant.name} has the root key of another tenant: add up their quotas in one table"
        for place, tenant in enumerate(provider.tenants)
        if tenant.root_key in roots[:place]
    ]
    promised = sum(tenant.quota for tenant in provider.tenants)
    if promised > provider.capacity:
        problems.append(
            f"the quotas of all tenants are {format_size(promised)}, and provider.capacity is "
            f"{format_size(provider.capacity)}: lower a quota, or offer more"
        )
    return problems


def _unmet(dataset: DeclaredDataset, peers: tuple[DeclaredPeer, ...]) -> list[str]:
    """Return why the declared peers cannot hold the minimum of a dataset; nothing if there are none, or no minimum.

    Peers without a label may be anywhere: each counts as a place of its own.
    """
    if not peers or dataset.minimum is None:
        return []
    allowed = None
    if dataset.residency and [word.lower() for word in dataset.residency] != ["any"]:
        try:
            allowed = residency(",".join(dataset.residency))
        except PolicyError as error:
            return [f"dataset.{dataset.name}.residency: {error}"]
    useful = [one for one in peers if not one.own and (allowed is None or one.country in (None, *allowed))]
    least, shards = dataset.minimum, ""
    if dataset.coding is not None:
        least += dataset.coding[0] - 1
        shards = f", which is {least} shards"
    problems = []
    for domain in dataset.spread if dataset.spread is not None else ("owner",):
        places = {fold(one.label(domain) or "") or one.identity for one in useful}
        if len(places) < least:
            problems.append(
                f"dataset.{dataset.name}.minimum is {dataset.minimum}{shards}, and the declared peers that may hold "
                f"it are of {len(places)} {domain}s: declare more peers, or lower minimum or spread"
            )
    return problems
