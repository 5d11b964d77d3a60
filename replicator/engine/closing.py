"""Erasing a domain: its restore key leaves the charter, the keybag and this home, its snapshots are forgotten.

The order, each step harmless by itself, so that a run that is stopped anywhere is finished by the next:

    1. every snapshot of it is forgotten
    2. a charter says that it is erased, and names a keybag without its keys
    3. its key file in this home is overwritten and removed
    4. earlier keybags with its keys are looked for at providers, and left to ``prune`` to mark with all the rest

Until providers have deleted those keybags, the sheet opens them, and with them what is left of the domain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from blake3 import blake3

from replicator.crypto.recovery import Root
from replicator.engine.arrivals import arrivals
from replicator.engine.browse import Library, newest_of_each
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.forgetting import LARGEST_FORGET, Forgotten, note_old, say, with_chains
from replicator.engine.handing import handed_to, name_of_key
from replicator.engine.home import Half
from replicator.engine.keeper import KeeperHome
from replicator.engine.keys import root_of_sheet
from replicator.engine.marked import outstanding
from replicator.engine.marking import gone_writers
from replicator.engine.members import catch_up, spread_charter
from replicator.engine.node import NodeHome
from replicator.engine.retain import chains_after
from replicator.engine.sync import open_snapshot
from replicator.engine.tenant import open_keybag, seal_keybag
from replicator.errors import FormatError, IntegrityError, NotFoundError, PeerError, ReplicatorError, UsageError
from replicator.format.charter import ErasedDomain, Right
from replicator.format.forget import KeptChain
from replicator.ids import Identity, ObjectName, identity_of, short


@dataclass(slots=True, kw_only=True)
class Closing:
    """What erasing a domain takes, as it was found before anything was done.

    ``erased_ns`` is 0 while the charter does not say that it is erased. ``snapshots`` are the names of those that are
    not forgotten yet, ``writing`` says in words which datasets are backed up into it, as far as this home knows.
    ``holders`` are homes of others that have its restore key, wrapped. ``unread`` snapshots may be of it or not, and
    with some that are damaged it is ``unsure`` which are.
    """

    id: bytes
    name: str
    erased_ns: int
    snapshots: set[bytes] = field(default_factory=set)
    unsure: bool = False
    writing: list[str] = field(default_factory=list)
    holders: list[str] = field(default_factory=list)
    unheard: list[str] = field(default_factory=list)
    """Providers that do not know yet that it is erased, so many that a node could publish at these alone: until fewer
    are left its keys stay in this home, or what such a node writes could never be read."""
    unread: list[str] = field(default_factory=list)
    integrity: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class KeybagsAt:
    """The earlier keybags with the domain's keys at one provider: how many are there, how many of these are marked.

    All marked may be deleted by ``until_ns``, at the earliest, 0 if none is. ``problem``: why it is not known, or not
    done.
    """

    id: str
    name: str
    there: int = 0
    marked: int = 0
    until_ns: int = 0
    problem: str = ""

    @property
    def done(self) -> bool:
        """Whether nothing is left to do here but to wait."""
        return not self.problem and self.marked == self.there


async def look(keeper: KeeperHome, siblings: Sequence[Half], edge: Edge, words: list[str], name: str) -> Closing:
    """Find out what erasing a domain takes; one that is erased already may need the rest done.

    Raises:
        KeyWrongError: the passphrase or the sheet is wrong.
        NotFoundError: there is no such domain.
        UsageError: it is the only one, or the one that datasets are in when none is named, or another root waits.
    """
    root_of_sheet(keeper, words)
    await catch_up(keeper, edge)
    found = _named(keeper, name)
    if keeper.charter.pending is not None:
        raise UsageError(
            "another root is announced, and the keybags of both are needed until it counts",
            hint="`replicator key check` says when that is; erase the domain then",
        )
    async with Federation(keeper, edge, ticket=keeper.lazy_ticket) as federation:
        library = Library(keeper, federation)
        await library.refresh()
        await _find_snapshots(library, found)
        if not found.erased_ns:
            found.writing = await _writing(library, siblings, found.id)
        found.notices = list(dict.fromkeys(federation.notices))
        found.integrity += federation.integrity
    rights = [one for one in keeper.charter.charter.rights if not one.revoked and one.role in {"keeper", "drill"}]
    found.holders = [
        name_of_key(keeper.private, identity_of(one.holder_key))
        for one in rights
        if one.holder_key != keeper.signing.public
    ]
    return found


def _named(keeper: KeeperHome, name: str) -> Closing:
    domains = keeper.private.domains
    for place, one in enumerate(domains):
        if one.name != name:
            continue
        if len(domains) == 1:
            raise UsageError(f"'{name}' is the only domain", hint="`replicator erase tenant` erases everything")
        if place == 0:
            raise UsageError(
                f"'{name}' is the domain of every dataset that names none, and goes with the tenant",
                hint="`replicator forget` takes its snapshots, `replicator erase tenant` everything",
            )
        return Closing(id=one.id, name=name, erased_ns=0)
    for gone in keeper.private.erased:
        if gone.name == name:
            return Closing(id=gone.id, name=name, erased_ns=gone.erased_ns)
    known = ", ".join(one.name for one in domains)
    raise NotFoundError(f"no domain '{name}' (there are: {known})", hint="`replicator domain list` shows all")


async def _find_snapshots(library: Library, found: Closing) -> None:
    """Look which snapshots that are not forgotten are of the domain: by index keys, as every member can."""
    state = Forgotten.of(library.keeper)
    for row in library.keeper.catalog.snapshots.all():
        if state.hides(row):
            continue
        try:
            data = await library.federation.fetch(row.name, library.holders(row.name))
            if open_snapshot(library.keeper, data).domain == found.id:
                found.snapshots.add(row.name)
        except (NotFoundError, IntegrityError, FormatError) as error:
            text = f"snapshot {short(row.name)} cannot be read, and may be of '{found.name}': {error}"
            (found.unread if isinstance(error, NotFoundError) else found.integrity).append(text)
            found.unsure = True


async def _writing(library: Library, siblings: Sequence[Half], domain: bytes) -> list[str]:
    """Say which datasets go into a domain: by a node of this home itself, of others by their newest snapshots."""
    keeper = library.keeper
    said = []
    known = gone_writers(keeper)
    for half in siblings:
        if isinstance(half, NodeHome):
            known |= {half.identity, *half.formers}
            node = name_of_key(keeper.private, half.identity)
            said += [
                f"dataset '{one.name}' of {node}: `replicator dataset set {one.name} --domain D` there puts it into "
                f"another, `replicator dataset remove {one.name}` ends it"
                for one in half.catalog.datasets.all()
                if one.domain == domain
            ]
    said += [
        f"dataset '{one.details.dataset}' of {one.node}, last on {one.created.date().isoformat()}: end it there, or "
        f"put it into another domain; if that is done, `replicator forget {one.id[:12]} --even-last` says so"
        for one in newest_of_each(await library.snapshots())
        if one.snapshot.domain == domain and one.snapshot.writer not in known
    ]
    return said


def supposed_after(keeper: KeeperHome, found: Closing) -> list[KeptChain]:
    """Return the chains as they will be when the domain's snapshots are forgotten: for a plan to prune."""
    return chains_after(keeper, Forgotten.of(keeper), found.snapshots, undo=False)


async def carry_out(
    keeper: KeeperHome, siblings: list[Half], edge: Edge, found: Closing, *, at_once: bool = False
) -> None:
    """Forget the domain's snapshots, say that it is erased, destroy its keys here; ``found`` says then since when.

    The keys wait until no node can publish without hearing of it, unless it is to be ``at_once``.

    Raises:
        UsageError: datasets are backed up into it.
        NotFoundError, IntegrityError: a snapshot cannot be read, and may be of it.
        MinimumNotMetError: fewer providers than the minimum know what is forgotten; no key was touched.
    """
    if found.writing:
        raise UsageError(f"'{found.name}' is written into: {'; '.join(found.writing)}", hint="nothing was erased")
    if found.unsure:
        kind = IntegrityError if found.integrity else NotFoundError
        raise kind(
            f"not all is known: {'; '.join((*found.integrity, *found.unread))}",
            hint="nothing was erased; try again, or `replicator forget` what cannot be read",
        )
    if found.snapshots:
        with keeper.lock():
            async with Federation(keeper, edge, ticket=keeper.lazy_ticket) as federation:
                await say(
                    *(keeper, federation, edge, keeper.maintenance()),
                    lambda before: with_chains(before, chains_after(keeper, before, found.snapshots, undo=False)),
                )
    if not found.erased_ns:
        found.erased_ns = edge.clock.now_ns()
        found.notices += await spread_charter(keeper, siblings, edge, _write(keeper, edge, found))
    found.unheard = [] if at_once else await _unheard(keeper, siblings, edge)
    if not found.unheard:
        keeper.drop_domain(found.id)


async def _unheard(keeper: KeeperHome, siblings: Sequence[Half], edge: Edge) -> list[str]:
    """Return who does not know the newest charter, if a node elsewhere could publish at these providers alone.

    A node takes the newest charter that any provider has before it writes, and publishes at the minimum of its policy.
    """
    here = {half.signing.public for half in siblings}
    rights = keeper.charter.charter.rights
    if not any(one.role == "node" and not one.revoked and one.holder_key not in here for one in rights):
        return []
    async with Federation(keeper, edge, ticket=keeper.lazy_ticket) as federation:
        known = {
            identity for identity, link in federation.links.items() if link.info.charter_number >= keeper.charter.number
        }
    deaf = [pin for pin in keeper.peers if Identity(pin.identity) not in known]
    policies = list(keeper.catalog.datasets.policies().values())
    if not any(policy.count_own for policy in policies):
        deaf = [pin for pin in deaf if not pin.own]
    return [pin.name for pin in deaf] if len(deaf) >= min((one.minimum for one in policies), default=1) else []


def _write(keeper: KeeperHome, edge: Edge, found: Closing) -> bytes:
    bag = keeper.keybag()
    bag = msgspec.structs.replace(bag, domains=[one for one in bag.domains if one.id != found.id])
    private = msgspec.structs.replace(
        keeper.private,
        domains=[one for one in keeper.private.domains if one.id != found.id],
        erased=[*keeper.private.erased, ErasedDomain(id=found.id, name=found.name, erased_ns=found.erased_ns)],
        formers=[one for one in keeper.private.formers if one.domain != found.id],
    )
    rights = [_without(right, found.id) for right in keeper.charter.charter.rights]
    handed = handed_to(
        *(rights, bag.domains, private.domains, keeper.owner()), tenant=keeper.tenant, formers=keeper.former_restores()
    )
    return keeper.write_charter(
        edge,
        private=msgspec.structs.replace(private, handed=handed),
        rights=rights,
        keybag_data=seal_keybag(bag, keeper.charter.root.root_seal_key, edge.rng),
    )


def _without(right: Right, domain: bytes) -> Right:
    return msgspec.structs.replace(right, domains=[one for one in right.domains if one != domain])


async def find_keybags(
    keeper: KeeperHome, edge: Edge, words: list[str], domain: bytes
) -> tuple[dict[str, set[bytes]], list[str]]:
    """Look at every provider for keybags that have the domain's keys; return their names by provider, and what failed.

    They are remembered, for `prune` to mark. What this sheet's root opens is found: not what was sealed to one before.
    """
    root = root_of_sheet(keeper, words)
    async with Federation(keeper, edge, ticket=keeper.lazy_ticket) as federation:
        # Another hash than the one that forgetting looks with, so all is told from the first; no place is kept.
        fresh = await arrivals(keeper, federation, largest=LARGEST_FORGET, able=blake3(b"keybags").digest())
        holders: dict[ObjectName, list[Identity]] = {}
        for identity, one in fresh.items():
            for name in one.names:
                holders.setdefault(name, []).append(identity)
        keep = {ObjectName(keeper.charter.charter.keybag), keeper.charter_object()[0]}
        found: set[bytes] = set()
        problems: list[str] = []
        for name in sorted(holders.keys() - keep):
            try:
                data = await federation.fetch(name, holders[name])
            except NotFoundError as error:
                problems.append(f"object {short(name)} cannot be looked at, and may be a keybag: {error}")
                continue
            if _has_domain(root, data, domain):
                found.add(name)
        note_old(keeper, found)
    # Who was not asked through is told by :func:`keybags_at`.
    return {identity.hex(): found & set(one.names) for identity, one in fresh.items()}, problems


def _has_domain(root: Root, data: bytes, domain: bytes) -> bool:
    try:
        bag = open_keybag(root, data)
    except ReplicatorError:
        return False  # a charter, something forgotten, or another root's
    return any(one.id == domain for one in bag.domains)


async def keybags_at(keeper: KeeperHome, edge: Edge, lying: Mapping[str, set[bytes]]) -> list[KeybagsAt]:
    """Return for every provider what is to become of the earlier keybags there, and when."""
    found = []
    async with Federation(keeper, edge, ticket=keeper.lazy_ticket) as federation:
        for pin in sorted(keeper.peers, key=lambda one: one.name):
            at = KeybagsAt(id=pin.identity.hex(), name=pin.name)
            found.append(at)
            link = federation.links.get(Identity(pin.identity))
            if link is None or at.id not in lying:
                at.problem = str(federation.failures.get(Identity(pin.identity), "it was not looked through"))
                continue
            at.there = len(lying[at.id])
            try:
                marks = {one.name: one.due_ns for one in await outstanding(link) if one.name in lying[at.id]}
            except PeerError as error:
                at.problem = str(error)
                continue
            at.marked, at.until_ns = len(marks), max(marks.values(), default=0)
            if link.info.charter_number != keeper.charter.number:
                at.problem = f"it has charter {link.info.charter_number} still, not {keeper.charter.number}"
            elif at.marked < at.there:
                at.problem = "not all are marked"
    return found
