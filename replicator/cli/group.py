"""group new|invite|codes|revoke|join|accept|show|expel|leave."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import Session, command, common_options, read_code, wait
from replicator.cli.output import moment, table
from replicator.config import format_size, parse_duration, parse_name, parse_words
from replicator.errors import KeyMissingError, UsageError
from replicator.ids import Identity, address_form, short

if TYPE_CHECKING:
    from replicator.charter.group import Known, Seated
    from replicator.engine.edge import Edge
    from replicator.engine.joining import Accepted, Code, Here
    from replicator.format.charter import PeerPin

_KEYS = "owner; where there is no keeper, the provider identity"
_LARGEST_CODE = 1 << 16


@click.group()
@common_options
def group() -> None:
    """Friends who keep each other's backups: one code for each person, and nobody is in charge.

    A member is a tenant (its keeper's home), a provider, or both in one home. Each provider decides what it gives to
    members: `replicator provider set --for-members 50G`.
    """


@contextmanager
def _here(session: Session, edge: "Edge") -> "Iterator[Here]":
    """Open what of this home can be in a group.

    Raises:
        KeyMissingError: it has neither keeper nor provider.
    """
    from replicator.engine.home import has_half  # noqa: PLC0415 - commands import what they use
    from replicator.engine.joining import Here  # noqa: PLC0415
    from replicator.provider.home import FOLDER, open_provider  # noqa: PLC0415

    has_provider = os.path.exists(os.path.join(session.home, FOLDER, "home.json"))
    if not has_provider and not has_half(session.home, "keeper"):
        raise KeyMissingError(
            f"{session.home}: this home is neither a tenant's keeper nor a provider",
            hint="make one with `replicator init` or `replicator provider init`, or name another --home",
        )
    with ExitStack() as stack:
        provider = None
        if has_provider:
            provider = open_provider(session.home, fs=session.fs, clock=session.clock, rng=session.rng)
            stack.callback(provider.close)
        keeper = stack.enter_context(session.keeper()) if has_half(session.home, "keeper") else None
        siblings = stack.enter_context(session.siblings()) if keeper is not None else []
        yield Here(edge=edge, keeper=keeper, siblings=siblings, provider=provider)


def _called(here: "Here", name: str | None) -> str:
    if name is not None:
        return parse_name(name, "a member's name")
    if here.keeper is not None:
        return here.keeper.member.name
    assert here.provider is not None, "it is one of the two"
    return here.provider.offer().owner


@group.command("new")
@click.argument("group_name", metavar="NAME")
@click.option("--name", help="What the others shall call this member; the tenant's name, else the provider's owner.")
@command(keys=_KEYS)
def group_new(session: Session, group_name: str, name: str | None) -> None:
    """Begin a group, whose first member this home is. Nothing depends on it afterwards."""
    from replicator.engine.joining import new_group  # noqa: PLC0415 - commands import what they use

    parse_name(group_name, "a group's name")
    with session.edge() as edge, _here(session, edge) as here:
        called = _called(here, name)
        known = new_group(here, name=group_name, called=called)
        lines = [f"Group '{group_name}' is there, and this home is its member '{called}'."]
        lines += _gives(here)
    lines.append("For each friend one code: replicator group invite --for FRIEND")
    session.out.result({"id": known.group.hex(), "group": group_name, "name": called}, lines)


def _gives(here: "Here") -> list[str]:
    """Say what this home's provider gives to members."""
    from replicator.provider.home import Provider  # noqa: PLC0415 - commands import what they use

    if not isinstance(here.provider, Provider):
        return ["It has no provider: it takes from others and gives nothing."]
    given = here.provider.for_members
    if not given:
        return ["Its provider gives nothing to members yet: replicator provider set --for-members 50G"]
    return [f"Its provider keeps up to {format_size(given)} for each other member."]


@group.command("invite")
@click.option("--for", "label", default="", help="A note for whom it is; the group's members can read it.")
@click.option("--valid", default="7d", show_default=True, help="How long the code can be used.")
@command(keys=_KEYS)
def group_invite(session: Session, label: str, valid: str) -> None:
    """Print a code that lets one person in; it works once. Hand it over as you would a house key.

    This home's provider lets in who brings it; where there is none, another member's that answers now.
    """
    from replicator.engine.joining import invite  # noqa: PLC0415 - commands import what they use

    valid_s = parse_duration(valid)
    if not valid_s:
        raise UsageError("a code that is never valid", hint="write --valid like 7d or 36h")
    parse_words(label, "a note")
    with session.edge() as edge, _here(session, edge) as here:
        made = wait(invite(here, label=label, valid_s=valid_s))
    session.out.notice(
        f"good once, until {moment(made.expires_ns)}, while {made.door} answers; there: replicator group join CODE"
    )
    session.out.result(
        {"code": made.code, "id": made.id, "for": label, "door": made.door, "expires": moment(made.expires_ns)},
        made.code,
    )


@group.command("codes")
@command(keys="none beyond being a member")
def group_codes(session: Session) -> None:
    """List the codes that this home gave out, and what became of them."""
    from replicator.engine.joining import codes  # noqa: PLC0415 - commands import what they use

    with session.edge() as edge, _here(session, edge) as here:
        found = codes(here)
    session.out.result(
        [_code_document(one) for one in found],
        table(
            ("CODE", "FOR", "STATE", "GOOD UNTIL", "USED BY"),
            [(one.id, one.label, one.state, moment(one.expires_ns), one.used_by) for one in found],
        )
        if found
        else ["No code was given out here."],
    )


def _code_document(one: "Code") -> dict[str, Any]:
    return {
        "id": one.id,
        "for": one.label,
        "state": one.state,
        "expires": moment(one.expires_ns),
        "door": one.door.hex(),
        "used_by": one.used_by,
    }


@group.command("revoke")
@click.argument("code_id", metavar="CODE-ID")
@command(keys=_KEYS)
def group_revoke(session: Session, code_id: str) -> None:
    """Make a code worthless that nobody has used; CODE-ID as `group codes` lists it."""
    from replicator.engine.joining import revoke_code  # noqa: PLC0415 - commands import what they use

    with session.edge() as edge, _here(session, edge) as here:
        code, problems = wait(revoke_code(here, code_id))
    for problem in problems:
        session.worsen(exits.GAPS)
        session.out.notice(f"the provider that lets in who brings it may not have heard yet: {problem}")
    session.out.result(
        {"id": code.id, "for": code.label, "state": "revoked", "heard": not problems}, f"Code {code.id} is revoked."
    )


@group.command("join")
@click.argument("code", required=False)
@click.option("--file", "path", metavar="FILE", help="Read the code from a file.")
@click.option("--name", help="What the others shall call this member; the tenant's name, else the provider's owner.")
@click.option("--yes", "agree", flag_value="yes", default=None, help="Take every member's provider as it says it is.")
@click.option("--later", "agree", flag_value="later", help="Take none yet; `group accept` does.")
@command(keys=_KEYS)
def group_join(session: Session, code: str | None, path: str | None, name: str | None, agree: str | None) -> None:
    """Join a group with a code that a member gave you. CODE "-" is read from standard input.

    Members' providers then keep what each of them gives. Where each stands is its own word, which placement goes by:
    you are shown it and asked once, before any of them is pinned; `peer set` corrects it later.
    """
    from replicator.engine.joining import join, read_group_code  # noqa: PLC0415 - commands import what they use

    text = _code(code, path)
    read_group_code(text)
    with session.edge() as edge, _here(session, edge) as here:
        _must_be_askable(here, agree)
        called = _called(here, name)
        known = wait(join(here, text, called=called))
        accepted = _take(here, (), agree)
        lines = [f"This home is in '{known.name}' now, as '{called}'.", *_gives(here)]
        document = {"id": known.group.hex(), "group": known.name, "name": called} | _accepted_document(here, accepted)
        lines += _accepted_text(session, here, accepted)
    session.out.result(document, lines)


def _code(code: str | None, path: str | None) -> str:
    """Return the code as it was given: on the line, on standard input, in a file, or pasted at a terminal."""
    if (code is None) == (path is None) and code is not None:
        raise UsageError("a code and a file with one", hint="give one of the two")
    if path is not None:
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(_LARGEST_CODE)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot be read ({error})", hint="name the file that the code is in") from error
        return read_code(text if text.strip() not in {"", "-"} else " ")
    if code is not None:
        return read_code(code)
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError("no code was given", hint='give CODE, --file FILE, or "-" for standard input')
    return read_code(str(click.prompt("Paste the code", err=True)))


def _must_be_askable(here: "Here", agree: str | None) -> None:
    if here.keeper is None or agree is not None or (sys.stdin is not None and sys.stdin.isatty()):
        return
    raise UsageError(
        "there is no terminal to ask on whether members' providers are where they say",
        hint="give --yes to take them as they say, or --later to take none yet",
    )


def _take(here: "Here", names: Sequence[str], agree: str | None) -> "Accepted":
    """Take the members' providers that a person agrees to."""
    from replicator.engine.joining import Accepted, accept, candidates  # noqa: PLC0415 - commands import what they use

    found = candidates(here, names)
    if not found or agree == "later":
        return Accepted(pins=[], failures={}, notices=[])
    if agree is None:
        for line in _offers_text(here, found):
            click.echo(line, err=True)
        if not click.confirm("Take them as they say they are?", default=False, err=True):
            return Accepted(pins=[], failures={}, notices=[])
    return wait(accept(here, found))


def _offers_text(here: "Here", seats: "Sequence[Seated]") -> list[str]:
    known = here.known()
    names = {one.id: one.name for one in known.members()} if known is not None else {}
    rows = [
        (
            one.name,
            *(one.offer.owner, one.offer.site, one.offer.region, one.offer.country),
            names.get(one.invited_by, "-"),
            ", ".join(names.get(by, short(by)) for by, _ in one.expelled_by) or "-",
        )
        for one in seats
        if one.offer is not None
    ]
    return table(("MEMBER", "OWNER", "SITE", "REGION", "COUNTRY", "INVITED BY", "EXPELLED BY"), rows)


def _accepted_document(here: "Here", accepted: "Accepted") -> dict[str, Any]:
    return {
        "peers": [_pin_document(here, pin) for pin in accepted.pins],
        "failed": [{"id": name, "error": error} for name, error in accepted.failures.items()],
    }


def _pin_document(here: "Here", pin: "PeerPin") -> dict[str, Any]:
    assert here.keeper is not None, "only a keeper pins"
    return {
        "id": pin.identity.hex(),
        "name": pin.name,
        "owner": pin.owner,
        "site": pin.site,
        "region": pin.region,
        "country": pin.country,
        "address": f"{pin.endpoints[0]}/{address_form(Identity(pin.identity))}",
        "quota": here.keeper.catalog.peers.get(Identity(pin.identity)).quota,
    }


def _accepted_text(session: Session, here: "Here", accepted: "Accepted") -> list[str]:
    from replicator.engine.joining import candidates, doubtful, same_household  # noqa: PLC0415 - commands import what they use

    for notice in accepted.notices:
        session.out.notice(notice)
    for name, error in accepted.failures.items():
        session.worsen(exits.GAPS)
        session.out.notice(f"'{name}' is not a peer yet: {error}")
    lines = []
    for pin in accepted.pins:
        shown = _pin_document(here, pin)
        lines.append(
            f"'{pin.name}' keeps up to {format_size(shown['quota'])} for this tenant. It says that it is "
            f"{pin.owner}'s, at {pin.site}, {pin.region}, {pin.country}; `peer set` corrects that."
        )
    if here.keeper is None:
        return lines
    for pin in accepted.pins:
        beside = same_household(pin, here.keeper.peers)
        if beside:
            session.out.notice(
                f"'{pin.name}' counts as of one household with {', '.join(beside)}, since owner or site are called the "
                f"same; if they are different people, say so: replicator peer set {pin.name} --owner NAME --site SITE"
            )
    left = [one.name for one in candidates(here)]
    if left:
        lines.append(f"Not peers yet: {', '.join(left)}. `replicator group accept` takes them.")
    doubted = [one.name for one in doubtful(here)]
    if doubted:
        lines.append(
            f"Expelled by somebody, and taken by name only: {', '.join(doubted)}. `replicator group show` says why."
        )
    return lines


@group.command("accept")
@click.argument("members", nargs=-1, metavar="[MEMBER]...")
@click.option("--yes", "agree", flag_value="yes", default=None, help="Take them as they say they are, unasked.")
@command(keys="owner")
def group_accept(session: Session, members: tuple[str, ...], agree: str | None) -> None:
    """Take members' providers as peers: all that are none yet, or those named. You are shown where they say they are.

    Nobody becomes a peer without this: else a member could bring ten more that are all one disk, and each would count
    as a copy.
    """
    from replicator.engine.joining import look  # noqa: PLC0415 - commands import what they use

    with session.edge() as edge, _here(session, edge) as here:
        if here.keeper is None:
            raise KeyMissingError(
                f"{session.home}: there is no keeper here, and only a tenant has peers", hint="run this on the keeper"
            )
        for notice in wait(look(here)):
            session.out.notice(notice)
        _must_be_askable(here, agree)
        accepted = _take(here, members, agree)
        document = _accepted_document(here, accepted)
        lines = _accepted_text(session, here, accepted)
    session.out.result(document, lines or ["Every member's provider is a peer of this tenant already."])


@group.command("show")
@click.option("--offline", is_flag=True, help="Ask nobody: what this home knows.")
@command(keys="none beyond being a member")
def group_show(session: Session, offline: bool) -> None:
    """Show who is in the group, what each offers, and who waits for your yes."""
    from replicator.engine.joining import in_group, look  # noqa: PLC0415 - commands import what they use

    with session.edge() as edge, _here(session, edge) as here:
        if not offline:
            for notice in wait(look(here)):
                session.out.notice(notice)
        known, member, seat = in_group(here)
        rows = _rows(here, known, member)
    session.out.result(
        {"id": known.group.hex(), "name": known.name, "member": member.hex(), "state": seat.state, "members": rows},
        _show_text(known, rows),
    )


def _rows(here: "Here", known: "Known", member: bytes) -> list[dict[str, Any]]:
    from replicator.engine.groups import waiting  # noqa: PLC0415 - commands import what they use

    pins = {pin.identity: pin for pin in here.keeper.peers} if here.keeper is not None else {}
    own = set() if here.provider is None else {here.provider.key.identity}
    wait_for = {one.id for one in waiting(known, member, own | {Identity(one) for one in pins})}
    seats = known.members((member,))
    names = {one.id: one.name for one in seats}
    rows = []
    for one in seats:
        pin = pins.get(one.provider) if one.provider is not None else None
        quota = here.keeper.catalog.peers.get(one.provider).quota if here.keeper and pin and one.provider else None
        rows.append(
            {
                "id": one.id.hex(),
                "name": one.name,
                "state": one.state,
                "you": one.id == member,
                "provider": one.provider.hex() if one.provider is not None else None,
                "owner": one.offer.owner if one.offer else None,
                "site": one.offer.site if one.offer else None,
                "region": one.offer.region if one.offer else None,
                "country": one.offer.country if one.offer else None,
                "endpoints": list(one.offer.endpoints) if one.offer else [],
                "invited_by": names.get(one.invited_by),
                "code_used_twice": one.doubled,
                "peer": pin.name if pin is not None else None,
                "quota": quota,
                "waiting": here.keeper is not None and one.id in wait_for,
                "expelled_by": [
                    {"id": by.hex(), "name": names.get(by, short(by)), "reason": reason}
                    for by, reason in one.expelled_by
                ],
            }
        )
    return rows


def _show_text(known: "Known", rows: list[dict[str, Any]]) -> list[str]:
    present = [row for row in rows if row["state"] == "in"]
    own = next(row for row in rows if row["you"])
    lines = [f"Group '{known.name}': {len(present)} in it; this home is '{own['name']}'.", ""]
    lines += table(
        ("MEMBER", "ID", "STATE", "OFFERS DISK AT", "INVITED BY", "FOR YOU"),
        [
            (
                row["name"],
                row["id"][:12],
                row["state"],
                f"{row['site']}, {row['region']}, {row['country']}" if row["site"] else "-",
                row["invited_by"] or "founder",
                _for_you(row),
            )
            for row in rows
        ],
    )
    lines.append("")
    if any(row["waiting"] for row in rows):
        lines.append("Who waits for your yes is looked at and taken with: replicator group accept")
    for row in rows:
        for said in row["expelled_by"]:
            why = f": {said['reason']}" if said["reason"] else ""
            lines.append(f"'{said['name']}' has expelled '{row['name']}'{why}")
        if row["expelled_by"] and row["state"] == "in":
            lines.append(f"  '{row['name']}' is in for this home until it, or most others, say so too: `group expel`")
        if row["code_used_twice"]:
            lines.append(
                f"Somebody else came by the same code as '{row['name']}': its door signed twice, which it must not"
            )
    return lines


def _for_you(row: dict[str, Any]) -> str:
    if row["you"]:
        return "this home"
    if row["peer"] is not None:
        return f"keeps {format_size(row['quota'])} (peer '{row['peer']}')"
    return "waits for your yes" if row["waiting"] else "-"


@group.command("expel")
@click.argument("member")
@click.option("--reason", default="", help="What the others read beside it.")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@command(keys=_KEYS)
def group_expel(session: Session, member: str, reason: str, dry_run: bool) -> None:
    """Say that for you a member is out, by name or id. Signed, so that everybody can check who said it.

    For this home it counts at once, and for all when most of the others have said the same. Nothing is deleted: your
    provider takes nothing more of that member's and gives back what it has; of copies that lie there you are told.
    Who came by that member's codes and is not known here goes too. To invite somebody again undoes it.
    """
    from replicator.engine.joining import expel, find_member, in_group  # noqa: PLC0415 - commands import what they use

    parse_words(reason, "a reason")
    with session.edge() as edge, _here(session, edge) as here:
        known, own, _ = in_group(here)
        seat = find_member(known.members((own,)), member)
        lines = _parting_text(here, [seat], f"'{seat.name}'")
        document = {"id": seat.id.hex(), "name": seat.name, "expelled": not dry_run}
        if dry_run:
            session.out.result(document, [f"Would expel '{seat.name}' ({short(seat.id)}).", *lines])
            return
        known, notices = wait(expel(here, seat, reason=reason))
        now = next(one for one in known.members() if one.id == seat.id)
    for notice in notices:
        session.out.notice(notice)
    for_all = now.state == "expelled"
    session.out.result(
        document | {"for_all": for_all},
        [
            f"For this home '{seat.name}' is out"
            + (", and for all, as most say so." if for_all else "; the others hear of it, and may say the same."),
            *lines,
        ],
    )


@group.command("leave")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@command(keys=_KEYS)
def group_leave(session: Session, dry_run: bool) -> None:
    """Leave the group. Nothing is deleted, here or there.

    Members' providers take nothing new of this tenant from then on and give back what they have; this home's provider
    does the same for theirs, until their copies are made elsewhere. Others may come back by a new code.
    """
    from replicator.engine.joining import in_group, leave  # noqa: PLC0415 - commands import what they use

    with session.edge() as edge, _here(session, edge) as here:
        known, own, _ = in_group(here)
        others = [one for one in known.members((own,)) if one.id != own]
        lines = _parting_text(here, others, "members")
        document = {"id": known.group.hex(), "group": known.name, "left": not dry_run}
        if dry_run:
            session.out.result(document, [f"Would leave '{known.name}'.", *lines])
            return
        _, notices = wait(leave(here))
    for notice in notices:
        session.out.notice(notice)
    session.out.result(document, [f"This home has left '{known.name}'.", *lines])


def _parting_text(here: "Here", seats: "Sequence[Seated]", whom: str) -> list[str]:
    """Say what becomes of copies: of this tenant's there, and of theirs here."""
    lines = []
    if here.keeper is not None:
        providers = {one.provider for one in seats}
        names = [pin.name for pin in here.keeper.peers if pin.identity in providers]
        if names:
            lines.append(
                f"{', '.join(names)}: what lies there of this tenant stays, counts, and is given back; have it copied "
                f"elsewhere with `replicator peer set {names[0]} --state draining` and `replicator repair`, then `peer "
                "remove`."
            )
    if here.provider is not None:
        lines.append(
            f"This home's provider takes nothing more of {whom}, keeps what it has of theirs, and gives it back."
        )
    return lines
