"""From paper and one address, or a disk, to a keeper's home and everything in it."""

import asyncio
import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from replicator.charter.newest import forks, next_number, ranked
from replicator.charter.verify import VerifiedCharter
from replicator.clock import NS, moment_of
from replicator.crypto.recovery import Root, from_words, root_of
from replicator.crypto.sign import SigningKey
from replicator.crypto.unseal import public_of
from replicator.endpoints import parse_address
from replicator.engine.answers import Answer, shown_by_disk, verified_under
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, get_whole, read_offer
from replicator.engine.findings import NOBODY, Findings, advice_for, in_words
from replicator.engine.generations import formers_of, next_generation
from replicator.engine.handing import (
    enrol_order,
    free_name,
    handed_to,
    next_epoch,
    noted,
    noted_revoked,
    with_epochs,
)
from replicator.engine.home import create_half, has_half, open_private
from replicator.engine.keeper import (
    KeeperHome,
    KeeperSecrets,
    check_passphrase,
    create_keeper,
    sign_charter,
)
from replicator.engine.signedhere import SignedHere, entries_of
from replicator.engine.tenant import KEEPERS_NAME, MAINTENANCE_NAME, open_keybag_of, right_of, seal_keybag
from replicator.errors import (
    FormatError,
    HomeError,
    IntegrityError,
    KeyWrongError,
    NotFoundError,
    RefusedError,
    ReplicatorError,
    UnreachableError,
    UsageError,
)
from replicator.format.charter import CharterPrivate, NodeName
from replicator.format.container import unwrap_record
from replicator.format.finding import Finding, Statement
from replicator.format.keybag import Keybag, MemberFile
from replicator.format.merkle import name_of
from replicator.ids import Identity, ObjectName, identity_of
from replicator.pack.keys import as_writer
from replicator.store.carried import CarriedDisk
from replicator.transport.base import Target
from replicator.wire.messages import Empty, EnrolRequest, Info

ROUNDS = 16
"""How often those are asked whom charters name that came last: who had the owner key can name others without end."""
UNHEARD = (
    "NOT DONE YET: no provider has heard of this recovery, so earlier keepers keep their rights there. Run `replicator "
    "snapshots` when one answers: it hands this home's charter on. If it speaks of a charter that does not hold, or of "
    "two with one number, providers have a newer one than was found here: recover again, with --peer ADDR, into "
    "another --home"
)
REPLACED = (
    "If one of you made that sheet, recover with it: the tenant's number stands below its name. If nobody did, whoever "
    "had the owner key has taken the tenant over there"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The number of the charter that a provider, or disk, showed; ``id`` is its identity in hex, or the disk's path."""

    id: str
    name: str
    number: int


@dataclass(slots=True)
class Recovered:
    """What a recovery made. ``unreachable`` are peers that have not got the new charter yet, ``away`` their names.

    ``integrity`` and ``gaps`` are what makes it less than whole.
    """

    name: str
    keeper: Identity
    node: Identity | None
    charter_number: int
    peers: int = 0
    shown: list[Shown] = field(default_factory=list)
    integrity: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    unreachable: list[str] = field(default_factory=list)
    away: list[str] = field(default_factory=list)


async def recover(
    home: str,
    edge: Edge,
    *,
    words: list[str],
    addresses: Iterable[str] = (),
    disks: Sequence[CarriedDisk] = (),
    passphrase: str,
    keeper_only: bool = False,
) -> Recovered:
    """Make a keeper's home (and a fresh node key) from the sheet's words and one provider's address, or a disk.

    No address and no disk need be trusted: charters and keybags are checked against root, every provider that a charter
    names is asked too, and the newest charter counts. The new home signs the next one, under new index keys; earlier
    keepers have no rights in it any more, nodes keep theirs. A provider hears that when it is reached, the first of
    them perhaps later.

    Raises:
        UsageError: an address is none, or neither an address nor a disk was given.
        KeyWrongError: the words are damaged, or of a sheet that was replaced by another.
        NotFoundError: the tenant is not known where this sheet was tried.
        PeerError: no provider answers.
        IntegrityError: what they show does not hold.
    """
    check_passphrase(passphrase)
    endpoints = [parse_address(one) for one in addresses]
    if not endpoints and not disks:
        raise UsageError("recover needs something to begin with", hint="give --peer ADDR, --from DISK, or both")
    for role in ("keeper", "node"):
        if has_half(home, role):
            raise HomeError(f"{home}: there is a {role} here already", hint="choose an empty --home")
    root = root_of(from_words(words))
    keeper_key = SigningKey(edge.rng.bytes(32))
    shown = [answer for disk in disks for answer in shown_by_disk(disk, root)]
    answers = await _ask_all(edge, root, keeper_key, endpoints, shown)
    return await _make_home(
        home,
        edge,
        root=root,
        keeper_key=keeper_key,
        chosen=_judge(answers),
        passphrase=passphrase,
        keeper_only=keeper_only,
    )


async def _ask_all(
    edge: Edge,
    root: Root,
    key: SigningKey,
    addresses: list[tuple[str, Identity | None]],
    shown: Iterable[Answer] = (),
) -> list[Answer]:
    """Ask these addresses, then every provider that a charter names: the first may have been away for long, or lie.

    ``shown`` is what is there already; the answers come after it.
    """
    answers = list(shown)
    asked: set[bytes] = set()
    for endpoint, pin in addresses:
        try:
            identity = pin or await edge.network.identify(endpoint)
        except ReplicatorError as error:
            answers.append(Answer(name=endpoint, identity=None, error=error))
            continue
        if identity not in asked:
            asked.add(identity)
            target = Target(identity=identity, name=endpoint, endpoints=(endpoint,), key=key, certificate=None)
            answers.append(await _ask(edge, root, target))
    for _ in range(ROUNDS):
        pins = {
            pin.identity: pin
            for one in answers
            if one.charter is not None and one.bag is not None
            for pin in open_private(one.charter, one.bag.member_key).peers
            if pin.identity not in asked
        }
        if not pins:
            return answers
        asked |= pins.keys()
        targets = [
            Target(
                identity=Identity(pin.identity),
                name=pin.name,
                endpoints=tuple(pin.endpoints),
                key=key,
                certificate=None,
            )
            for pin in pins.values()
        ]
        answers += await asyncio.gather(*(_ask(edge, root, target) for target in targets))
    endless = ReplicatorError("charters name ever more providers, each another one; not all of them were asked")
    return [*answers, Answer(name="others", identity=None, error=endless)]


async def _ask(edge: Edge, root: Root, target: Target) -> Answer:
    """Return what one provider has. Whatever goes wrong is in the answer."""
    nothing = Answer(name=target.name, identity=target.identity)
    order = enrol_order(root.signing, target.key.public)
    request = EnrolRequest(holder_key=target.key.public, secret=b"", order=order, root=b"")
    try:
        reply = await edge.network.enrol(target, request)
        connection = await edge.network.connect(replace(target, certificate=reply.certificate))
    except ReplicatorError as error:
        return replace(nothing, error=error)
    try:
        info = await connection.call("info", Empty(), Info)
        read_offer(info.offer, target)
        if not info.charter:
            raise NotFoundError(f"{target.name}: this provider has no charter of this tenant")
        found = verified_under(root, unwrap_record(await get_whole(connection, ObjectName(info.charter))))
        nothing = replace(nothing, charter=found)
        keybag_data = await get_whole(connection, ObjectName(found.charter.keybag))
        return replace(nothing, bag=open_keybag_of(root, keybag_data, found), keybag_data=keybag_data)
    except ReplicatorError as error:
        return replace(nothing, error=error)
    finally:
        await connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """What is gone on from: a charter whose keybag opens, the number of the next, and what there is to say of it."""

    known: VerifiedCharter
    bag: Keybag
    number: int
    forks: list[tuple[VerifiedCharter, VerifiedCharter]]
    shown: list[Shown]
    integrity: list[str]
    gaps: list[str]
    notices: list[str]


def _judge(answers: list[Answer]) -> _Chosen:
    """Choose the newest charter whose keybag opens, and say who showed less, something else, or nothing.

    Raises:
        ReplicatorError: there is none.
    """
    charters = [one.charter for one in answers if one.charter is not None]
    opened = {one.charter.hash: one.bag for one in answers if one.charter is not None and one.bag is not None}
    order = ranked(charters)
    known = next((charter for charter in order if charter.hash in opened), None)
    if known is None:
        raise _nothing_found(answers)
    newest = order[0]
    named = open_private(known, opened[known.hash].member_key).peers
    names = {pin.identity: pin.name for pin in named}
    answers = [one if one.identity is None else replace(one, name=names.get(one.identity, one.name)) for one in answers]
    integrity: list[str] = []
    gaps: list[str] = []
    notices: list[str] = []
    if known is not newest:
        integrity.append(
            f"nobody has a keybag for charter {newest.number} that opens; this goes on from charter {known.number}, "
            "and what came after that is not in it"
        )
    for one in answers:
        if one.charter is not None and one.charter.hash != newest.hash:
            whose = "" if one.charter.root.number == newest.root.number else ", by an owner that root has replaced"
            why = "That disk is older" if one.by_disk else "It was away, or keeps the newer one back"
            notices.append(
                f"{one.name}: shows charter {one.charter.number}{whose}; the newest that anybody shows is "
                f"{newest.number}. {why}"
            )
        _sort_error(one, integrity, gaps, notices)
    alone = [one for one in answers if one.charter is not None]
    if all(one.by_disk for one in alone):
        notices.append(
            f"this is as of {moment_of(known.charter.created_ns)}, when charter {known.number} was signed: no provider "
            "could be asked, so nobody says that it is the newest"
        )
    elif len(alone) == 1:
        notices.append(
            f"only {alone[0].name} could be asked, so nobody else says that charter {known.number} is the newest; "
            "when others answer, `replicator status` tells if they know a newer one"
        )
    return _Chosen(
        known=known,
        bag=opened[known.hash],
        number=next_number(known, charters),
        forks=forks(charters),
        shown=[
            Shown(id=one.name if one.identity is None else one.identity.hex(), name=one.name, number=one.charter.number)
            for one in alone
            if one.charter is not None
        ],
        integrity=integrity,
        gaps=gaps,
        notices=notices,
    )


def _sort_error(one: Answer, integrity: list[str], gaps: list[str], notices: list[str]) -> None:
    """Say what is wrong with an answer; who does not answer at all is met again by the new home."""
    match one.error:
        case None | UnreachableError():
            pass
        case RefusedError(code="replaced"):
            gaps.append(f"{one.error.message}. {REPLACED}")
        case RefusedError(code="unauthorized" | "forbidden" | "not-found"):
            gaps.append(f"{one.name}: does not know this sheet ({one.error.reason})")
        case IntegrityError() | KeyWrongError() | FormatError():
            integrity.append(f"{one.name}: {one.error}")
        case error:
            notices.append(str(error))


def _nothing_found(answers: list[Answer]) -> ReplicatorError:
    """Return why no provider gave anything to go on from: what the worst of them said, else what the first did."""
    errors = [one.error for one in answers if one.error is not None]
    for error in errors:
        if isinstance(error, RefusedError) and error.code == "replaced":
            return KeyWrongError(error.message, hint=REPLACED)
    for error in errors:
        if isinstance(error, IntegrityError):
            return error
    first = errors[0]
    if isinstance(first, RefusedError) and first.code in {"unauthorized", "forbidden", "not-found"}:
        found = NotFoundError(
            f"{answers[0].name}: this provider knows no tenant with this sheet ({first.reason})",
            hint="try the address of another provider of yours",
        )
        found.__cause__ = first
        return found
    return first


async def _make_home(
    home: str,
    edge: Edge,
    *,
    root: Root,
    keeper_key: SigningKey,
    chosen: _Chosen,
    passphrase: str,
    keeper_only: bool,
) -> Recovered:
    known = chosen.known
    owner = SigningKey(chosen.bag.owner_seed)
    now = edge.clock.now_ns()
    before = open_private(known, chosen.bag.member_key)
    keybag, private, formers = _renewed(chosen.bag, before, edge, now)
    statement, handovers, dropped = known.charter.root, known.charter.handovers, ""
    if known.root.root_key != root.signing.public:
        assert known.pending is not None, "it was verified by this"
        statement, handovers = known.pending.successor_signed, [*handovers, known.pending.signed]
    elif known.pending is not None:
        day = datetime.datetime.fromtimestamp(known.pending.announced_ns / NS, datetime.UTC).date()
        dropped = (
            f"another root was announced with the owner key on {day}; this charter takes that back. If it was nobody "
            "of you: `replicator key object --sheet -`, then `replicator key rotate owner --sheet -`"
        )
    keybag_data = seal_keybag(keybag, public_of(root.seal_private), edge.rng)
    domains = [domain.id for domain in keybag.domains]
    earlier = [right for right in known.charter.rights if right.role == "keeper" and not right.revoked]
    rights = [
        msgspec.structs.replace(right, revoked=True) if right in earlier else right for right in known.charter.rights
    ]
    private = noted_revoked(private, [identity_of(right.holder_key) for right in earlier], now)
    rights.append(right_of("keeper", keeper_key.public, domains))
    private = noted(private, keeper_key.identity, free_name(KEEPERS_NAME, private), now)
    maintenance = SigningKey(keybag.maintenance_seed)
    if all(right.holder_key != maintenance.public for right in rights):
        rights.append(right_of("maintainer", maintenance.public, domains))
        private = noted(private, maintenance.identity, free_name(MAINTENANCE_NAME, private), now)
    node_key = None if keeper_only else SigningKey(edge.rng.bytes(32))
    if node_key is not None:
        rights.append(right_of("node", node_key.public, domains))
        name = free_name(edge.host[:60] or "node", private)
        private = noted(private, node_key.identity, name, now)
        named = [*private.nodes, NodeName(identity=node_key.identity, name=name)]
        private = msgspec.structs.replace(private, nodes=named)
    handed = handed_to(*(rights, keybag.domains, private.domains, owner), tenant=keybag.tenant, formers=formers)
    private = msgspec.structs.replace(private, handed=handed)
    charter_data = sign_charter(
        owner=owner,
        member_key=keybag.member_key,
        previous=known.hash,
        number=chosen.number,
        root=statement,
        rights=rights,
        keybag=name_of(keybag_data),
        private=private,
        tenant=keybag.tenant,
        handovers=handovers,
        edge=edge,
    )
    member = MemberFile(
        tenant=keybag.tenant,
        name=private.name,
        root_key=root.signing.public,
        member_key=keybag.member_key,
        domains=[as_writer(domain, public_of(domain.restore_private)) for domain in keybag.domains],
        ticket=b"",
    )
    # With root at hand every provider takes the new charter, also one that has not heard of this keeper.
    order = enrol_order(root.signing, keeper_key.public)
    create_keeper(
        home,
        edge,
        root_order=order,
        seed=keeper_key.seed(),
        member=member,
        charter_data=charter_data,
        keybag_data=keybag_data,
        secrets=KeeperSecrets(
            owner_seed=keybag.owner_seed,
            maintenance_seed=keybag.maintenance_seed,
            domains=tuple(keybag.domains),
        ),
        passphrase=passphrase,
        signed=SignedHere().after(
            entries_of(known.charter.rights, before), entries_of(rights, private), number=chosen.number, now_ns=now
        ),
    )
    if node_key is not None:
        create_half(
            home,
            "node",
            edge.fs,
            seed=node_key.seed(),
            member=msgspec.structs.replace(member, ticket=enrol_order(owner, node_key.public)),
            charter_data=charter_data,
            keybag_data=keybag_data,
        )
    recovered = Recovered(
        name=private.name,
        keeper=identity_of(keeper_key.public),
        node=None if node_key is None else node_key.identity,
        charter_number=chosen.number,
        shown=chosen.shown,
        integrity=list(chosen.integrity),
        gaps=chosen.gaps,
    )
    keeper = KeeperHome(home, edge.fs, lambda _: passphrase)
    try:
        async with Federation(keeper, edge, ticket=lambda _: order) as federation:
            recovered.peers = len(federation.links)
            recovered.notices = [*([dropped] if dropped else []), *chosen.notices, *federation.notices]
            recovered.integrity += federation.integrity
            recovered.unreachable = [str(error) for error in federation.failures.values()]
            recovered.away = [keeper.peer(identity.hex()).name for identity in federation.failures]
            if not federation.links:
                recovered.gaps.append(UNHEARD)
        recovered.integrity += [_kept(keeper, pair, now) for pair in chosen.forks]
    finally:
        keeper.close()
    return recovered


def _renewed(
    bag: Keybag, private: CharterPrivate, edge: Edge, now_ns: int
) -> tuple[Keybag, CharterPrivate, dict[bytes, list[tuple[bytes, bytes]]]]:
    """Return every domain with another index key and restore key, the charter's part of that, and the former ones.

    An earlier keeper's home has the first in clear, and the second under a passphrase that may be guessed.
    """
    epochs = {one.id: one.epoch for one in private.domains}
    formers: dict[bytes, list[tuple[bytes, bytes]]] = {}
    domains = []
    for before in bag.domains:
        secrets = next_epoch(before, edge.rng, epochs.get(before.id, 0))
        former = (public_of(before.restore_private), before.restore_private)
        formers[before.id] = [former, *formers_of(private, before.id, before.restore_private)]
        secrets, private = next_generation(secrets, private, edge.rng, now_ns)
        domains.append(secrets)
    return msgspec.structs.replace(bag, domains=domains), with_epochs(private, domains), formers


def _kept(keeper: KeeperHome, pair: tuple[VerifiedCharter, VerifiedCharter], now_ns: int) -> str:
    """Keep two charters that exclude each other as evidence; return what there is to say of it."""
    earlier, later = pair
    finding = Finding(
        tenant=keeper.tenant,
        finder=keeper.identity,
        kind="charters",
        writer=identity_of(later.root.owner_key),
        provider=NOBODY,
        number=earlier.number,
        statements=[Statement(context="charter", signed=one.signed) for one in pair],
        challenge=[],
        found_ns=now_ns,
    )
    kept = Findings(keeper).keep(finding)
    return f"{in_words(keeper, finding)} (finding {kept.id}): {advice_for(finding)}"
