"""node request|renew|add|list|revoke and peer add|list|show|set|remove; peer seed is in :mod:`.carrying`."""

import socket
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec

from replicator.cli import exits
from replicator.cli.base import Session, command, common_options, read_code, wait
from replicator.cli.carrying import seed
from replicator.cli.output import fields, moment, table
from replicator.clock import DAY_S, NS
from replicator.config import MAX_NAME, format_size, parse_end, parse_name, parse_words
from replicator.errors import UsageError
from replicator.ids import Identity, address_form, identity_of, short

if TYPE_CHECKING:
    from replicator.engine.home import Half
    from replicator.format.charter import PeerPin
    from replicator.format.keybag import JoiningRole


@click.group()
@common_options
def node() -> None:
    """Machines that write snapshots, and others that help: maintainers and drill hosts."""


@node.command("request")
@click.option("--name", help="What the keeper shall call this machine; its host name by default.")
@click.option(
    "--role",
    type=click.Choice(("node", "maintainer", "drill")),
    default="node",
    show_default=True,
    help="node: writes snapshots. maintainer: marks what is dead, reads nothing. drill: restores for trial.",
)
@command(keys="none; makes this machine's own key")
def node_request(session: Session, name: str | None, role: "JoiningRole") -> None:
    """Make this machine's key and print the code that the keeper signs with `node add`."""
    from replicator.engine.members import request_node  # noqa: PLC0415 - commands import what they use

    called = parse_name(name if name is not None else socket.gethostname()[:MAX_NAME], "a machine's name")
    with session.edge() as edge:
        code = request_node(session.home, edge, name=called, role=role)
    session.out.result({"code": code}, [code, "", "On the keeper: replicator node add CODE"])


@node.command("renew")
@command(keys="write; owner too where the keeper is in the same home")
def node_renew(session: Session) -> None:
    """Put another write key in the place of this node's own, which loses its right then. Nothing is sent again.

    Where the keeper is in the same home this is all. Else it prints a code for `node add` on the keeper, whose answer
    this machine takes with `node add`; until then all goes on with the key so far.
    """
    from replicator.engine.home import has_half  # noqa: PLC0415 - commands import what they use
    from replicator.engine.members import accept_grant, add_node, request_renewal  # noqa: PLC0415
    from replicator.settings import load_config  # noqa: PLC0415

    with session.edge() as edge:
        code = request_renewal(session.home, edge)
        if not has_half(session.home, "keeper"):
            session.out.result({"code": code}, [code, "", "On the keeper: replicator node add CODE"])
            return
        with session.keeper() as keeper, session.siblings() as siblings:
            added = wait(add_node(keeper, siblings, edge, code))
        accept_grant(session.home, edge, added.code, spool_path=load_config(session.home).spool)
    for notice in added.notices:
        session.out.notice(notice)
    session.out.result(
        {"id": added.identity.hex(), "name": added.name, "role": added.role},
        f"Node '{added.name}' has another key; the one before has no right any more.",
    )


@node.command("add")
@click.argument("code")
@command(keys="owner for a request, restore too for a drill host's; none for a grant")
def node_add(session: Session, code: str) -> None:
    """Keeper: sign a machine's request; prints a grant. That machine: take the grant with the same command.

    CODE "-" is read from standard input. A drill host wraps what it is given with a passphrase of its own.
    """
    from replicator.engine.members import accept_grant, add_node, is_grant  # noqa: PLC0415
    from replicator.settings import load_config  # noqa: PLC0415

    text = read_code(code)
    with session.edge() as edge:
        if is_grant(text):
            accepted = accept_grant(
                session.home,
                edge,
                text,
                lambda what: session.passphrase(what, confirm=True),
                spool_path=load_config(session.home).spool,
            )
            session.out.result(
                {
                    "tenant": accepted.tenant,
                    "role": accepted.role,
                    "fingerprint": accepted.fingerprint,
                    "home": session.home,
                },
                [
                    f"This machine {_DOES[accepted.role]} '{accepted.tenant}', tenant {accepted.fingerprint}.",
                    "Compare that with the recovery sheet or with `node add` on the keeper: a code can be forged.",
                ],
            )
            return
        with session.keeper() as keeper, session.siblings() as siblings:
            added = wait(add_node(keeper, siblings, edge, text))
    for notice in added.notices:
        session.out.notice(notice)
    session.out.result(
        {
            "id": added.identity.hex(),
            "name": added.name,
            "role": added.role,
            "code": added.code,
            "fingerprint": added.fingerprint,
        },
        [
            f"{_CALLED[added.role]} '{added.name}' is in the charter of tenant {added.fingerprint}.",
            "On that machine: replicator node add CODE, where CODE is",
            "",
            added.code,
        ],
    )


_CALLED = {"node": "Node", "maintainer": "Maintainer", "drill": "Drill host"}
_DOES = {"node": "now writes for", "maintainer": "is now a maintainer of", "drill": "now restores for trial for"}


@node.command("list")
@command(keys="none beyond being a member")
def node_list(session: Session) -> None:
    """List the machines that may write, and those that no longer may. Others are in `key list`."""
    with session.member() as half:
        rights = {identity_of(right.holder_key): right for right in half.charter.charter.rights}
        rows = [
            {
                "id": one.identity.hex(),
                "name": one.name,
                "revoked": rights[Identity(one.identity)].revoked if one.identity in rights else True,
            }
            for one in half.private.nodes
        ]
    text = table(
        ("NAME", "IDENTITY", "STATE"),
        [(row["name"], str(row["id"])[:12], "revoked" if row["revoked"] else "may write") for row in rows],
    )
    session.out.result(rows, text)


@node.command("revoke")
@click.argument("name")
@command(keys="owner")
def node_revoke(session: Session, name: str) -> None:
    """Take a machine's right to write away. Its snapshots stay. For others: `key revoke`."""
    from replicator.engine.members import revoke_node  # noqa: PLC0415

    with session.edge() as edge, session.keeper() as keeper, session.siblings() as siblings:
        notices = wait(revoke_node(keeper, siblings, edge, name))
    for notice in notices:
        session.out.notice(notice)
    session.out.result({"id": name, "revoked": True}, f"Node '{name}' may no longer write.")


@click.group()
@common_options
def peer() -> None:
    """Providers that keep this tenant's objects."""


peer.add_command(seed)


@peer.command("add")
@click.argument("code")
@click.option("--name", help="Petname; by default the owner in the provider's offer.")
@click.option("--own", is_flag=True, help="It belongs to this tenant's own household: it never counts as a copy.")
@command(keys="owner")
def peer_add(session: Session, code: str, name: str | None, own: bool) -> None:
    """Use a provider's invite. CODE "-" is read from standard input.

    Where the provider's operator has declared this tenant, CODE is its address: HOST:PORT/IDENTITY.
    """
    from replicator.engine.members import add_peer  # noqa: PLC0415

    text = read_code(code)
    if name is not None:
        parse_name(name, "a petname")
    with session.edge() as edge, session.keeper() as keeper, session.siblings() as siblings:
        added = wait(add_peer(keeper, siblings, edge, text, name=name, own=own))
    for notice in added.notices:
        session.out.notice(notice)
    pin = added.pin
    session.out.result(
        {"id": pin.identity.hex(), **_pin_document(pin), "quota": added.quota, "notice_s": added.notice_s},
        [
            f"'{pin.name}' keeps up to {format_size(added.quota)} for this tenant.",
            *([f"It promises to say so {added.notice_s / DAY_S:.3g} days before it leaves."] if added.notice_s else []),
            f"It says that it is {pin.owner}'s, at {pin.site}, {pin.region}, {pin.country}; `peer set` corrects that.",
            f"For the sheet (`key sheet --addresses`): {pin.endpoints[0]}/{address_form(Identity(pin.identity))}",
        ],
    )


def _pin_document(pin: object) -> dict[str, object]:
    document: dict[str, object] = msgspec.structs.asdict(pin)  # type: ignore[arg-type] # always a PeerPin
    document.pop("identity")
    return document


@peer.command("list")
@command(keys="none beyond being a member")
def peer_list(session: Session) -> None:
    """List the providers, where they stand and when they last answered."""
    from replicator.engine.ways import behind  # noqa: PLC0415 - commands import what they use

    with session.member() as half:
        rows: list[dict[str, Any]] = []
        for pin in half.peers:
            row = half.catalog.peers.get(Identity(pin.identity))
            rows.append(
                {
                    "id": pin.identity.hex(),
                    **_pin_document(pin),
                    **_said(half, pin),
                    "behind": behind(half, pin),
                    "quota": row.quota,
                    "used": row.used,
                    "free": row.free,
                    "contacted": moment(row.contacted_ns),
                    "error": row.last_error,
                }
            )
    session.out.result(
        rows,
        table(
            ("NAME", "OWNER", "SITE", "REGION", "COUNTRY", "USED", "FREE", "LAST ANSWER"),
            [
                (
                    row["name"],
                    row["owner"],
                    row["site"],
                    row["region"],
                    row["country"],
                    format_size(row["used"]) if row["contacted"] else "-",
                    format_size(row["free"]) if row["contacted"] else "-",
                    "; ".join(
                        str(word)
                        for word in (
                            "" if row["state"] == "ok" else row["state"],
                            row["until"] and f"until {row['until']}",
                            row["behind"] and f"only through {' or '.join(row['behind'])}",
                            row["contacted"] or "not asked yet",
                            row["error"],
                        )
                        if word
                    ),
                )
                for row in rows
            ],
        ),
    )


@peer.command("show")
@click.argument("name")
@command(keys="none beyond being a member")
def peer_show(session: Session, name: str) -> None:
    """Show one provider with its address for the recovery sheet, and who is out of reach with whom."""
    from replicator.engine.ways import behind, fallen_with  # noqa: PLC0415 - commands import what they use

    with session.member() as half:
        pin = half.peer(name)
        row = half.catalog.peers.get(Identity(pin.identity))
        held = [
            one
            for one in half.catalog.objects.holdings(peer=Identity(pin.identity))
            if one.state in {"held", "released"}
        ]
        said = _said(half, pin)
        through = behind(half, pin)
        fall = fallen_with(half, pin)
    address = f"{(row.endpoints or tuple(pin.endpoints))[0]}/{address_form(Identity(pin.identity))}"
    document = {
        "id": pin.identity.hex(),
        **_pin_document(pin),
        **said,
        "address": address,
        "endpoints": list(row.endpoints or pin.endpoints),
        "behind": through,
        "falls_with_it": fall,
        "objects": len(held),
        "quota": row.quota,
        "used": row.used,
        "free": row.free,
        "contacted": moment(row.contacted_ns),
        "error": row.last_error,
    }
    said_of_it = {key: value for key, value in document.items() if key != "added_ns"} | {
        key: format_size(getattr(row, key)) for key in ("quota", "used", "free")
    }
    session.out.result(document, fields(said_of_it | {"added": moment(pin.added_ns)}))


@peer.command("usage")
@click.argument("name", required=False)
@command(keys="none beyond being a member")
def peer_usage(session: Session, name: str | None) -> None:
    """Ask providers what they kept, took and gave for this tenant, month by month."""
    from replicator.engine.usage import usage  # noqa: PLC0415 - commands import what they use

    with session.member() as half, session.edge() as edge:
        wanted = None if name is None else half.peer(name).name
        found = wait(usage(half, edge))
    rows = [
        {
            "id": f"{peer} {one.month}",
            "peer": peer,
            "month": one.month,
            "kept": one.kept,
            "taken": one.taken,
            "given": one.given,
        }
        for peer, months in found.months.items()
        for one in months
        if wanted in (None, peer)
    ]
    for peer, why in found.silent.items():
        if wanted in (None, peer):
            session.worsen(exits.GAPS)
            session.out.notice(f"{peer}: {why}")
    session.out.result(
        rows,
        table(
            ("PROVIDER", "MONTH", "KEPT AT MOST", "WENT THERE", "CAME BACK"),
            [
                (row["peer"], row["month"], *(format_size(int(str(row[key]))) for key in ("kept", "taken", "given")))
                for row in rows
            ],
        ),
    )


@peer.command("set")
@click.argument("name")
@click.option("--owner", help="Correct whose it is.")
@click.option("--site", help="Correct where it stands.")
@click.option("--region", help="Correct the region.")
@click.option("--country", help="Correct the country (two letters).")
@click.option("--legal-name", help="Whose it is to the law, for `register`; '' leaves it to the provider's word.")
@click.option("--contact", help="How to reach whom one has a question to, for `register`; '' likewise.")
@click.option("--own/--not-own", default=None, help="Whether it belongs to this tenant's own household.")
@click.option(
    "--state",
    type=click.Choice(("ok", "away", "readonly", "draining", "gone")),
    help="away: waited for until --until. readonly: keeps what it has. draining: is emptied. gone: is lost now.",
)
@click.option("--until", metavar="DATE", help="When it is back (2026-12-01, or 10d from now); with --state away.")
@command(keys="owner")
def peer_set(
    session: Session,
    name: str,
    owner: str | None,
    site: str | None,
    region: str | None,
    country: str | None,
    legal_name: str | None,
    contact: str | None,
    own: bool | None,
    state: "Literal['ok', 'away', 'readonly', 'draining', 'gone'] | None",
    until: str | None,
) -> None:
    """Correct what a provider claims about itself, or say how it stands; the charter pins it.

    Whoever is away, draining or gone gets nothing new. Copies at one that is gone count no more, and those at one that
    is draining are made elsewhere, by the next `repair` or night; nothing is deleted.
    """
    from replicator.engine.members import set_peer  # noqa: PLC0415
    from replicator.engine.tenant import check_country  # noqa: PLC0415

    changes: dict[str, object] = {
        key: parse_name(value, f"its {key}")
        for key, value in (("owner", owner), ("site", site), ("region", region))
        if value is not None
    }
    if own is not None:
        changes["own"] = own
    if country is not None:
        changes["country"] = check_country(country)
    legal = {
        key: parse_words(value, what)
        for key, value, what in (("legal_name", legal_name, "a legal name"), ("contact", contact, "a contact"))
        if value is not None
    }
    standing = None if state is None else (state, _until(state, until, session.clock.now_ns()))
    if state is None and until is not None:
        raise UsageError("--until says when a provider is back", hint="give --state away with it")
    if not changes and not legal and standing is None:
        raise UsageError(
            "nothing to change",
            hint="give --owner, --site, --region, --country, --legal-name, --contact, --own, --not-own or --state",
        )
    with session.edge() as edge, session.keeper() as keeper, session.siblings() as siblings:
        changed, notices = wait(set_peer(keeper, siblings, edge, name, changes, legal, standing))
        said = _said(keeper, changed)
    for notice in notices:
        session.out.notice(notice)
    session.out.result(
        {"id": changed.identity.hex(), **_pin_document(changed), **said},
        f"'{changed.name}' is corrected."
        if standing is None
        else _STANDS[standing[0]].format(changed.name, said["until"]),
    )


_MAX_AWAY_S = 30 * DAY_S
"""A copy that nobody has looked at for longer counts no more, as policies say."""
_STANDS = {
    "ok": "'{0}' is there like any other.",
    "away": "'{0}' is waited for until {1}; it gets nothing new, and its copies count.",
    "readonly": "'{0}' keeps what it has and gets nothing new.",
    "draining": "'{0}' is emptied: `replicator repair`, or the next night, makes its copies elsewhere.",
    "gone": "'{0}' is lost: `replicator repair`, or the next night, makes its copies elsewhere.",
}


def _until(state: str, until: str | None, now_ns: int) -> int:
    """Return when an absence ends, 0 for what has no end.

    Raises:
        UsageError: an absence without an end, or beyond thirty days; an end of something else.
    """
    if state != "away":
        if until is not None:
            raise UsageError(f"--until goes with --state away, not with {state}", hint="leave it out")
        return 0
    if until is None:
        raise UsageError(
            "until when is it away?", hint="add --until DATE; copies there are nobody's protection meanwhile"
        )
    end_ns = parse_end(until, now_ns)
    if not now_ns < end_ns <= now_ns + _MAX_AWAY_S * NS:
        raise UsageError(
            f"'{until}' is not within the next {_MAX_AWAY_S // DAY_S} days",
            hint="a provider that is away for longer keeps nothing safe: say `--state gone`",
        )
    return end_ns


def _said(half: "Half", pin: "PeerPin") -> dict[str, str | None]:
    """Return how a provider stands: what the charter says, else what it said itself."""
    from replicator.engine.notices import notice_of  # noqa: PLC0415 - commands import what they use

    said = next((one for one in half.private.standings if one.identity == pin.identity), None)
    if said is not None:
        return {"state": said.state, "until": moment(said.until_ns) if said.until_ns else None}
    notice = notice_of(half, Identity(pin.identity))
    if notice is None:
        return {"state": "ok", "until": None}
    return {"state": "shrinking" if notice.keeps else "leaving", "until": moment(notice.by_ns)}


@peer.command("remove")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@command(keys="owner")
def peer_remove(session: Session, name: str, dry_run: bool) -> None:
    """Stop counting on a provider. What it holds is marked there and goes, if every promise holds without it.

    Copies at other providers count if they were proved within a week, or are now. If they are needed and cannot be
    proved, the provider stays (exit 3; 4 if what they list is not there). Removed while objects have too few copies
    elsewhere, what it holds stays there (exit 3; 5 below the minimum).
    """
    from replicator.engine.members import remove_peer  # noqa: PLC0415
    from replicator.engine.parting import free_what_it_holds, in_words, look_at_parting  # noqa: PLC0415

    with session.edge() as edge, session.keeper() as keeper, session.siblings() as siblings:
        pin = keeper.peer(name)
        keeper.owner()
        found = wait(look_at_parting(keeper, edge, pin))
        notices: list[str] = []
        parts = not dry_run and not found.unproved
        if parts:
            notices = wait(remove_peer(keeper, siblings, edge, name))
            if not found.stays:
                wait(free_what_it_holds(keeper, edge, pin, found))
    for notice in notices:
        session.out.notice(notice)
    if found.disproved:
        session.worsen(exits.INTEGRITY)
    if found.unproved:
        session.worsen(exits.GAPS)
    elif parts and any(one.below for one in found.short):
        session.worsen(exits.MINIMUM)
    elif parts and (found.short or found.unsure):
        session.worsen(exits.GAPS)
    if found.unproved:
        done = f"'{pin.name}' {'would stay' if dry_run else 'stays'} in the charter"
    elif dry_run:
        done = f"Would remove '{pin.name}' ({short(pin.identity)})"
    else:
        done = f"'{pin.name}' is no longer in the charter"
    after = " Run `replicator repair` so that its copies are made elsewhere." if parts and found.stays else ""
    session.out.result(
        {
            "id": pin.identity.hex(),
            "removed": parts,
            "objects": found.objects,
            "bytes": found.bytes,
            "marked": found.marked,
            "goes": moment(found.first_ns) if found.first_ns else None,
            "stays": found.stays or None,
            "unproved": [{"id": one.name.hex(), "peer": one.peer, "why": one.why} for one in found.unproved],
            "short": [
                {"id": one.name.hex(), "below_minimum": one.below, "proved_elsewhere": one.proved}
                for one in found.short
            ],
        },
        f"{done}; {in_words(pin, found, dry_run=dry_run)}.{after}",
    )
