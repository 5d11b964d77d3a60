"""One root after another, for a tenant whose sheet is lost while its keeper lives: announced, waited for, handed over.

The owner key alone announces another root, so whoever stole it can too. That is why the change waits thirty days in
sight of everybody, and why root can end it with the sheet. Each provider and each home counts those days by itself
(:mod:`replicator.provider.succession`, :mod:`replicator.engine.roots`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from replicator.charter.verify import ROOT_WAIT_NS, signed_hash
from replicator.crypto.recovery import Root, from_words, new_secret, root_of, to_words
from replicator.crypto.sign import Context
from replicator.crypto.unseal import public_of
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.handing import enrol_order
from replicator.engine.home import ANNOUNCING_FILE, ANNOUNCING_KEYBAG_FILE, Half
from replicator.engine.keeper import KeeperHome
from replicator.engine.keys import root_of_sheet
from replicator.engine.members import catch_up, spread_charter
from replicator.engine.roots import announced, hear, objection_to, passed, take_objection
from replicator.engine.tenant import open_keybag, seal_keybag
from replicator.errors import IntegrityError, RootWaitsError, UsageError
from replicator.format.charter import Objection, RootChange, RootStatement
from replicator.format.codec import encode
from replicator.fs import write_atomic
from replicator.ids import Identity, root_fingerprint
from replicator.wire.messages import Succession


@dataclass(frozen=True, slots=True, kw_only=True)
class RootAnnounced:
    """Another root that is to follow: its words, which are nowhere else, and when it counts at the earliest."""

    words: list[str]
    root_key: bytes
    due_ns: int
    notices: list[str]


def _successor(former: RootStatement, former_signed: bytes, root: Root, now_ns: int) -> bytes:
    """Return the root statement of a root that follows another: the same owner, the same floors."""
    statement = msgspec.structs.replace(
        former,
        number=former.number + 1,
        previous=signed_hash(former_signed),
        root_key=root.signing.public,
        root_seal_key=public_of(root.seal_private),
        created_ns=now_ns,
    )
    return root.signing.sign(Context.ROOT_STATEMENT, encode(statement))


async def announce_root(
    keeper: KeeperHome, siblings: list[Half], edge: Edge, write_sheet: Callable[[list[str], bytes], None]
) -> RootAnnounced:
    """Make another root and announce it; ``write_sheet`` gets its words and public key before anything else changes.

    The words are checked by a dry recovery: they open the keybag that the charter is going to name.

    Raises:
        UsageError: one is announced already, or root has objected.
        KeyWrongError: the passphrase is wrong.
    """
    await catch_up(keeper, edge)
    old, now = keeper.charter, edge.clock.now_ns()
    if old.pending is not None:
        raise UsageError(
            f"another root ({root_fingerprint(old.pending.successor.root_key)}) is announced already",
            hint="`key rotate root --withdraw` takes that back, `key rotate root --finish` completes it",
        )
    if objection_to(keeper, signed_hash(old.charter.root)):
        raise UsageError(
            "root has objected to any other in its place, so its sheet is not lost",
            hint="`key rotate owner --sheet FILE` names another owner and ends that",
        )
    secret = new_secret(edge.rng)
    words = to_words(secret)
    root = root_of(from_words(words))
    owner = keeper.owner()
    successor = _successor(old.root, old.charter.root, root, now)
    change = RootChange(tenant=keeper.tenant, former=old.charter.root, successor=successor, announced_ns=now)
    bag = keeper.keybag()
    keybag_data = seal_keybag(bag, old.root.root_seal_key, edge.rng, public_of(root.seal_private))
    if from_words(words) != secret or open_keybag(root, keybag_data) != bag:
        raise IntegrityError("the words do not give everything back; check this machine's memory")
    write_sheet(words, root.signing.public)
    data = keeper.write_charter(edge, keybag_data=keybag_data, change=owner.sign(Context.ROOT_CHANGE, encode(change)))
    for half in (keeper, *siblings):
        if keeper.charter.pending is not None:
            hear(half, keeper.charter.pending, now)
    notices = await spread_charter(keeper, siblings, edge, data)
    return RootAnnounced(words=words, root_key=root.signing.public, due_ns=now + ROOT_WAIT_NS, notices=notices)


async def finish_root(keeper: KeeperHome, siblings: list[Half], edge: Edge) -> list[str]:
    """Hand over to the root that was announced; the sheet so far recovers nothing from then on.

    More than half of the providers must have counted their days: those that have not keep the charter so far until
    they have. Returns what could not be told to whom.

    Raises:
        UsageError: none is announced, or root has objected.
        RootWaitsError: the wait is not over, here or at too many providers.
        KeyWrongError: the passphrase is wrong.
    """
    keeper.owner()
    async with Federation(keeper, edge, ticket=keeper.lazy_ticket) as federation:
        successions = dict(federation.successions)
    old, now = keeper.charter, edge.clock.now_ns()
    if old.pending is None:
        raise UsageError("no other root is announced", hint="`key rotate root` announces one")
    fingerprint = root_fingerprint(old.pending.successor.root_key)
    state = next(one for one in announced(keeper, successions, now) if one.fingerprint == fingerprint)
    if state.objected:
        raise UsageError(state.text, hint=state.advice)
    if old.pending.hash not in passed(keeper, now):
        raise RootWaitsError(state.text, change=old.pending.signed)
    counted = [pin for pin in keeper.peers if _counts(successions, Identity(pin.identity), old.pending.hash)]
    if 2 * len(counted) <= len(keeper.peers):
        late = ", ".join(pin.name for pin in keeper.peers if pin not in counted) or "there are no providers"
        raise RootWaitsError(
            f"{len(counted)} of {len(keeper.peers)} providers have counted thirty days, more than half must have; "
            f"missing: {late}",
            change=old.pending.signed,
            hint="days count while a provider's daemon runs; try again later",
        )
    keybag = keeper.keybag_object()
    if keybag is not None:
        # The keybag first: a charter without it is of no use to a provider that missed both.
        write_atomic(edge.fs, keeper.file(ANNOUNCING_KEYBAG_FILE), keybag[1])
        write_atomic(edge.fs, keeper.file(ANNOUNCING_FILE), keeper.charter_object()[1])
    data = keeper.write_charter(
        edge,
        keybag_data=seal_keybag(keeper.keybag(), old.pending.successor.root_seal_key, edge.rng),
        root=old.pending.successor_signed,
        change=b"",
        handovers=[*old.charter.handovers, old.pending.signed],
    )
    return await spread_charter(keeper, siblings, edge, data)


def _counts(successions: Mapping[Identity, Succession], identity: Identity, change: bytes) -> bool:
    found = successions.get(identity)
    return found is not None and found.change == change and found.passed


async def withdraw_root(keeper: KeeperHome, siblings: list[Half], edge: Edge) -> list[str]:
    """Take back what was announced of another root; return what could not be told to whom.

    Raises:
        UsageError: none is announced.
        KeyWrongError: the passphrase is wrong.
    """
    await catch_up(keeper, edge)
    if keeper.charter.pending is None:
        raise UsageError("no other root is announced")
    keybag_data = seal_keybag(keeper.keybag(), keeper.charter.root.root_seal_key, edge.rng)
    data = keeper.write_charter(edge, keybag_data=keybag_data, change=b"")
    return await spread_charter(keeper, siblings, edge, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objected:
    """Root's word against any successor. ``told`` are the names of the providers that keep it."""

    told: list[str]
    notices: list[str]


async def object_root(half: Half, edge: Edge, words: list[str]) -> Objected:
    """Say with the sheet that no other root follows, whatever the owner key announces or has announced.

    It counts at a provider as soon as that has it; this home hands it on to the others, as every home does that hears.

    Raises:
        KeyWrongError: the words are damaged, or of another tenant's sheet.
    """
    root = root_of_sheet(half, words)
    order = enrol_order(root.signing, half.signing.public)
    async with Federation(half, edge, ticket=lambda _: order) as federation:
        # Only now it is known which root statement is in force.
        objection = Objection(
            tenant=half.tenant, statement=signed_hash(half.charter.charter.root), created_ns=edge.clock.now_ns()
        )
        take_objection(half, root.signing.sign(Context.OBJECTION, encode(objection)))
        federation.successions.clear()
        await federation.ask_succession()
        told = [
            link.pin.name
            for identity, link in federation.links.items()
            if (known := federation.successions.get(identity)) is not None and known.objection
        ]
        failures = [str(error) for error in federation.failures.values()]
        return Objected(told=sorted(told), notices=[*federation.notices, *federation.integrity, *failures])
