"""Pruning: plan, tell everybody, let go, mark. What is marked is deleted by providers, after their waits.

The order, each step harmless by itself, so that a run that is stopped anywhere is finished or repeated by the next:

    1. ask what every provider has accepted; then read heads, snapshots, references, listings, and plan
    2. what is worth repacking is put into new packs, stored, claimed by maintenance (:mod:`.repacking`)
    3. a Forget says which packs are gone: members stop waiting for them, nodes stop relying on them
    4. a node in this home drops them from its claims; nodes elsewhere do that in their next run. After either: again
       from 1
    5. what nobody claims any more is marked, at each provider with a view of all that it had accepted; and copies of
       what is needed, where as many as are promised lie elsewhere (:mod:`.releasing`)
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from replicator.catalog.objects import ObjectRow, split_ids
from replicator.clock import NS
from replicator.config import counted, format_size
from replicator.crypto.sign import SigningKey, signer_of
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, Link, Ticket
from replicator.engine.forgetting import (
    Draft,
    Forgotten,
    drop_old,
    learn,
    maintenance_keys,
    old_objects,
    records_in_force,
    say,
)
from replicator.engine.handing import name_of_key
from replicator.engine.home import Half
from replicator.engine.maintenance import Claimant, EnrolOrderFor
from replicator.engine.marked import outstanding, take_back
from replicator.engine.marking import (
    MarkedAt,
    ask_claims,
    gone_writers,
    mark_dead,
    retire,
    with_writer_retired,
)
from replicator.engine.members import find_right
from replicator.engine.node import NodeHome
from replicator.engine.placing import gone_peers
from replicator.engine.prune import Look, look, needed_names, stored_names
from replicator.engine.pruneplan import MAX_UNUSED, WEEK_NS, DeadObject, PrunePlan, gone_by_ns
from replicator.engine.releasing import Releasing
from replicator.engine.relying import claim_what_is_left
from replicator.engine.repacking import Repacking
from replicator.engine.shown import LARGEST_DOUBTED, shown_as_packs
from replicator.engine.swept import drop_swept
from replicator.engine.unnamed import Unnamed, find_unnamed
from replicator.errors import LockedError, PeerError
from replicator.format.forget import KeptChain, MovedPacks
from replicator.ids import Identity, identity_of
from replicator.wire.messages import Claims, Marks, MarksRequest, Outstanding

MAX_ROUNDS: Final = 6
MOST_GONE: Final = 100_000
"""Names of packs that a Forget has room for; further ones are told when indexes that list some have gone."""
SPARED_NS: Final = WEEK_NS
"""A mark that nobody can say to be right any more is taken off so long before it counts: some nights' time, should the
provider not answer in one of them."""
_LIES_THERE: Final = ("held", "released", "damaged")
_SAID_BY_AN_INDEX: Final = ("data", "tree", "shard")


@dataclass(slots=True, kw_only=True)
class AtProvider:
    """What pruning frees at one provider. Times are earliest ones, 0: nothing is marked, or it is not known.

    ``objects`` of ``bytes`` lie there and are needed by nobody; of these ``marked`` are to be deleted from ``first_ns``
    on, all by ``last_ns`` if nothing intervenes, and ``claimed`` are relied on by a node that has not heard of it yet.
    ``problem``: why nothing could be marked there now.

    Of what is needed, ``spare`` copies of ``spare_bytes`` are found to be more than promised; ``spare_claimed`` of them
    are relied on there by a node that has not let go yet, ``spare_young`` were stored there too lately. ``released``
    copies of ``released_bytes`` are given up, from earlier runs too, to be deleted from ``released_ns`` on; for a plan
    from when it would be.
    """

    id: str
    name: str
    objects: int = 0
    bytes: int = 0
    marked: int = 0
    marked_bytes: int = 0
    claimed: int = 0
    claimed_bytes: int = 0
    first_ns: int = 0
    last_ns: int = 0
    budget: int = 0
    problem: str = ""
    spare: int = 0
    spare_bytes: int = 0
    spare_claimed: int = 0
    spare_young: int = 0
    released: int = 0
    released_bytes: int = 0
    released_ns: int = 0


@dataclass(slots=True, kw_only=True)
class PruneReport:
    """What came of it; ``stays`` says in words what is not freed and why.

    With ``gaps`` nothing is marked but what ``at`` has, which was decided before they came up.
    """

    plan: PrunePlan
    dry_run: bool
    at: list[AtProvider] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    integrity: list[str] = field(default_factory=list)
    exit_code: int = 0
    unnamed: list[DeadObject] = field(default_factory=list)
    """What lies at providers, and nothing names, for so long that nobody waits for it."""


async def prune(
    half: Half,
    edge: Edge,
    key: Callable[[], SigningKey],
    *,
    ticket: Ticket | None = None,
    order: EnrolOrderFor | None = None,
    nodes: Sequence[NodeHome] = (),
    retiring: Collection[str] = (),
    dry_run: bool = False,
    supposing: Iterable[KeptChain] | None = None,
    max_unused: float = MAX_UNUSED,
) -> PruneReport:
    """Mark at every provider what nothing needs that is not forgotten; with ``dry_run`` only say what that would be.

    ``key`` gives a maintenance key, ``order`` an enrol order for it where it is not this home's identity. ``nodes`` are
    in this home and claim anew at once. ``retiring`` are names of nodes that are not waited for: what they claim
    protects nothing until they claim again; revoked ones never are. A dry run may suppose other snapshots to stay.

    Raises:
        KeyMissingError: this home has no maintenance key.
        MinimumNotMetError: fewer providers than the minimum could be told what is gone; nothing was marked.
        NotFoundError: there is no such node.
        LockedError: another run works in this home.
    """
    signing = key()
    leaving = gone_writers(half) | {identity_of(find_right(half, name, "node").holder_key) for name in retiring}
    with half.lock():
        async with Federation(half, edge, ticket=ticket) as federation:
            run = _Run(half, federation, edge, signing, order, nodes, leaving, max_unused)
            report = await run.plan(supposing) if dry_run else await run.carry_out()
            report.dry_run = dry_run
            report.notices = list(dict.fromkeys(federation.notices))
            report.integrity = list(federation.integrity)
            silent = [pin.name for pin in half.peers if pin.identity in federation.failures]
    if silent and not report.plan.gaps:
        report.stays.append(f"{', '.join(silent)} did not answer: nothing is marked there before they do")
    if report.integrity:
        report.exit_code = 4
    elif report.plan.gaps or silent or any(one.problem for one in report.at):
        report.exit_code = 3
    return report


class _Run:
    def __init__(
        self,
        half: Half,
        federation: Federation,
        edge: Edge,
        key: SigningKey,
        order: EnrolOrderFor | None,
        nodes: Sequence[NodeHome],
        leaving: Collection[bytes],
        max_unused: float,
    ) -> None:
        self.half = half
        self.federation = federation
        self.edge = edge
        self.key = key
        self.nodes = list(nodes)
        self.here = {bytes(node.identity) for node in nodes}
        self.leaving = set(leaving)
        self.max_unused = max_unused
        self.retired: list[str] = []
        self.claimant = Claimant(half, federation, edge, key, order)
        self.releasing = Releasing(half, federation, edge)
        self.repacked = False
        self.unnamed = Unnamed()
        self.doubtful: Collection[bytes] = ()

    async def plan(self, supposing: Iterable[KeptChain] | None) -> PruneReport:
        """Say what would be done."""
        claims = await ask_claims(self.federation)
        found = await look(self.half, self.federation, self.edge, max_unused=self.max_unused, supposing=supposing)
        report = PruneReport(plan=found.plan, dry_run=True)
        if not found.plan.gaps:
            await self.releasing.look(dry_run=True)
            await self._look_for_unnamed(found, report, note=False)
            names = await self._to_mark(found, set(), note=False)
            report.at = [await self._at(link, names[link.identity], None) for link in self._links()]
            report.stays = self._stays(found, claims)
        return report

    async def _look_for_unnamed(self, found: Look, report: PruneReport, *, note: bool) -> None:
        self.unnamed = await find_unnamed(
            *(self.half, self.federation, self.edge, found.views), published=found.seen, note=note
        )
        report.unnamed = self.unnamed.dead

    async def carry_out(self) -> PruneReport:
        """Do it, as far as providers and nodes let us."""
        marked: dict[Identity, MarkedAt] = {}
        names: dict[Identity, set[bytes]] = {}
        unripe: set[bytes] = set()
        settled = False
        for _ in range(MAX_ROUNDS):
            claims = await ask_claims(self.federation)
            found = await look(self.half, self.federation, self.edge, max_unused=self.max_unused)
            report = PruneReport(plan=found.plan, dry_run=False)
            if found.plan.gaps:
                await self._spare(found)
                done = [link for link in self._links() if link.identity in marked]
                report.at = [await self._at(one, names[one.identity], marked[one.identity]) for one in done]
                report.retired = sorted(set(self.retired))
                return report
            await self._take_back(found)
            await self.releasing.look(dry_run=False)
            await self._look_for_unnamed(found, report, note=True)
            draft = draft_of(found, Forgotten.of(self.half), await self._repack(found))
            claimed = await self._claim(found, draft)
            await self._tell(draft)
            if claimed or await self._nodes_let_go():
                continue  # something was claimed: everything is to be looked at again
            for identity in list(claims):
                claims[identity] = await self._retire(identity, claims[identity], found)
            unripe = self._unripe(found)
            names = await self._to_mark(found, unripe, note=True)
            answers = await mark_dead(
                *(self.half, self.federation, self.edge, self.key),
                before=claims,
                seen=found.seen,
                names={identity: wanted - await self._marked(identity) for identity, wanted in names.items()},
            )
            marked = {one.identity: one for one in answers}
            after = {one.identity: going_on(claims[one.identity], one) for one in answers if one.identity in claims}
            await self.releasing.carry_out(self.key, claimed=self.claimant.held, before=after, seen=found.seen)
            # What was taken back meanwhile, elsewhere, may have got its marks after that: it is looked at again.
            news = await learn(self.half, self.federation)
            answers += self.releasing.done.values()
            settled = not news and not any(one.outcome == "stale" for one in answers)
            if settled:
                break
        self._forget_old(marked)
        drop_swept(self.half)
        report.retired = sorted(set(self.retired))
        report.at = [
            await self._at(link, names.get(link.identity, ()), marked.get(link.identity)) for link in self._links()
        ]
        for one in report.at:
            if not settled:
                one.problem = one.problem or "something new came up each time that all was decided; run `prune` again"
        report.stays = self._stays(found, claims)
        if self.releasing.problem:
            report.stays.append(self.releasing.problem)
        if unripe:
            report.stays.append(
                f"{counted(len(unripe), 'pack stays', 'packs stay')}: too few of the providers that answer have the "
                "new ones made of some of that"
            )
        return report

    def _links(self) -> list[Link]:
        return sorted(self.federation.links.values(), key=lambda link: link.pin.name)

    async def _take_back(self, found: Look) -> None:
        """Take marks off what is needed: a snapshot was taken back while a provider was away, or another pruned."""
        count = await take_back(self.federation, self._living(found))
        if count:
            self.federation.notices.append(f"{count} marks are taken off what is needed again")

    def _living(self, found: Look) -> set[bytes]:
        """Return the names of what providers must have: what is needed, shards in the place of packs that are cut."""
        dead = {one.name for one in found.plan.dead}
        return stored_names(self.half, needed_names(found.kept, found.packs.values()) - dead)

    async def _spare(self, found: Look) -> None:
        """Take marks off what is known to be needed again, though not all is known, and off what may go before it is.

        A snapshot may have been taken back while a provider was away, and what it needs be among what is out of sight.
        """
        forgotten = Forgotten.of(self.half)
        live = needed_names(found.kept, found.packs.values()) - forgotten.gone - forgotten.replaced
        live = stored_names(self.half, live)
        soon_ns = 0 if found.whole else self.edge.clock.now_ns() + SPARED_NS
        count = await take_back(self.federation, live, due_by_ns=soon_ns)
        if count:
            self.federation.notices.append(
                f"{count} marks are taken off what is needed again, or would go soon and may be, as not all is known"
            )

    async def _repack(self, found: Look) -> list[MovedPacks]:
        """Put together anew what is worth it; once in a run."""
        if self.repacked:
            return []
        self.repacked = True
        return await Repacking(self.half, self.federation, self.edge, self.key, found).carry_out()

    async def _claim(self, found: Look, draft: Draft) -> bool:
        """Let maintenance claim what it put together anew, where it lies, before anything gives way to it.

        And the copies that others' give way to; what is to go itself is not in its claims.
        """
        dead = {one.name for one in found.plan.dead}
        living = [row for row in _of_moved(self.half, draft.moved) if row.name not in dead]
        rows = {row.id: row.name for row in self.half.catalog.objects.stored(living)}

        def lying(identity: Identity) -> set[bytes]:
            holdings = self.half.catalog.objects.holdings(peer=identity)
            here = {rows[one.object_id] for one in holdings if one.object_id in rows and one.state == "held"}
            return (here - self.releasing.names(identity)) | self.releasing.staying(identity)

        return await self.claimant.claim(lying)

    def _unripe(self, found: Look) -> set[bytes]:
        """Return the dead packs that stay: of writers some of whose packs gave way to new ones that too few hold.

        Too few are less than the minimum of holders, of those that answer, with a claim of maintenance. All packs of
        such a writer stay, as a Forget that does not count any more may have said which ones they took the place of.
        """
        dead = {one.name for one in found.plan.dead}
        policies = self.half.catalog.datasets.policies()
        own = {Identity(pin.identity) for pin in self.half.peers if pin.own}
        gone = gone_peers(self.half)
        unripe: set[bytes] = set()
        for one in Forgotten.of(self.half).moved:
            rows = [row for row in _of_moved(self.half, [one]) if row.name not in dead]
            promises = [policies[row.policy] for row in rows if row.policy in policies]
            minimum = max((policy.minimum for policy in promises), default=1)
            uncounted = gone if any(policy.count_own for policy in promises) else gone | own
            if any(self._claimed_copies(row, uncounted) < minimum for row in rows):
                unripe |= {name for name in dead & found.packs.keys() if found.packs[name].writer == one.writer}
        return unripe

    def _claimed_copies(self, row: ObjectRow, uncounted: Collection[Identity]) -> int:
        """Return how many copies of an object are claimed; of a pack that is cut, as many as survive as much."""
        shards = self.half.catalog.objects.shards_of(row)
        if shards is None:
            return len(self.claimant.held.get(row.name, set()).difference(uncounted))
        holders = [self.claimant.held.get(one.name, set()).difference(uncounted) for one in shards.rows]
        return min(sum(map(bool, holders)), len(set().union(*holders))) - shards.needed + 1

    async def _tell(self, draft: Draft) -> None:
        """Say which packs are gone and which moved, if that is not what was said last."""
        before = Forgotten.of(self.half)
        same = (
            set(draft.gone) == before.gone
            and sorted(draft.moved, key=lambda one: one.index) == sorted(before.moved, key=lambda one: one.index)
            and before.highest == before.number
            and (not before.signed or signer_of(before.signed) in maintenance_keys(self.half))
        )
        if same and (not (draft.gone or draft.moved) or draft.view == before.view):
            return
        await say(self.half, self.federation, self.edge, self.key, lambda _: draft)

    async def _nodes_let_go(self) -> bool:
        """Let the nodes of this home drop from their claims what is gone; once in a run."""
        nodes, self.nodes = self.nodes, []
        done = False
        for node in nodes:
            try:
                owed = await claim_what_is_left(node, self.edge)
            except LockedError as error:
                self.federation.notices.append(f"the node of this home lets go of it in its next run: {error.message}")
                continue
            self.federation.notices += owed
            done = True
        return done

    async def _retire(self, identity: Identity, claims: Claims, found: Look) -> Claims:
        """Wait no longer for writers that were revoked or named; return what the provider has accepted then."""
        link = self.federation.links.get(identity)
        for state in claims.writers:
            if link is None or state.writer not in self.leaving or state.retired:
                continue
            if state.head > found.seen.get(state.writer, 0):
                continue  # not all of it was read: marking says so
            try:
                now = await retire(self.half, link, self.key, state)
            except PeerError as error:
                self.federation.notices.append(str(error))
                continue
            self.retired.append(name_of_key(self.half.private, state.writer))
            claims = with_writer_retired(claims, now, state.writer)
        return claims

    async def _to_mark(self, found: Look, unripe: Collection[bytes], *, note: bool) -> dict[Identity, set[bytes]]:
        """Return by provider which names lie there and are needed by nobody."""
        dead = {one.name for one in found.plan.dead}.difference(unripe)
        old = old_objects(self.half)
        objects = self.half.catalog.objects
        rows = {row.id: row for row in objects.stored(objects.by_names(dead))}
        # Whoever wrote a pack that is dead may have named what others need as that, or among its shards.
        living = {*self._living(found), *records_in_force(self.half)}
        rows = {number: row for number, row in rows.items() if row.name not in living}
        names: dict[Identity, set[bytes]] = {}
        doubted: dict[bytes, str] = {}
        in_doubt: dict[Identity, set[bytes]] = {}
        for link in self.federation.links.values():
            lying = [
                (rows[holding.object_id], holding.state)
                for holding in objects.holdings(peer=link.identity)
                if holding.object_id in rows
                and holding.state in _LIES_THERE
                and holding.incarnation == link.info.incarnation
            ]
            names[link.identity] = {row.name for row, _ in lying}
            # And so may it have named what nobody here knows: one that is small, or not of the size it is said to be.
            in_doubt[link.identity] = {
                row.name
                for row, state in lying
                if row.kind in _SAID_BY_AN_INDEX and (row.size <= LARGEST_DOUBTED or state == "damaged")
            }
            doubted |= {row.name: row.kind for row, _ in lying if row.name in in_doubt[link.identity]}
        shown = await shown_as_packs(self.half, self.federation, in_doubt, doubted, note=note)
        self.doubtful = doubted.keys() - shown
        for identity in names:
            names[identity] -= in_doubt[identity] - shown
            names[identity] |= old | self.unnamed.at(identity)
        return names

    async def _marked(self, identity: Identity) -> set[bytes]:
        """Return what is marked at a provider already: it keeps every mark for ever, and needs none twice."""
        link = self.federation.links.get(identity)
        try:
            return {one.name for one in await outstanding(link)} if link is not None else set()
        except PeerError:
            return set()  # marking says what is wrong with it

    def _forget_old(self, marked: Mapping[Identity, MarkedAt]) -> None:
        """Remember no more of records that every provider has deleted."""
        if {Identity(pin.identity) for pin in self.half.peers} <= marked.keys():
            old = old_objects(self.half)
            for one in marked.values():
                old &= one.absent
            drop_old(self.half, old)

    async def _at(self, link: Link, names: Collection[bytes], answer: MarkedAt | None) -> AtProvider:
        found = AtProvider(id=link.identity.hex(), name=link.pin.name)
        size_of: dict[bytes, int] = {row.name: row.size for row in self.half.catalog.objects.by_names(names)}
        size_of |= {one.name: one.size for one in self.unnamed.dead if one.name in names}
        found.objects, found.bytes = len(size_of), sum(size_of.values())
        if answer is not None and answer.outcome not in {"stands", "nothing"}:
            found.problem = answer.why
        try:
            marks = {one.name: one for one in await outstanding(link)}
            page = await link.connection.call("marks", MarksRequest(after=b"", limit=1), Marks)
        except PeerError as error:
            found.problem = found.problem or str(error)
            return found
        found.budget = page.budget
        self._spare_at(link, marks, found)
        due = [marks[name].due_ns for name in size_of if name in marks]
        found.marked = len(due)
        found.marked_bytes = sum(marks[name].size for name in size_of if name in marks)
        if answer is not None:
            found.claimed = len(answer.claimed & size_of.keys())
            found.claimed_bytes = sum(size_of.get(name, 0) for name in answer.claimed)
        elif len(due) < len(size_of):  # a dry run: what would be marked now waits as long as this provider says
            due.append(self.edge.clock.now_ns() + self._wait_ns(link))
        found.first_ns = min(due, default=0)
        if due:
            found.last_ns = gone_by_ns(
                max(due),
                now_ns=self.edge.clock.now_ns(),
                marked=page.size + (0 if answer is not None else found.bytes - found.marked_bytes),
                swept=page.swept,
                used=link.info.used,
                budget=page.budget,
                percent=self.half.charter.root.floors.delete_budget_percent,
                frozen_until_ns=page.frozen_until_ns,
            )
        return found

    def _spare_at(self, link: Link, marks: Mapping[bytes, Outstanding], found: AtProvider) -> None:
        spare = self.releasing.spare.get(link.identity, ())
        found.spare, found.spare_bytes = len(spare), sum(one.size for one in spare)
        surplus = [one for one in marks.values() if one.why == "surplus"]
        found.released, found.released_bytes = len(surplus), sum(one.size for one in surplus)
        due = [one.due_ns for one in surplus]
        answer = self.releasing.done.get(link.identity)
        if answer is not None:
            found.spare_claimed, found.spare_young = len(answer.claimed), len(answer.short)
            if answer.outcome not in {"stands", "nothing"}:
                found.problem = found.problem or answer.why
        elif spare:
            due.append(self.edge.clock.now_ns() + self._wait_ns(link))
        found.released_ns = min(due, default=0)

    def _wait_ns(self, link: Link) -> int:
        floors = self.half.charter.root.floors
        return max(floors.grace_s, link.offer.grace_s, floors.lock_s, link.offer.lock_s) * NS

    def _stays(self, found: Look, claims: Mapping[Identity, Claims]) -> list[str]:
        """Say what is needed by nobody, or hardly by anybody, and is not freed now."""
        said = list(self.unnamed.stays)
        if self.doubtful:
            one = "object that an index calls a pack does not show that it is, and stays"
            many = "objects that an index calls packs do not show that they are, and stay"
            said.append(
                f"{counted(len(self.doubtful), one, many)}: something else, damaged, or not looked at yet (`replicator "
                "prune` again goes on)"
            )
        writers = {row.writer for row in self.half.catalog.objects.by_names({one.name for one in found.plan.dead})}
        for writer in sorted(writers - self.leaving - self.here):
            if any(_claims_there(one, writer) for one in claims.values()):
                name = name_of_key(self.half.private, writer)
                said.append(
                    f"what {name} claims of it goes after its next run (`replicator run` there); if it will not come "
                    f"back: `replicator node revoke {name}`, or once `replicator prune --retire {name}`"
                )
        if found.plan.scattered:
            said.append(
                f"packs that stay hold about {format_size(found.plan.scattered)} that nobody needs: too little of each "
                "to be worth repacking"
            )
        return said


def going_on(claims: Claims, answer: MarkedAt) -> Claims:
    """Return what a provider had accepted before, with the end of its chain as our own marks left it."""
    if answer.end is None:
        return claims
    number, digest = answer.end
    return msgspec.structs.replace(claims, mark=number, mark_hash=digest)


def _claims_there(claims: Claims, writer: bytes) -> bool:
    return any(one.writer == writer and one.claim and not one.retired for one in claims.writers)


def _of_moved(half: Half, moved: Collection[MovedPacks]) -> list[ObjectRow]:
    """Return the indexes of what was put together anew, and the packs that they list."""
    indexes = [one.index for one in moved]
    return [*half.catalog.objects.by_names(indexes), *half.catalog.objects.of_indexes(indexes)]


def draft_of(found: Look, before: Forgotten, fresh: Collection[MovedPacks]) -> Draft:
    """Return what the next Forget is to say, as the plan has it; ``fresh`` was put together anew since."""
    dead = {one.name for one in found.plan.dead}
    listed = {name for one in found.kept for name in one.indexes}
    living = {one.index for one in found.packs.values() if one.moved and one.name not in dead}
    still = {one.name for one in found.packs.values() if one.name in dead and one.index in listed | living}
    moved = []
    for one in before.moved:
        if one.index in living:
            packs = b"".join(sorted(set(split_ids(one.packs)) & still))
            moved.append(MovedPacks(writer=one.writer, index=one.index, packs=packs))
    moved += fresh
    replaced = {name for one in moved for name in split_ids(one.packs)}
    room = max(0, MOST_GONE - len(replaced))
    gone = sorted(still - replaced, key=lambda name: (name not in before.gone, name))[:room]
    return Draft(
        chains=[before.chains[writer] for writer in sorted(before.chains)],
        view={writer: number for writer, number in found.seen.items() if number},
        gone=gone,
        moved=moved,
    )
