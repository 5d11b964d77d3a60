"""provider init|serve|prove|probe|set|sweep|scrub|invite|status; the rest of its life is in modules beside this."""

import os
from typing import TYPE_CHECKING, Any

import click

from replicator.cli import exits
from replicator.cli.base import IDENTITY_CREDENTIAL, Session, command, common_options
from replicator.cli.carrying import adopt
from replicator.cli.disks import move
from replicator.cli.given import usage
from replicator.cli.leaving import drain
from replicator.cli.logs import configure
from replicator.cli.output import Alarm, moment, table
from replicator.cli.places import parse_place
from replicator.clock import DAY_S, NS
from replicator.config import (
    MOST_STREAMS,
    config_path,
    counted,
    format_size,
    is_bucket,
    parse_duration,
    parse_name,
    parse_rate,
    parse_size,
    parse_words,
)
from replicator.credentials import credential, read_secret
from replicator.endpoints import NOBODY, direct
from replicator.errors import FormatError, HomeError, KeyWrongError, UsageError
from replicator.ids import Identity, address_form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.crypto.sign import SigningKey
    from replicator.provider.home import Provider
    from replicator.provider.service import ProviderService
    from replicator.provider.state import ProviderState
    from replicator.provider.sweeping import Swept
    from replicator.provider.watch import Watch
    from replicator.settings import Config

PORT = 7144


@click.group()
@common_options
def provider() -> None:
    """Offer disk to others: keep objects that this machine cannot read."""


for one in (adopt, drain, move, usage):
    provider.add_command(one)


@provider.command("init")
@click.option(
    "--data",
    required=True,
    metavar="DIR",
    help="Where objects are kept: a folder, maybe on a disk of its own, or a bucket: s3://BUCKET/PREFIX.",
)
@click.option("--s3-endpoint", default="", metavar="URL", help="The bucket's server; Amazon's own if nobody says.")
@click.option("--s3-region", default="", help="Its region, us-east-1 if nobody says.")
@click.option(
    "--s3-credentials",
    default="",
    metavar="FILE",
    help="Its keys, as AWS_ACCESS_KEY_ID=... and AWS_SECRET_ACCESS_KEY=... on two lines; else the systemd credential "
    "replicator-s3, or the environment.",
)
@click.option("--capacity", required=True, metavar="SIZE", help="Bytes offered in all: 500G (10^9) or 500Gi (2^30).")
@click.option("--country", required=True, help="Two-letter code.")
@click.option("--region", required=True, help="A part of the country that a disaster would hit as a whole.")
@click.option("--site", required=True, help="The house or room.")
@click.option("--owner", required=True, help="Whose it is.")
@click.option("--legal-name", default="", help="Whose it is to the law, for the records that tenants keep.")
@click.option("--contact", default="", help="How tenants reach whom they have a question to.")
@click.option("--listen", default=f"0.0.0.0:{PORT}", show_default=True, metavar="HOST:PORT", help="Where to listen.")
@click.option("--advertise", multiple=True, metavar="ADDR", help="HOST:PORT that others reach it at; repeatable.")
@click.option("--lock", default="30d", show_default=True, help="How long nothing that was received can be deleted.")
@click.option("--grace", default="14d", show_default=True, help="How long a deletion waits after it was asked for.")
@command(keys="makes the provider's identity")
def init(
    session: Session,
    data: str,
    s3_endpoint: str,
    s3_region: str,
    s3_credentials: str,
    capacity: str,
    country: str,
    region: str,
    site: str,
    owner: str,
    legal_name: str,
    contact: str,
    listen: str,
    advertise: tuple[str, ...],
    lock: str,
    grace: str,
) -> None:
    """Make a provider in this home.

    A bucket has to be there, keep conditional writes and keep no versions: that is tried before anything is made.
    """
    from replicator.provider.home import BucketServer, Terms, init_provider  # noqa: PLC0415 - commands import what they use
    from scheduler import RosterError, country_code  # noqa: PLC0415

    try:
        checked = country_code(country)
    except RosterError as error:
        raise UsageError(str(error), hint="give --country as a two-letter code, such as SE") from error
    offered = parse_size(capacity)
    if not offered:
        raise UsageError(f"a capacity of '{capacity}' is nothing", hint="write it like 500G (10^9) or 500Gi (2^30)")
    terms = Terms(
        capacity=offered,
        owner=parse_name(owner, "an owner"),
        site=parse_name(site, "a site"),
        region=parse_name(region, "a region"),
        country=checked,
        listen=listen,
        advertise=advertise,
        lock_s=parse_duration(lock),
        grace_s=parse_duration(grace),
        legal_name=parse_words(legal_name, "a legal name"),
        contact=parse_words(contact, "a contact"),
    )
    data, keys = parse_place(
        data,
        endpoint=s3_endpoint,
        region=s3_region,
        credentials=s3_credentials,
        hint="give --data s3://BUCKET/PREFIX",
    )
    server = BucketServer(endpoint=s3_endpoint, region=s3_region, credentials=keys) if is_bucket(data) else None
    made = init_provider(
        session.home, data=data, terms=terms, fs=session.fs, clock=session.clock, rng=session.rng, server=server
    )
    try:
        identity, endpoints = made.key.identity, made.offer().endpoints
    finally:
        made.close()
    if not advertise:
        session.out.notice(
            f"others will be told to reach it at {', '.join(endpoints)}; if that is wrong, give --advertise"
        )
    session.out.result(
        {"id": identity.hex(), "home": session.home, "data": data, "listen": listen},
        [
            f"Provider {address_form(identity)} offers {format_size(terms.capacity)} in {data}.",
            "Next: replicator provider serve, and for each tenant: replicator provider invite --quota 100G",
            "For friends in a group: replicator provider set --for-members 50G, and replicator group new or join",
        ],
    )


@provider.command("set")
@click.option(
    "--advertise",
    multiple=True,
    metavar="ADDR",
    help='HOST:PORT that others reach it at; repeatable, best first. "listen": where it listens.',
)
@click.option("--legal-name", help="Whose it is to the law, for the records that tenants keep; '' takes it back.")
@click.option("--contact", help="How tenants reach whom they have a question to; '' takes it back.")
@click.option("--window", metavar="HH:MM-HH:MM", help='When large objects are taken, or "always".')
@click.option("--zone", metavar="ZONE", help="The window's time zone, such as Europe/Stockholm; else this machine's.")
@click.option("--streams", type=click.IntRange(1, MOST_STREAMS), help="Uploads of one tenant at a time.")
@click.option(
    "--down",
    metavar="RATE",
    help='Bytes a second that all tenants together send at the most (500k, 2M), or "unlimited".',
)
@click.option(
    "--up",
    metavar="RATE",
    help='Bytes a second that all together fetch at the most, restores too (500k, 5M), or "unlimited".',
)
@click.option("--capacity", metavar="SIZE", help="Bytes offered in all; less than is stored deletes nothing.")
@click.option("--for-members", metavar="SIZE", help="Bytes that each member of this home's group may store; 0: none.")
@click.option(
    "--notice", metavar="TIME", help="How long before it leaves or shrinks this provider says so (60d); 0d: not said."
)
@click.option(
    "--quota",
    "quotas",
    metavar="TENANT=SIZE",
    multiple=True,
    help="Bytes that this tenant (label or id) may store; less than it stores deletes nothing.",
)
@click.option(
    "--pull-from",
    metavar="WHERE",
    multiple=True,
    help='Where tenants may send it for copies: "public" (as it is), "nobody", or networks such as 10.8.0.0/24.',
)
@click.option(
    "--via",
    metavar="RELAY",
    multiple=True,
    help='HOST:PORT/IDENTITY of a provider that passes connections on to this one; "nobody": none.',
)
@click.option(
    "--relay-for",
    metavar="WHOM",
    multiple=True,
    help='Whom it passes connections on to: identities, "members" (providers that tenants here also use), "nobody".',
)
@click.option("--relay-rate", metavar="SIZE", help="Bytes a second for each provider that it passes connections on to.")
@command(keys="provider identity")
def change(
    session: Session,
    via: tuple[str, ...],
    relay_for: tuple[str, ...],
    relay_rate: str | None,
    advertise: tuple[str, ...],
    capacity: str | None,
    legal_name: str | None,
    contact: str | None,
    window: str | None,
    zone: str | None,
    streams: int | None,
    down: str | None,
    up: str | None,
    for_members: str | None,
    pull_from: tuple[str, ...],
    notice: str | None,
    quotas: tuple[str, ...],
) -> None:
    """Change what this provider says about itself, and when and how much at a time tenants may store.

    A new address goes into its next signed offer. Whoever reaches it, or another provider that has heard, finds it
    there; the daemon tells the others within half an hour, or at its next start.

    The daemon may run. Tenants hear of names at their next contact; a program that is older than these words cannot
    read them, and calls the offer newer. Hours hold at once: outside of the window tenants
    are told when to come back. Records of up to 1 MiB are always taken, and what is fetched has no hours. A capacity
    and a quota hold at once, down as well as up: what is stored stays, and nothing more is taken until it fits again.
    The notice is a promise in the offer: `provider drain` keeps to it. A program that is older than it cannot read the
    offer.

    Rates (--down, --up) hold at once too, also for what is moving, for all tenants together and in turns: one with many
    transfers has no more than one with a single one. Records of up to 1 MiB go before, and questions (heads, claims,
    audits) are not held up. What is fetched is limited only if you set --up: a tenant who has lost everything waits
    for it then. What is passed on for others (--relay-rate) is not in it.

    A tenant may have this provider fetch copies from another one of its providers. It dials no address of a private
    network for that unless --pull-from names it: say "--pull-from public --pull-from 10.8.0.0/24" for a VPN.

    A provider behind a router that lets nobody in waits at another one (--via), which has to allow it (--relay-for)
    and passes on what it cannot read. Both hold from the daemon's next start on.

    What members get (--for-members) holds at once, for those who store here already too. All quotas together are never
    more than the capacity by it: who comes when nothing is left is told so.
    """
    from replicator.provider.home import open_provider  # noqa: PLC0415

    size = None if capacity is None else parse_size(capacity)
    if size == 0:
        raise UsageError("a capacity of 0", hint="to take nothing more, offer less than is stored, such as 1M")
    rate = None if relay_rate is None else parse_size(relay_rate)
    if rate == 0:
        raise UsageError("a rate of 0 passes nothing on", hint="say `--relay-for nobody`")
    down_s, up_s = (None if text is None else parse_rate(text) for text in (down, up))
    notice_s = None if notice is None else parse_duration(notice)
    each = None if for_members is None else parse_size(for_members)
    given = {
        "capacity": size,
        "advertise": advertise or None,
        "window": window,
        "zone": zone,
        "streams": streams,
        "down": down_s,
        "up": up_s,
        "pull_from": pull_from or None,
        "notice_s": notice_s,
        "for_members": each,
        "via": via or None,
        "relay_for": relay_for or None,
        "relay_rate": rate,
    }
    _check_undeclared(session, *(field for field, value in given.items() if value is not None))
    grants = [_parse_quota(one) for one in quotas]
    words: dict[str, Any] = {
        key: parse_words(value, what)
        for key, value, what in (("legal_name", legal_name, "a legal name"), ("contact", contact, "a contact"))
        if value is not None
    }
    hours = window is not None or zone is not None or streams is not None
    if not (words or grants) and all(value is None for value in given.values()):
        raise UsageError(
            "nothing to change",
            hint="give --capacity, --quota, --for-members, --notice, --advertise, --via, --relay-for, --legal-name, "
            "--contact, --window, --zone, --streams, --down, --up or --pull-from",
        )
    opened = open_provider(session.home, fs=session.fs, clock=session.clock, rng=session.rng)
    document: dict[str, Any] = {}
    lines = []
    try:
        document["id"] = opened.key.identity.hex()
        if hours:
            file = opened.set_hours(window="" if window == "always" else window, zone=zone, streams=streams)
            document |= {"window": file.window, "zone": file.zone, "streams": file.streams}
            lines += [
                f"{_hours_text(file.window, file.zone, file.streams)}.",
                "It holds from now on; what was begun is finished.",
            ]
        if down_s is not None or up_s is not None:
            file = opened.set_rates(down=down_s, up=up_s)
            document |= {"down": file.down, "up": file.up}
            lines.append(f"{_rates_text(file.down, file.up) or 'No limit on what comes and goes'}, from now on.")
        if pull_from:
            found = opened.set_pull_from(pull_from)
            document["pull_from"] = list(found.words)
            lines.append(f"Fetches copies from: {', '.join(found.words)}, from the daemon's next start on.")
        if relay_for or rate is not None:
            changed = opened.set_relay(relay_for or None, rate)
            document |= {"relay_for": list(changed.relay_for), "relay_rate": changed.relay_rate}
            lines.append(f"{_relay_text(changed.relay_for, changed.relay_rate)}, from the daemon's next start on.")
        if via:
            document["via"] = list(opened.set_via([_relay_address(session, one) for one in via]))
            lines.append(f"Waits at relays: {', '.join(document['via']) or 'none'}, from the daemon's next start on.")
        if advertise:
            offer = opened.advertise(() if advertise == ("listen",) else advertise)
            document |= {"number": offer.number, "endpoints": offer.endpoints}
            lines.append(f"Offer {offer.number} says: reached at {', '.join(offer.endpoints)}.")
        if words:
            offer = opened.change_offer(**words)
            document |= {"number": offer.number, "legal_name": offer.legal_name, "contact": offer.contact}
            said = f"{offer.legal_name or '(no legal name)'}, {offer.contact or '(no contact)'}"
            lines.append(f"Offer {offer.number} says: {said}.")
        if notice_s is not None:
            offer = opened.change_offer(notice_s=notice_s)
            document |= {"number": offer.number, "notice_s": offer.notice_s}
            lines.append(f"Offer {offer.number} promises {_notice_text(offer.notice_s)}.")
            if opened.promised_until_ns > session.clock.now_ns() + offer.notice_s * NS:
                lines.append(f"A longer one was promised before: until {moment(opened.promised_until_ns)} that holds.")
        if grants:
            document["quotas"] = [_grant(session, opened, name, quota, lines) for name, quota in grants]
        if size is not None:
            offer, state = opened.change_offer(capacity=size), opened.state()
            document |= {"number": offer.number, "capacity": size, "used": state.used, "room": state.room}
            lines += _capacity_text(offer.number, size, state)
        if each is not None:
            opened.set_for_members(each)
            document["for_members"] = each
            lines.append(f"Each member of the group may store {format_size(each)} here." if each else _NOTHING_MORE)
    finally:
        opened.close()
    session.out.result(document, lines)


def _parse_quota(text: str) -> tuple[str, int]:
    name, found, size = text.rpartition("=")
    if not found or not name:
        raise UsageError(f"'{text}' names no tenant and size", hint="write it like --quota bjorkby=100G")
    return name, parse_size(size)


def _grant(session: Session, opened: "Provider", name: str, quota: int, lines: list[str]) -> dict[str, Any]:
    """Give a tenant another quota; return it for JSON."""
    from replicator.settings import load_config  # noqa: PLC0415 - commands import what they use

    declared = load_config(session.home).provider
    tenant = opened.set_quota(name, quota, () if declared is None else declared.tenants)
    [found] = [one for one in opened.state().tenants if one.id == tenant.hex()]
    lines.append(f"{found.name} may store {format_size(quota)}, and stores {format_size(found.used)}.")
    if found.used > quota:
        lines.append(
            f"It hears of it at its next contact, and makes {format_size(found.used - quota)} elsewhere. What is "
            "stored stays until it lets go of it: nothing is deleted for this."
        )
    return {"id": found.id, "label": found.label, "quota": quota, "used": found.used}


def _notice_text(notice_s: int) -> str:
    return f"{notice_s / DAY_S:.3g} days of notice before it leaves or shrinks" if notice_s else "no notice"


_CALLED = {"notice_s": "notice"}
"""Fields that config.toml calls otherwise."""


def _check_undeclared(session: Session, *fields: str) -> None:
    """Refuse what a start would set back. Capacity and addresses always are, other fields if they are in the file."""
    from replicator.settings import load_config  # noqa: PLC0415 - commands import what they use

    declared = load_config(session.home).provider if fields else None
    for field in fields:
        if declared is not None and getattr(declared, field) is not None:
            name = _CALLED.get(field, field)
            raise UsageError(
                f"{config_path(session.home)} declares the {name}, and would set it back",
                hint=f"change provider.{name} there, and start the daemon again",
            )


_NOTHING_MORE = "Members of the group may store nothing more here; what they have stored stays."


def _capacity_text(number: int, size: int, state: "ProviderState") -> list[str]:
    lines = [f"Offer {number} says: {format_size(size)}; {format_size(state.used)} of them are used."]
    if state.used > size:
        lines.append(
            f"Nothing more is taken until {format_size(state.used - size)} have gone. What is stored stays, and is "
            "given out as before: nothing is deleted for this."
        )
    elif state.mounted and state.room < size - state.used:
        lines.append(f"The disk has room for {format_size(state.room)} of them only.")
    given = sum(one.quota for one in state.tenants)
    if given > size:
        lines.append(f"Tenants have quotas of {format_size(given)} together: who comes late will find it full.")
    return lines


def _relay_text(words: "Sequence[str]", rate: int) -> str:
    return f"Passes connections on to: {', '.join(words) or 'nobody'}, {format_size(rate)}/s for each"


def _relay_address(session: Session, text: str) -> str:
    """Return a relay's address; of a peer of this home's tenant, where it was last heard of."""
    if "/" in text or text == NOBODY:
        return text
    with session.member() as half:
        pin = half.peer(text)
        known = half.catalog.peers.get(Identity(pin.identity)).endpoints or tuple(pin.endpoints)
        own = direct(known)
        if not own:
            raise UsageError(f"{text} is reached through a relay itself", hint="name one that can be dialled")
        return f"{own[0]}/{address_form(Identity(pin.identity))}"


@provider.command("probe")
@click.argument("peer", required=False)
@click.option(
    "--tenant-home", metavar="DIR", help="Where your keeper or node is, whose peers are asked; else this home."
)
@command(keys="provider identity; a member's to ask its tenant's peers")
def probe(session: Session, peer: str | None, tenant_home: str | None) -> None:
    """Have another provider dial this one back where it says that it is, and say what is open and what to do.

    PEER is the name of a peer of your tenant, or HOST:PORT/IDENTITY of a provider that one of this one's tenants uses
    too; without it the tenant's first peers are asked. The daemon has to run. Ends with 3 if an advertised address
    does not answer, with 1 if nobody could be asked.
    """
    from replicator.cli.probing import ask, in_words  # noqa: PLC0415 - commands import what they use
    from replicator.provider.home import open_provider  # noqa: PLC0415

    opened = open_provider(session.home, fs=session.fs, clock=session.clock, rng=session.rng)
    try:
        asked = ask(session, opened.key, opened.signed_offer(), peer, tenant_home)
        offer, listen = opened.offer(), opened.listen
    finally:
        opened.close()
    document, lines, good = in_words(asked, offer.endpoints, listen)
    if not good:
        session.worsen(exits.GAPS)
    session.out.result(document, lines)


@provider.command("serve")
@click.option("--listen", metavar="HOST:PORT", help="Another address than the one given at init; port 0 takes any.")
@click.option(
    "--via",
    metavar="RELAY",
    multiple=True,
    help='Wait at a provider that passes connections on: HOST:PORT/IDENTITY, or a peer; "nobody" ends it. Kept.',
)
@command(keys="provider identity")
def serve(session: Session, listen: str | None, via: tuple[str, ...]) -> None:
    """Serve until told to stop (SIGTERM, SIGINT); requests in flight are finished first.

    Where config.toml has [provider], the home is made or changed to be as it says, before. With [notify] people are
    told what is new, every half hour; with [metrics] Prometheus is. A socket that systemd hands over is served.
    """
    from replicator.provider.daemon import serve as run  # noqa: PLC0415
    from replicator.settings import load_config  # noqa: PLC0415

    configure()
    config = load_config(session.home)
    if via:
        _check_undeclared(session, "via")

    def announce(text: str) -> None:
        session.out.result({"listening": text.removeprefix("listening on ")}, text)

    run(
        session.home,
        fs=session.fs,
        clock=session.clock,
        rng=session.rng,
        announce=announce,
        listen=listen,
        declared=config.provider,
        key=_given_key(),
        watch=_watch(session, config),
        via=[_relay_address(session, one) for one in via],
    )


def _watch(session: Session, config: "Config") -> "Watch":
    from replicator.cli.telling import make_teller  # noqa: PLC0415 - commands import what they use
    from replicator.notify.channels import channels  # noqa: PLC0415 - likewise
    from replicator.provider.watch import Watch  # noqa: PLC0415 - likewise

    teller = None
    if channels(config.notify) or config.notify.ping is not None:
        teller = make_teller(session, config, os.path.join(session.home, "provider"))
    return Watch(teller=teller, metrics=config.metrics, fs=session.fs)


@provider.command("prove")
@command(keys="provider identity")
def prove(session: Session) -> None:
    """Make or change this home as config.toml declares it, and show that key and disk are what they should be.

    Writes 16 MiB to the disk, reads them back and removes them. Without [provider] in config.toml it looks at the home
    that is there.
    """
    from replicator.provider.declared import open_declared  # noqa: PLC0415 - commands import what they use
    from replicator.provider.declared import prove as show  # noqa: PLC0415
    from replicator.provider.home import open_provider  # noqa: PLC0415
    from replicator.settings import load_config  # noqa: PLC0415

    world: Any = {"fs": session.fs, "clock": session.clock, "rng": session.rng}
    declared = load_config(session.home).provider
    if declared is None:
        opened = open_provider(session.home, **world)
    else:
        opened = open_declared(session.home, declared, key=_given_key(), **world)
    try:
        proof = show(opened, session.rng)
        endpoints, (down, up) = opened.offer().endpoints, opened.rates
    finally:
        opened.close()
    address = f"{endpoints[0]}/{address_form(proof.identity)}"
    session.out.result(
        {
            "id": proof.identity.hex(),
            "address": address,
            "data": proof.data,
            "capacity": proof.capacity,
            "room": proof.room,
            "written": proof.written,
            "down": down,
            "up": up,
        },
        [
            f"Provider {address_form(proof.identity)} has {format_size(proof.room)} of room in {proof.data}.",
            f"{format_size(proof.capacity)} are offered; {format_size(proof.written)} were written and read back.",
            *([f"{_rates_text(down, up)}."] if down or up else []),
            f"A tenant that is declared here adds it with: replicator peer add {address}",
        ],
    )


def _given_key() -> "SigningKey | None":
    """Return the key that this machine was given as a credential, None if it was given none."""
    path = credential(IDENTITY_CREDENTIAL)
    if path is None:
        return None
    from replicator.crypto.sign import SigningKey  # noqa: PLC0415 - commands import what they use

    try:
        return SigningKey(bytes.fromhex(read_secret(path, "the key of this provider")))
    except (ValueError, FormatError) as error:
        raise KeyWrongError(
            f"{path}: not the key of a provider", hint="it is one line of 64 digits, as `replicator host new` wrote it"
        ) from error


def _hours_text(window: str, zone: str, streams: int) -> str:
    when = f"from {window} {zone}".rstrip() if window else "at any hour"
    return f"Takes large objects {when}, {streams} at a time of one tenant"


def _rates_text(down: int, up: int) -> str:
    """Return what holds for all tenants together, nothing where nothing is limited."""
    said = [f"takes {format_size(down)} a second"] * bool(down) + [f"gives {format_size(up)} a second"] * bool(up)
    return f"All tenants together: it {' and '.join(said)} at the most" if said else ""


_MONTHS_SHOWN = 3


def _months_text(months: list[dict[str, Any]]) -> list[str]:
    shown = sorted({row["month"] for row in months}, reverse=True)[:_MONTHS_SHOWN]
    rows = [
        (row["month"], row["tenant"][:12], *(format_size(row[key]) for key in ("kept", "taken", "given")))
        for row in months
        if row["month"] in shown
    ]
    return ["", *table(("MONTH", "TENANT", "KEPT AT MOST", "CAME IN", "WENT OUT"), rows), ""] if rows else []


def _relayed_text(months: list[dict[str, Any]]) -> list[str]:
    shown = sorted({row["month"] for row in months}, reverse=True)[:_MONTHS_SHOWN]
    rows = [
        (row["month"], row["provider"][:12], row["connections"], format_size(row["bytes"]))
        for row in months
        if row["month"] in shown
    ]
    return table(("MONTH", "PASSED ON TO", "CONNECTIONS", "BYTES"), rows) if rows else []


def _scrub_text(log: dict[str, Any]) -> str:
    when = f"last ended {moment(log['ended_ns'])}" if log["ended_ns"] else "no round has ended yet"
    if log["began_ns"]:
        when += f"; {format_size(log['bytes'])} read since {moment(log['began_ns'])}"
    bad = (
        f"; FOUND {len(log['found'])} NOT GOOD, the last one {moment(log['found'][0]['at_ns'])}" if log["found"] else ""
    )
    return f"Scrub: {when}{bad}"


@provider.command("sweep")
@click.option("--dry-run", is_flag=True, help="Show what would be deleted now; the daemon may run meanwhile.")
@command(keys="provider identity")
def sweep(session: Session, dry_run: bool) -> None:
    """Delete what maintenance marked and whose wait is over. A running daemon does it by itself, once a day."""
    from replicator.provider.daemon import only_daemon  # noqa: PLC0415
    from replicator.provider.home import open_provider  # noqa: PLC0415
    from replicator.provider.sweeping import Swept  # noqa: PLC0415

    opened = open_provider(session.home, fs=session.fs, clock=session.clock, rng=session.rng)
    try:
        if dry_run:
            plans = [Swept(part, list(part.plan.gone)) for part in opened.plan_sweep()]
        else:
            with only_daemon(opened.folder):
                plans = _sweep(session, opened.start())
    finally:
        opened.close()
    rows: list[dict[str, Any]] = [
        {
            "id": part.tenant.hex(),
            "gone": len(gone),
            "bytes": sum(one.size for one in gone),
            "waiting": part.plan.waiting,
            "over_budget": part.plan.over_budget,
            "budget": part.plan.budget,
            "swept": part.plan.swept,
            "frozen": part.plan.frozen,
            "names": [one.name.hex() for one in gone],
            "stopped": stopped,
        }
        for part, gone, stopped in plans
    ]
    for row in rows:
        if row["stopped"]:
            session.worsen(exits.GAPS)
            session.out.notice(f"{row['id'][:12]}: the sweep stopped ({row['stopped']}); the next one goes on")
    session.out.result(rows, _sweep_text(rows, dry_run))


def _sweep(session: Session, service: "ProviderService") -> "list[Swept]":
    """Sweep and stop; what went is told also where the disk does not let it stop in good order."""
    try:
        return service.sweep()
    finally:
        try:
            service.stop()
        except HomeError as error:
            session.worsen(exits.FAILED)
            session.out.notice(f"{error.message}: {error.hint}")


def _sweep_text(rows: list[dict[str, Any]], dry_run: bool) -> list[str]:
    word = "would go" if dry_run else "gone"
    lines = [
        f"{row['id'][:12]}  {counted(row['gone'], 'object')}, {format_size(row['bytes'])} {word}; "
        f"{counted(row['waiting'], 'waits', 'wait')}, {counted(row['over_budget'], 'is', 'are')} over this week's "
        f"budget ({format_size(row['budget'])})"
        for row in rows
    ]
    if any(row["frozen"] for row in rows):
        lines.append("The clock leapt: nothing is deleted for a day. Check it.")
    return lines or ["No tenant yet."]


@provider.command("scrub")
@command(keys="provider identity")
def scrub(session: Session) -> None:
    """Read everything that is stored, and set aside what is damaged. A running daemon does it within 30 days.

    What is set aside counts no more: its tenants see it and store it again. Ends with 4 if there was anything.
    """
    from replicator.provider.daemon import only_daemon  # noqa: PLC0415
    from replicator.provider.home import open_provider  # noqa: PLC0415

    opened = open_provider(session.home, fs=session.fs, clock=session.clock, rng=session.rng)
    try:
        with only_daemon(opened.folder):
            service = opened.start()
            try:
                done = opened.scrub(service, seconds=None)
            finally:
                service.stop()
    finally:
        opened.close()
    if done.found:
        session.worsen(exits.INTEGRITY)
    found = [{"id": one.name, "tenant": one.tenant, "state": one.state} for one in done.found]
    session.out.result(
        {"objects": done.objects, "bytes": done.bytes, "found": found},
        [
            (
                f"{counted(done.objects, 'object')}, {format_size(done.bytes)} read; "
                f"{counted(len(found), 'is', 'are')} not good"
            ),
            *(f"{one['state']}: {one['id'][:12]} of tenant {one['tenant'][:12]}" for one in found),
        ],
    )


@provider.command("invite")
@click.option("--quota", required=True, metavar="SIZE", help="Bytes that this tenant may store.")
@click.option("--for", "label", default="", help="A note to yourself: for whom it is.")
@click.option("--valid", default="7d", show_default=True, help="How long the code can be used.")
@command(keys="provider identity")
def invite(session: Session, quota: str, label: str, valid: str) -> None:
    """Print a code that lets one tenant store objects here; it works once."""
    from replicator.provider.home import open_provider  # noqa: PLC0415

    given, valid_s = parse_size(quota), parse_duration(valid)
    if not valid_s:
        raise UsageError("an invite that is never valid", hint="write --valid like 7d or 36h")
    opened = open_provider(session.home, fs=session.fs, clock=session.clock, rng=session.rng)
    try:
        code = opened.invite(quota=given, label=label, valid_s=valid_s)
    finally:
        opened.close()
    session.out.result({"code": code, "quota": given, "for": label}, code)


@provider.command("status")
@command(keys="provider identity")
def status(session: Session) -> None:
    """Show what is offered, used and by whom, and invites that are still open."""
    from replicator.provider.home import open_provider  # noqa: PLC0415

    opened = open_provider(session.home, fs=session.fs, clock=session.clock, rng=session.rng)
    try:
        found = opened.status()
    finally:
        opened.close()
    session.out.result(found, _status_text(found))


def _draining_text(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        what = f"keeps {format_size(row['keeps'])} of" if row["keeps"] else "keeps nothing of"
        text = f"From {moment(row['by_ns'])[:10]} on it {what} {row['label'] or row['id'][:12]}: "
        left = f"{format_size(row['left'])} left" if row["left"] else "nothing is left to be made elsewhere"
        lines.append(text + left + (f", {format_size(row['stuck'])} HAVE NO OTHER PLACE" if row["stuck"] else ""))
    return lines


def _relays_text(rows: list[dict[str, Any]]) -> list[str]:
    well = [row["id"] for row in rows if not row["lost_ns"]]
    lines = [f"Waits at relays: {', '.join(well)}"] if well else []
    for row in rows:
        if row["lost_ns"]:
            lines.append(Alarm(f"LOST ITS RELAY {row['id']} at {moment(row['lost_ns'])}: {row['reason']}"))
            lines.append(f"    {row['todo']}")
    return lines


def _place_text(found: dict[str, Any]) -> str:
    if is_bucket(found["data"]):
        return "which answers" if found["mounted"] else "which does NOT ANSWER, or is not the bucket that it was"
    return f"{format_size(found['disk_free'])} free on the disk" if found["mounted"] else "which is NOT MOUNTED"


def _old_folders(found: dict[str, Any]) -> list[str]:
    return [*found["moved_before"], *filter(None, [found["moved_from"]])]


def _status_text(found: dict[str, Any]) -> list[str]:
    offer = found["offer"]
    lines = [
        f"Provider {found['address']}",
        f"{offer['owner']}, {offer['site']}, {offer['region']}, {offer['country']}; reached at "
        + ", ".join(offer["endpoints"]),
        f"{format_size(found['used'])} of {format_size(offer['capacity'])} used in {found['data']}, "
        + _place_text(found),
        *(f"Copies from before a move still lie in {one}" for one in _old_folders(found)),
        _hours_text(found["window"], found["zone"], found["streams"]),
        *filter(None, [_rates_text(found["down"], found["up"])]),
        f"Fetches copies from: {', '.join(found['pull_from'])}",
        *_relays_text(found["relays"]),
        *([f"{_relay_text(found['relay_for'], found['relay_rate'])}"] if found["relay_for"] else []),
        *_relayed_text(found["relayed"]),
        *([f"Promises {_notice_text(offer['notice_s'])}"] if offer["notice_s"] else []),
        *_draining_text(found["draining"]),
        *(
            [f"Keeps up to {format_size(found['for_members'])} for each member of its group"]
            if found["for_members"]
            else []
        ),
        "",
    ]
    if found["tenants"]:
        lines += table(
            ("TENANT", "LABEL", "USED", "QUOTA", "OBJECTS", "LAST BACKUP"),
            [
                (
                    row["id"][:12],
                    row["label"],
                    format_size(row["used"]),
                    format_size(row["quota"]),
                    row["objects"],
                    moment(row["heard_ns"]) or "never",
                )
                for row in found["tenants"]
            ],
        )
        lines += _months_text(found["months"])
    else:
        lines.append("No tenant yet.")
    lines.append(_scrub_text(found["scrub"]))
    if found["full_in_days"] is not None:
        lines.append(f"As it grew of late, it is full in {counted(round(found['full_in_days']), 'day')}.")
    for row in found["deletions"]:
        if row["marked"]:
            lines.append(
                f"{row['id'][:12]}: {counted(row['marked'], 'object is', 'objects are')} marked for deletion "
                f"({format_size(row['marked_bytes'])}), the first for {moment(row['first_ns'])}; "
                f"{format_size(row['swept'])} of {format_size(row['budget'])} went this week"
            )
        if row["unbraked"]:
            brakes = " AND NO ".join(row["unbraked"]).upper()
            lines.append(Alarm(f"{row['id'][:12]}: NO {brakes} on deletions, by root's word"))
    lines += [
        f"{row['id'][:12]}: erased by its root's order of {moment(row['began_ns'])}, "
        f"{counted(row['objects'], 'object')}, {format_size(row['bytes'])}"
        + ("" if row["done"] else "; NOT ALL OF IT IS GONE YET")
        for row in found["erased"]
    ]
    if found["frozen_until_ns"]:
        lines.append(
            f"THE CLOCK LEAPT by {found['clock_leap_s']} s: nothing is deleted until "
            f"{moment(found['frozen_until_ns'])}. Check it."
        )
    return lines
