"""provider drain: a provider that leaves, shrinks, or gives one tenant up, in good order."""

from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, command
from replicator.cli.output import moment, table
from replicator.clock import DAY_S, NS
from replicator.config import counted, format_size, parse_end, parse_size
from replicator.errors import UsageError

if TYPE_CHECKING:
    from replicator.provider.drain import Drain, Emptying


@click.command("drain")
@click.option("--tenant", metavar="TENANT", help="Only this one, by its label or the beginning of its id.")
@click.option("--to", "size", metavar="SIZE", help="Keep so much of all tenants together, instead of nothing.")
@click.option("--by", metavar="DATE", help="From when on (2027-01-31, or 60d from now).")
@click.option("--cancel", is_flag=True, help="Take it back; with --tenant, for that one.")
@click.option("--yes", "consent", is_flag=True, help="Also with a shorter notice than the offer promises.")
@click.option("--dry-run", is_flag=True, help="Only show what each tenant would be told.")
@command(keys="provider identity")
def drain(
    session: Session,
    tenant: str | None,
    size: str | None,
    by: str | None,
    *,
    cancel: bool,
    consent: bool,
    dry_run: bool,
) -> None:
    """Tell tenants that this provider leaves or shrinks by a day; without options show how far they are.

    The daemon may run: it takes nothing large from then on beyond what is to stay, and tenants hear of it at their next
    contact and make their copies elsewhere. Nothing is deleted, on that day or after it, and no lock gets shorter; this
    command says what would be lost with this store, and for whom. Ends with 3 while something would.
    """
    from replicator.provider.home import open_provider  # noqa: PLC0415 - commands import what they use

    if tenant is not None and size is not None:
        raise UsageError("--tenant is one tenant that leaves, --to what all keep", hint="give one of the two")
    if cancel and (by is not None or size is not None or dry_run):
        raise UsageError("--cancel takes back what was said", hint="give no --by, --to or --dry-run with it")
    if not cancel and by is None and (tenant is not None or size is not None or consent or dry_run):
        raise UsageError("by when?", hint="give --by DATE, such as 2027-01-31 or 60d")
    opened = open_provider(session.home, fs=session.fs, clock=session.clock, rng=session.rng)
    now_ns = session.clock.now_ns()
    try:
        if cancel:
            count = opened.cancel_drain(tenant)
            if count is None:
                raise UsageError("nothing was said to take back", hint="`provider drain` shows what was")
            session.out.notice(f"taken back: {_hear(count)}")
        elif by is not None:
            keeps = None if size is None else parse_size(size)
            plan = opened.plan_drain(tenant=tenant, size=keeps)
            by_ns = parse_end(by, now_ns)
            if dry_run:
                session.out.result(_plan_document(plan, by_ns), _plan_text(plan, by_ns))
                return
            short = opened.drain(plan, size=keeps, whole=tenant is None, by_ns=by_ns, consent=consent)
            if short:
                session.out.notice("tenants are told that this notice is shorter than the one that was promised")
        whole, found = opened.draining()
    finally:
        opened.close()
    if any(one.left for one in found):
        session.worsen(exits.GAPS)
    session.out.result(_document(whole, found, now_ns), _text(whole, found, now_ns))


def _hear(count: int) -> str:
    """Return who hears of it."""
    if not count:
        return "no tenant had to be told"
    hear = counted(count, "tenant hears of it at its", "tenants hear of it at their")
    return f"{hear} next contact, and {'stays' if count == 1 else 'stay'}"


def _plan_document(plan: "list[Emptying]", by_ns: int) -> dict[str, Any]:
    return {
        "by": moment(by_ns),
        "dry_run": True,
        "tenants": [
            {"id": one.tenant.hex(), "label": one.label, "keeps": one.keeps, "used": one.used, "left": one.left}
            for one in plan
        ],
    }


def _plan_text(plan: "list[Emptying]", by_ns: int) -> list[str]:
    lines = [
        f"{one.label or one.tenant.hex()[:12]} would be told to keep {format_size(one.keeps)} from {moment(by_ns)} on; "
        f"{format_size(one.left)} of its {format_size(one.used)} here would have to be made elsewhere"
        for one in plan
    ]
    return lines or ["No tenant yet."]


def _document(whole: "Drain | None", found: "list[Emptying]", now_ns: int) -> dict[str, Any]:
    return {
        "whole": None if whole is None else {"keeps": whole.keeps, "by": moment(whole.by_ns)},
        "tenants": [
            {
                "id": one.tenant.hex(),
                "label": one.label,
                "keeps": one.keeps,
                "by": moment(one.by_ns),
                "since": moment(one.began_ns),
                "used": one.used,
                "left": one.left,
                "stuck": one.stuck,
                "told": moment(one.told_ns) if one.told_ns else None,
                "done": moment(done_ns) if (done_ns := one.done_ns(now_ns)) else None,
                "late": now_ns >= one.by_ns,
                "locked_until": moment(one.locked_until_ns) if one.locked_until_ns > now_ns else None,
            }
            for one in found
        ],
    }


def _text(whole: "Drain | None", found: "list[Emptying]", now_ns: int) -> list[str]:
    if whole is None and not found:
        return ["This provider has told nobody that it leaves."]
    lines = []
    if whole is not None:
        what = f"keeps {format_size(whole.keeps)} of all" if whole.keeps else "leaves"
        lines.append(f"This provider {what} by {moment(whole.by_ns)}; nobody new is invited.")
    rows = [
        (
            one.label or one.tenant.hex()[:12],
            moment(one.by_ns)[:10],
            format_size(one.keeps),
            format_size(one.used),
            format_size(one.left),
            format_size(one.stuck) if one.stuck else "-",
            _when(one, now_ns),
            moment(one.told_ns) if one.told_ns else "says nothing: by its claims",
        )
        for one in found
    ]
    headers = ("TENANT", "BY", "KEEPS", "LIES HERE", "LEFT", "NO PLACE", "DONE", "BY ITS WORD OF")
    lines += table(headers, rows) if rows else ["No tenant had to be told."]
    for one in found:
        name = one.label or one.tenant.hex()[:12]
        if one.left and now_ns >= one.by_ns:
            lines.append(
                f"{name}: THE DAY IS OVER, and {format_size(one.left)} would be lost to it with this store. Nothing is "
                "deleted by itself: go on serving, or ask."
            )
        elif one.stuck:
            lines.append(
                f"{name}: {format_size(one.stuck)} have no other place: it needs another provider, or more time."
            )
        elif one.left and (done_ns := one.done_ns(now_ns)) > one.by_ns:
            late = counted(round((done_ns - one.by_ns) / NS / DAY_S), "day")
            lines.append(f"{name}: at this pace it is done {late} late.")
        if not one.left and one.locked_until_ns > now_ns:
            lines.append(f"{name}: your receipts lock what lies here until {moment(one.locked_until_ns)[:10]}.")
    if found and not any(one.left for one in found):
        lines.append("Nobody needs anything from here any more beyond what may stay.")
    return lines


def _when(one: "Emptying", now_ns: int) -> str:
    if not one.left:
        return "done"
    done_ns = one.done_ns(now_ns)
    return moment(done_ns)[:10] if done_ns else "-"
