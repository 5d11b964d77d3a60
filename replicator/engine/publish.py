"""Publishing a committed snapshot: packs, index, references, claim, snapshot, head, in this order.

Published means: every new object durable at the minimum of holders or more, every old one relied on claimed
there, the head witnessed there. Anything less raises and keeps the spool; a later run goes on from here.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field

import msgspec

from replicator.catalog.catalog import SENT_HEAD
from replicator.catalog.objects import ObjectRow
from replicator.catalog.snapshots import SnapshotRow
from replicator.charter.chain import Word, read_head, read_word
from replicator.charter.verify import signed_hash
from replicator.config import counted
from replicator.crypto.sign import Context
from replicator.engine.asking import ask_all
from replicator.engine.audit import missing_in_words
from replicator.engine.dismissed import dismissed
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, Link
from replicator.engine.memory import Memory
from replicator.engine.node import NodeHome
from replicator.engine.placing import PACK_KINDS, Ground, debts_in_words, gone_peers, objects_of, pack_id, peer_id
from replicator.engine.send import Sender
from replicator.engine.spool import Spool
from replicator.errors import MinimumNotMetError, PeerError, ProtocolError, RefusedError, ReplicatorError
from replicator.format.claim import Claim, set_root
from replicator.format.codec import encode
from replicator.format.finding import Statement
from replicator.format.policy import Policy
from replicator.ids import Identity, short
from replicator.wire.messages import MAX_TESTIMONY, ClaimReply, Claims, Empty, Info, Signed, Testimony
from scheduler import PeerId, Plan

MAX_ROUNDS = 4

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Published:
    """What came of publishing: gaps against the promise in words, and claims and witnesses that peers owe."""

    snapshots: list[SnapshotRow] = field(default_factory=list)
    debts: list[str] = field(default_factory=list)
    owed: list[str] = field(default_factory=list)
    witnesses: int = 0


class Publisher:
    """Carries out publishing for one node in one run."""

    def __init__(self, node: NodeHome, federation: Federation, edge: Edge, spool: Spool) -> None:
        self.node = node
        self.federation = federation
        self.edge = edge
        self.spool = spool
        self.ground = Ground(node, federation)
        self.ground.refresh()
        self.sender = Sender(self.ground, edge, spool)
        self._standing: dict[Identity, bool] = {}

    async def publish(self, snapshot: SnapshotRow) -> Published:
        """Publish one committed snapshot; every one before it in the chain is published already.

        Raises:
            MinimumNotMetError: too few copies, claims or witnesses; says of what and what would help.
        """
        policy = self.node.catalog.datasets.policies()[snapshot.policy]
        result = Published(snapshots=[snapshot])
        own = next(row for row in objects_of(self.node, [snapshot]) if row.name == snapshot.name)
        for left in reversed(range(MAX_ROUNDS)):
            rows, plan = await self.prepare(snapshot, result)
            await self.sender.everywhere([own], policy)
            self._give_up_lost(snapshot, [own])
            self._demand(own, policy)
            # Then the number is taken: what may be known to be void is found before, however long this run hung.
            void = await self._void_claims() if left else []
            if not void:
                result.witnesses, void = await self._witness(snapshot, policy, result, last=not left)
            if not void:
                break
            for identity in void:
                self.node.catalog.objects.set_claimed(identity, 0, ())
        self.node.catalog.snapshots.published(snapshot.name, self.edge.clock.now_ns())
        result.debts = debts_in_words(self.ground, plan, self.ground.plan(rows))
        self._empty_spool([*rows, own])
        return result

    async def prepare(self, snapshot: SnapshotRow, result: Published) -> tuple[list[ObjectRow], Plan]:
        """Bring everything that a snapshot relies on to where it must be before the snapshot itself may go.

        Returns those objects and how they lie.

        Raises:
            MinimumNotMetError: too few copies or claims. A snapshot of which something is lost is withdrawn.
        """
        policy = self.node.catalog.datasets.policies()[snapshot.policy]
        # What was lost before this snapshot was committed is not relied on by it, only named by the same index.
        rows = [row for row in objects_of(self.node, [snapshot]) if row.name != snapshot.name and not row.lost]
        packs = [row for row in rows if row.kind in PACK_KINDS]
        records = [row for row in rows if row.kind not in PACK_KINDS]
        for _ in range(MAX_ROUNDS):
            plan = await self.sender.settle(packs, f"sending {snapshot.dataset}")
            await self.sender.everywhere(records, policy)
            if not await self.claim_everywhere(result):
                break
        self._give_up_lost(snapshot, rows)
        if plan.refused:
            reasons = "; ".join(debts_in_words(self.ground, plan, self.ground.plan(packs)))
            first = next(row for row in packs if pack_id(row.name) == plan.refused[0].pack)
            word = ("copy", "copies") if self.ground.shards(first) is None else ("shard", "shards")
            raise MinimumNotMetError(
                f"{counted(len(plan.refused), 'object has', 'objects have')} fewer than "
                f"{counted(plan.refused[0].minimum, *word)}: {reasons}",
                hint="nothing was published and nothing sealed is lost: run again when more peers answer",
            )
        for row in records:
            self._demand(row, policy)
        self._demand_claims(rows, policy)
        return rows, plan

    def _demand(self, row: ObjectRow, policy: Policy) -> None:
        have = self.ground.copies(row.name, policy)
        if have < policy.minimum:
            raise MinimumNotMetError(
                f"{row.kind} {short(row.name)} has {have} of at least {policy.minimum} copies",
                hint="nothing was published and nothing sealed is lost: run again when more peers answer",
            )

    def _demand_claims(self, rows: list[ObjectRow], policy: Policy) -> None:
        """Everything relied on is claimed where it is held, at the minimum of holders or more.

        A claim that a peer accepted earlier stands while it does not answer, unless it is gone.
        """
        uncounted = {pin.identity for pin in self.node.peers if pin.own and not policy.count_own}
        uncounted |= gone_peers(self.node)
        claimed: dict[int, set[PeerId]] = {}
        for pin in self.node.peers:
            if pin.identity not in uncounted:
                for object_id in self.node.catalog.objects.claimed(Identity(pin.identity)):
                    claimed.setdefault(object_id, set()).add(peer_id(pin.identity))
        thin = [row for row in rows if self.ground.copies_among(row, claimed) < policy.minimum]
        if thin:
            raise MinimumNotMetError(
                f"{counted(len(thin), 'object is', 'objects are')} claimed at fewer than {policy.minimum} "
                f"peers (first: {thin[0].kind} "
                f"{short(thin[0].name)})",
                hint="nothing was published and nothing sealed is lost: run again when more peers answer",
            )

    async def claim_everywhere(self, result: Published) -> bool:
        """Claim what each peer holds for us; return whether a peer lacked something that it had receipted."""
        result.owed.clear()
        lacking = False
        for link in list(self.federation.links.values()):
            try:
                lacking |= await self._claim(link)
            except PeerError as error:
                result.owed.append(f"claim at {link.pin.name}: {error.reason}")
                if not isinstance(error, RefusedError):
                    await self.federation.drop(link, error)
        self.ground.refresh()
        return lacking

    async def _claim(self, link: Link) -> bool:
        objects = self.node.catalog.objects
        identity = link.identity
        rows = {row.id: row.name for row in objects.all("writer = ?", (self.node.identity,))}
        unneeded = dismissed(self.node)
        held = {
            holding.object_id
            for holding in objects.holdings(peer=identity)
            if holding.state == "held" and holding.incarnation == link.info.incarnation and holding.object_id in rows
        } - unneeded
        row = self.node.catalog.peers.get(identity)
        known = link.info.claim > 0 and await self._stands(link) and row.claim_number == link.info.claim
        before = objects.claimed(identity) if known else set()
        if known and before == held:
            return False
        number = max(row.claim_number, link.info.claim) + 1
        claim = Claim(
            tenant=self.node.tenant,
            writer=self.node.identity,
            provider=identity,
            number=number,
            base=link.info.claim if known else 0,
            added=b"".join(sorted(rows[i] for i in held - before)),
            dropped=b"".join(sorted(rows[i] for i in before - held if i in rows)),
            root=set_root(rows[i] for i in held),
        )
        try:
            reply = await self._say(link, claim)
        except RefusedError as error:
            if error.code != "conflict":
                raise
            # It remembers another set under that number than we do, or fenced this run's claims off while it hung: name
            # all, which needs no base, above what it knows now.
            link.info = await link.connection.call("info", Empty(), Info)
            if not claim.base and link.info.claim < number:
                raise
            number = max(number, link.info.claim + 1)
            added = b"".join(sorted(rows[i] for i in held))
            claim = msgspec.structs.replace(claim, number=number, base=0, added=added, dropped=b"")
            reply = await self._say(link, claim)
        if reply.number != number or reply.incarnation != link.info.incarnation:
            raise ProtocolError(link.pin.name, "answered a claim with another number or from another store")
        link.info = msgspec.structs.replace(link.info, claim=number)
        self._standing[identity] = True
        missing = {reply.missing[at : at + 32] for at in range(0, len(reply.missing), 32)}
        lacking = {i for i in held if rows[i] in missing}
        if lacking:  # before the claim is: a later one of changes alone would not hear of it again
            objects.set_states(
                identity,
                dict.fromkeys(lacking, "missing"),
                incarnation=link.info.incarnation,
                now_ns=self.edge.clock.now_ns(),
            )
        objects.set_claimed(identity, number, held)
        if lacking:
            text = missing_in_words(len(lacking))
            link.problems.append(text)
            self.federation.integrity.append(f"{link.pin.name}: {text}")
        return bool(lacking)

    async def _stands(self, link: Link) -> bool:
        """Return whether our last claim still protects what it names: it does not once this node was retired there.

        Asked once in a run, and again before a head is sent, which is refused until everything is claimed anew.
        """
        if link.identity not in self._standing:
            try:
                claims = await link.connection.call("claims", Empty(), Claims)
            except RefusedError:  # a release that knows no marks
                self._standing[link.identity] = True
            else:
                own = [one for one in claims.writers if one.writer == self.node.identity]
                self._standing[link.identity] = all(one.current and not one.retired for one in own)
                if not self._standing[link.identity]:
                    self.federation.notices.append(
                        f"{link.pin.name}: this node's claim counted no more there (it was retired, or the store was "
                        "put back); everything is claimed anew"
                    )
        return self._standing[link.identity]

    async def standing(self) -> list[Identity]:
        """Return who answers and has the very claim that this home remembers as accepted there, and goes by it."""
        peers = self.node.catalog.peers
        same = [one for one in self.federation.links.values() if one.info.claim == peers.get(one.identity).claim_number]
        return [link.identity for link in same if link.info.claim and await self._stands(link)]

    async def _void_claims(self) -> list[Identity]:
        """Return where our claim protects nothing any more since this run claimed or asked: it may have hung since."""
        links = [self.federation.links[one] for one in self._standing if one in self.federation.links]
        answers = await ask_all(links, self._still_stands)
        return [identity for identity, stands in answers.given.items() if not stands]

    async def _still_stands(self, link: Link) -> bool:
        """Ask again whether our claim stands; as long as a provider does not answer it does."""
        self._standing.pop(link.identity, None)
        try:
            return await self._stands(link)
        except PeerError:
            self._standing[link.identity] = True
            return True

    async def _say(self, link: Link, claim: Claim) -> ClaimReply:
        signed = self.node.signing.sign(Context.CLAIM, encode(claim))
        return await link.connection.call("claim", Signed(statement=signed), ClaimReply)

    def _give_up_lost(self, snapshot: SnapshotRow, rows: list[ObjectRow]) -> None:
        """Let what has no copy any more be made again from the source.

        A snapshot that no peer can have heard of is withdrawn then: the next one takes its number.
        """
        nowhere = {row.name for row in self.sender.lost if not self.ground.readable(row)}
        lost = [row for row in rows if row.name in nowhere]
        if not lost:
            return
        self.node.catalog.objects.set_lost(row.id for row in lost)
        names = ", ".join(short(row.name) for row in lost[:3])
        relied = f"that snapshot {snapshot.number} relies on"
        what = f"{counted(len(lost), f'object {relied} is', f'objects {relied} are')} nowhere any more ({names})"
        if snapshot.number <= sent_head(self.node):
            self.federation.integrity.append(f"{what}, and peers know that snapshot already")
            return
        withdraw(self.node, self.spool, snapshot.number)
        raise MinimumNotMetError(
            what, hint="run `backup` again: what is missing is read from the source and stored anew"
        )

    async def _witness(
        self, snapshot: SnapshotRow, policy: Policy, result: Published, *, last: bool
    ) -> tuple[int, list[Identity]]:
        """Have the head witnessed; return by how many peers, and who refused it because our claim there is void.

        Who did not is among what is owed. Too few raise if nobody is to be claimed at anew, or on the ``last`` try.
        """
        count = 0
        reasons = []
        words = []
        void: list[Identity] = []
        own = {peer_id(pin.identity) for pin in self.node.peers if pin.own}
        note_sent(self.node, snapshot)
        for link in self.ground.record_links(policy):
            try:
                words.append(await self._ask_witness(link, snapshot))
            except ReplicatorError as error:
                if isinstance(error, RefusedError) and error.code == "fork":
                    self.federation.integrity.append(
                        f"{link.pin.name} has seen another snapshot number {snapshot.number} of this node: "
                        "two machines write with one key (was this one cloned?)"
                    )
                if isinstance(error, RefusedError) and error.code == "conflict" and not await self._still_stands(link):
                    void.append(link.identity)
                reasons.append(str(error))
                result.owed.append(f"witness at {link.pin.name}: {getattr(error, 'reason', error)}")
                continue
            count += policy.count_own or peer_id(link.identity) not in own
        await self._testify(words)
        if count < policy.minimum and (last or not void):
            raise MinimumNotMetError(
                f"snapshot {short(snapshot.name)}: {count} of at least {policy.minimum} peers witnessed it"
                + (f" ({'; '.join(reasons)})" if reasons else "")
            )
        return count, [] if last else void

    async def _ask_witness(self, link: Link, snapshot: SnapshotRow) -> Word:
        """Have one provider witness a head, and remember what it signed.

        Raises:
            PeerError: it does not answer, refuses, or signed something else.
        """
        reply = await link.connection.call("head", Signed(statement=snapshot.head), Signed)
        word = read_word(Statement(context="witness", signed=reply.statement), self.node.tenant)
        shown = word.heads.get(self.node.identity)
        if shown is None or shown.head != signed_hash(snapshot.head):
            raise ProtocolError(link.pin.name, "witnessed another head than the one that was sent")
        if (word.provider, word.incarnation) != (link.identity, link.info.incarnation):
            raise ProtocolError(link.pin.name, "its witness is another provider's, or of another store")
        memory = Memory(self.node)
        memory.put_word(word)  # before the head: what counts as witnessed, somebody is known to have seen
        memory.put([read_head(snapshot.head, self.node.tenant)], witnessed=True)
        return word

    async def _testify(self, words: list[Word]) -> None:
        """Tell each provider what the others signed: so no one of them can show another member less than it signed."""
        for link in list(self.federation.links.values()):
            others = [word.statement.signed for word in words if word.provider != link.identity]
            try:
                if others:
                    await link.connection.call("testify", Testimony(witnesses=others[:MAX_TESTIMONY]), Empty)
            except PeerError as error:
                _log.info("%s", error)  # the next snapshot's witnesses say as much

    async def witness_again(self, snapshot: SnapshotRow, behind: Collection[Identity]) -> None:
        """Show providers the newest published head that they have not seen, or not any more."""
        policy = self.node.catalog.datasets.policies()[snapshot.policy]
        words = []
        for link in self.ground.record_links(policy):
            if link.identity in behind:
                try:
                    words.append(await self._ask_witness(link, snapshot))
                except PeerError as error:
                    self.federation.notices.append(f"witness at {link.pin.name}: {error.reason}")
        if words:
            await self._testify(words)

    def _empty_spool(self, rows: list[ObjectRow]) -> None:
        for row in self.node.catalog.objects.stored(rows):
            if row.spooled:
                self.spool.drop(row.name)
                self.node.catalog.objects.unspool(row.id)


def sent_head(node: NodeHome) -> int:
    """Return the number of the newest snapshot of this node that a peer may have heard of, as far as it remembers."""
    return int.from_bytes(node.catalog.meta(SENT_HEAD) or b"", "big")


def note_sent(node: NodeHome, snapshot: SnapshotRow) -> None:
    """Remember, before it happens, that a peer hears of a snapshot: from then on its number is taken."""
    Memory(node).put([read_head(snapshot.head, node.tenant)], witnessed=False)
    if snapshot.number > sent_head(node):
        node.catalog.set_meta(SENT_HEAD, snapshot.number.to_bytes(8, "big"))


def withdraw(node: NodeHome, spool: Spool, number: int) -> list[SnapshotRow]:
    """Take back committed snapshots from a number on, which no peer has heard of; return them.

    Their packs stay for the next snapshot; indexes, references and the snapshots themselves are made anew.
    """
    gone = [row for row in pending(node) if row.number >= number]
    names = {row.name for row in gone}
    kept = [row for row in node.catalog.snapshots.all("writer = ?", (node.identity,)) if row.name not in names]
    needed = {name for row in kept for name in (row.name, *row.indexes, *row.references)}
    unneeded = {name for row in gone for name in (row.name, *row.indexes, *row.references)} - needed
    objects = node.catalog.objects
    records = [row for name in unneeded if (row := objects.by_name(name)) is not None]
    with node.catalog.database.transaction("withdrawal"):
        indexes = {row.id for row in records}
        lost = [row.id for row in objects.all("lost AND kind IN ('data', 'tree')") if row.index_id in indexes]
        node.catalog.snapshots.forget(names)
        objects.forget([*indexes, *lost])
    for row in records:
        spool.drop(row.name)
    return gone


def pending(node: NodeHome) -> list[SnapshotRow]:
    """Return snapshots that were committed and not yet published, in the order of their chain."""
    rows = node.catalog.snapshots.all("writer = ? AND published_ns = 0", (node.identity,))
    return sorted(rows, key=lambda row: row.number)
