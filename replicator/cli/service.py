"""service install: units for systemd, for machines without NixOS."""

import os
import re
import sys
from typing import TYPE_CHECKING

import click

from replicator.cli.base import Session, command, common_options
from replicator.config import is_bucket
from replicator.errors import HomeError, UsageError

if TYPE_CHECKING:
    from replicator.cli.units import Installed
    from replicator.settings import Config

UNITS = "/etc/systemd/system"


@click.group()
@common_options
def service() -> None:
    """Run by systemd: nights, a provider's daemon, and telling people."""


@service.command("install")
@click.option("--dir", "folder", default=UNITS, show_default=True, help="Where the units are written.")
@click.option("--start", default="01:00", show_default=True, metavar="HH:MM", help="When the night begins.")
@click.option("--user", metavar="NAME", help="Who it runs as; else whose the home is.")
@click.option("--force", is_flag=True, help="Write over units that somebody else wrote.")
@click.option("--dry-run", is_flag=True, help="Show the units, and write nothing.")
@click.option("--all", "everyone", is_flag=True, help="One unit for the nights of all homes below --homes.")
@click.option("--homes", metavar="DIR", help="For --all: the folder with a home for each tenant; or REPLICATOR_HOMES.")
@command(keys="none beyond a home")
def install(
    session: Session,
    folder: str,
    start: str,
    user: str | None,
    force: bool,
    dry_run: bool,
    everyone: bool,
    homes: str | None,
) -> None:
    """Write hardened units for what this home is: nights of a node or maintainer, the daemon of a provider.

    Nothing is started: what to type is printed. Keepers have none: what needs a passphrase is not for the night. With
    --all one unit has the nights of many tenants; what each home writes to besides is looked up now, so call it again
    when a tenant comes whose spool lies elsewhere.
    """
    from replicator.cli.units import MARK, to_enable, units  # noqa: PLC0415 - commands import what they use
    from replicator.fs import write_atomic  # noqa: PLC0415 - likewise
    from replicator.settings import load_config  # noqa: PLC0415 - likewise

    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", start):
        raise UsageError(f"'{start}' is no time of day", hint="write it like 01:00")
    if homes is not None and not everyone:
        raise UsageError("--homes is for --all", hint="give both, or --home DIR for one home")
    if everyone:
        wanted = _wanted_of_all(homes, user, start)
    else:
        wanted = _wanted(session, load_config(session.home), user, start)
    made = units(wanted)
    if not made:
        raise HomeError(
            f"{session.home}: neither a node, a maintainer nor a provider", hint="a keeper has nothing to do by itself"
        )
    changed = []
    for name, text in made.items():
        path = os.path.join(folder, name)
        before = _text_of(path)
        if before == text:
            continue
        if before is not None and not before.startswith(MARK) and not force:
            raise UsageError(f"{path}: somebody else wrote it", hint="look at it; --force writes over it")
        changed.append((path, text))
    if not dry_run:
        for path, text in changed:
            write_atomic(session.fs, path, text.encode())
            os.chmod(path, 0o644)
    enable = to_enable(made)
    document = {
        "units": [{"id": name, "path": os.path.join(folder, name), "text": text} for name, text in made.items()],
        "changed": [path for path, _ in changed],
        "enable": enable,
        "dry_run": dry_run,
    }
    lines = [line for name, text in made.items() for line in (f"# {name}", text)] if dry_run else []
    lines += [f"{'Would write' if dry_run else 'Wrote'} {path}" for path, _ in changed] or [
        "All units are as they were."
    ]
    lines.append(f"Now: systemctl daemon-reload && systemctl enable --now {' '.join(enable)}")
    session.out.result(document, lines)


def _wanted_of_all(homes: str | None, user: str | None, start: str) -> "Installed":
    from dataclasses import replace  # noqa: PLC0415 - commands import what they use

    from replicator.cli.everyone import homes_folder, homes_in  # noqa: PLC0415 - likewise
    from replicator.settings import load_config  # noqa: PLC0415 - likewise

    folder = os.path.realpath(homes_folder(homes))
    found = []
    for name in homes_in(folder, ("node", "maintainer")):
        one = Session()
        one.home_option = os.path.join(folder, name)
        found.append(_wanted(one, load_config(one.home), user, start))
    writes = [path for one in found for path in one.writes if not path.startswith(f"{folder}{os.sep}")]
    besides = sorted({path for one in found for path in one.besides})
    return replace(
        found[0], home=folder, everyone=True, writes=list(dict.fromkeys([folder, *writes])), besides=besides, config=""
    )


def _wanted(session: Session, config: "Config", user: str | None, start: str) -> "Installed":
    import grp  # noqa: PLC0415 - commands import what they use
    import pwd  # noqa: PLC0415 - likewise

    from replicator.cli.units import Installed  # noqa: PLC0415 - likewise
    from replicator.config import config_path  # noqa: PLC0415 - likewise
    from replicator.engine.home import has_half  # noqa: PLC0415 - likewise
    from replicator.notify.channels import channels, credential_names  # noqa: PLC0415 - likewise

    home = os.path.realpath(session.home)
    try:
        owner = os.stat(home)
        found = pwd.getpwnam(user) if user is not None else pwd.getpwuid(owner.st_uid)
        group = grp.getgrgid(found.pw_gid).gr_name
    except OSError as error:
        raise HomeError(f"{home}: {error.strerror}", hint="make the home first") from error
    except KeyError as error:
        raise UsageError(f"no such user: {user or owner.st_uid}", hint="give --user NAME") from error
    roles = [role for role in ("node", "maintainer") if has_half(home, role)]
    writes = [home, *(path for path in (config.spool, config.cache) if path is not None)]
    besides = [one.also_borg for one in config.datasets]
    if "node" in roles:
        with session.node() as node:
            besides += [one.also_borg for one in node.catalog.datasets.all()]
    if os.path.exists(os.path.join(home, "provider", "home.json")):
        roles.append("provider")
        data = _data_of(session)
        writes += [] if is_bucket(data) else [data]
    if config.metrics.textfile is not None:
        writes.append(os.path.dirname(config.metrics.textfile))
    named = config_path(home)
    return Installed(
        home=home,
        user=found.pw_name,
        group=group,
        program=_program(),
        roles=roles,
        writes=list(dict.fromkeys(writes)),
        besides=sorted({path for path in besides if path.startswith("/")}),
        credentials=credential_names(config.notify),
        config="" if named == os.path.join(home, "config.toml") else os.path.abspath(named),
        tells=bool(channels(config.notify)),
        start=start,
    )


def _data_of(session: Session) -> str:
    from replicator.provider.home import open_provider  # noqa: PLC0415 - commands import what they use

    opened = open_provider(session.home, fs=session.fs, clock=session.clock, rng=session.rng)
    try:
        return opened.data
    finally:
        opened.close()


def _program() -> list[str]:
    """Return how this program is called: by its script, or by the interpreter that runs it."""
    script = os.path.abspath(sys.argv[0])
    if os.path.basename(script) == "replicator" and os.access(script, os.X_OK):
        return [script]
    return [sys.executable, "-P", "-m", "replicator"]


def _text_of(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise HomeError(f"{path}: cannot be read ({error})", hint="look at it") from error
