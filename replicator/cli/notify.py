"""notify, ack: who is told what, and what somebody knows already."""

from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, command, wait
from replicator.cli.telling import (
    in_words,
    make_teller,
    memory_folder,
    one_alarm,
    present_alarms,
    provider_folder,
    require_folder,
)
from replicator.errors import NotFoundError, UsageError
from replicator.notify.alarms import Alarm
from replicator.notify.channels import channels
from replicator.notify.memory import alone, load, save
from replicator.notify.telling import acknowledged, look
from replicator.settings import load_config

if TYPE_CHECKING:
    from replicator.notify.teller import Told


@click.command()
@click.option("--test", is_flag=True, help="Send a message that says it is a test by every channel.")
@click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing.")
@command(keys="none beyond being a member, or a provider's home")
def notify(session: Session, test: bool, dry_run: bool) -> None:
    """Tell people what is new by the channels of config.toml, [notify]; what was told before is not told again.

    Runs do so by themselves when they end, and a provider's daemon every half hour. By a timer of its own it also
    tells that no run came.
    """
    if test and dry_run:
        raise UsageError("a test that sends nothing tests nothing", hint="leave out one of the two")
    config = load_config(session.home)
    if not (channels(config.notify) or config.notify.ping):
        raise UsageError("nobody is named to be told", hint="say in config.toml, [notify], how: docs/operate/alarms.md")
    teller = make_teller(session, config, require_folder(session))
    if test:
        told = wait(teller.test())
    else:
        present, standing = _present(session)
        told = wait(teller.tell(present, standing, dry_run=dry_run))
    for one in told:
        if one.problem:
            session.worsen(exits.FAILED)
            session.out.notice(f"{one.channel}: {one.problem}")
    session.out.result([_document(one) for one in told], [line for one in told for line in _text(one, dry_run=dry_run)])


def _present(session: Session) -> tuple[list[Alarm], str]:
    folder = memory_folder(session)
    if folder is not None and folder == provider_folder(session):
        from replicator.provider.alarms import alarms_of, standing  # noqa: PLC0415 - commands import what they use
        from replicator.provider.home import open_provider  # noqa: PLC0415 - likewise

        opened = open_provider(session.home, fs=session.fs, clock=session.clock, rng=session.rng)
        try:
            state = opened.state()
        finally:
            opened.close()
        return alarms_of(state), standing(state)
    with session.member() as half, session.drilling(half) as keeper, session.edge() as edge:
        found, present = present_alarms(half, keeper, edge)
        return present, in_words(found)


def _document(one: "Told") -> dict[str, Any]:
    message = one.message
    return {
        "id": one.channel,
        "problem": one.problem,
        "subject": message.subject if message else "",
        "text": message.text if message else "",
        "codes": list(message.codes) if message else [],
    }


def _text(one: "Told", *, dry_run: bool) -> list[str]:
    if one.message is None:
        return [f"{one.channel}: nothing new"]
    if one.problem:
        return [f"{one.channel}: NOT told"]
    if dry_run:
        return [f"{one.channel}: would be told:", f"    {one.message.subject}", "", one.message.text, ""]
    return [f"{one.channel}: told: {one.message.subject}"]


@click.command()
@click.argument("what", metavar="ALARM")
@click.option("--note", default="", metavar="TEXT", help="What it is, for whoever reads it later.")
@command(keys="none beyond being a member, or a provider's home")
def ack(session: Session, what: str, note: str) -> None:
    """Say that an integrity alarm is known: nobody is told of it again, and status ends with 3 instead of 4 for it.

    ALARM is the id that `status` shows, or a finding's. It stays in sight, never counts as safe, and rings again as
    soon as there is more of it, or it comes back after it was over.
    """
    folder = require_folder(session)
    if folder != provider_folder(session) and _is_finding(session, what):
        from replicator.cli.findings import acknowledge_finding  # noqa: PLC0415 - commands import what they use

        acknowledge_finding(session, what, note)
        return
    present, _ = _present(session)
    alarm = one_alarm(present, what)
    if not alarm.kind.known:
        raise UsageError(
            f"{alarm.code} is over when it is mended, and cannot be known away",
            hint=f"{alarm.todo}",
        )
    with alone(folder, wait=True):
        memory = look(load(session.fs, folder), present, session.clock.now_ns())
        save(session.fs, folder, acknowledged(memory, alarm, note, session.clock.now_ns()))
    session.out.result(
        {"id": alarm.id, "code": alarm.code, "about": alarm.about, "acknowledged": True, "note": note},
        f"Known: {alarm.what}. It stays in `status`, and rings again if there is more of it.",
    )


def _is_finding(session: Session, text: str) -> bool:
    from replicator.cli.findings import one_finding  # noqa: PLC0415 - commands import what they use

    try:
        one_finding(session, text)
    except NotFoundError:
        return False
    return True
