"""Ask providers for the newest heads of every writer, and find what cannot be true of what they say.

What each provider signs is remembered and sent to it as a challenge the next time, so that going back is provable.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise

from replicator.charter.chain import Link, Word, connected, excludes, forks, gone_back, read_head, read_word
from replicator.clock import NS, SKEW_S
from replicator.crypto.sign import body_of
from replicator.engine.asking import ask_all
from replicator.engine.federation import Federation
from replicator.engine.federation import Link as Peer
from replicator.engine.findings import NOBODY, QUIET, Findings, KeptFinding, in_words
from replicator.engine.home import Half
from replicator.engine.memory import Memory
from replicator.errors import IntegrityError, PeerError, ProtocolError, ReplicatorError
from replicator.format.charter import read_charter
from replicator.format.claim import Shown, challenge_of
from replicator.format.codec import decode
from replicator.format.finding import Finding, FindingKind, Statement
from replicator.format.snapshot import Head
from replicator.ids import Identity, identity_of, short
from replicator.wire.messages import CHAIN_PAGE, Chain, ChainRequest, Heads, HeadsRequest

MAX_PAGES = 64
"""Of heads that are taken from one provider in a run: what a provider keeps of a writer that writes for some years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """How far one provider that answers has seen a chain, and since when. ``number`` 0: not at all."""

    provider: Identity
    name: str
    number: int
    seen_ns: int
    own: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHead:
    """A writer's newest head, who shows it, and how far each provider that answers has seen the chain."""

    head: Head
    signed: bytes
    seen_by: tuple[Identity, ...]
    asked: int
    sights: tuple[Sight, ...] = ()


@dataclass(slots=True)
class _Answer:
    """What one provider said. ``word`` is None if it signed nothing that can be believed."""

    peer: Peer
    links: list[Link]
    word: Word | None
    parts: list[bytes]
    testimony: list[Word] = field(default_factory=list)


async def newest_heads(half: Half, federation: Federation) -> dict[bytes, KnownHead]:
    """Ask every reachable peer for heads; return the newest of each writer.

    What cannot be true is kept as a finding and reported as integrity. A head whose signature does not hold, or whose
    writer the charter does not name, counts against its peer.
    """
    look = _Look(half, federation)
    await look.ask()
    await look.confront()
    await look.connect()
    look.judge()
    return look.newest()


def report(
    half: Half,
    federation: Federation,
    kind: FindingKind,
    *,
    writer: bytes,
    number: int,
    statements: list[Statement],
    provider: bytes = NOBODY,
    challenge: tuple[bytes, ...] = (),
) -> KeptFinding:
    """Keep a finding and return it. It is said as an integrity failure, as a notice once it is acknowledged."""
    finding = Finding(
        tenant=half.tenant,
        finder=half.identity,
        kind=kind,
        writer=writer,
        provider=provider,
        number=number,
        statements=statements,
        challenge=list(challenge),
        found_ns=federation.edge.clock.now_ns(),
    )
    kept = Findings(half).keep(finding)
    text = f"{in_words(half, kept.finding)} (finding {kept.id})"
    told = federation.integrity if kept.open else federation.notices
    if text not in told and not (kind in QUIET and kept.noted_ns):
        told.append(text)
    return kept


class _Look:
    """One round of questions."""

    def __init__(self, half: Half, federation: Federation) -> None:
        self.half = half
        self.federation = federation
        self.heads = Memory(half)
        self.tenant = half.tenant
        self.writers = {identity_of(key): key for key in half.charter.writer_keys()}
        self.answers: dict[Identity, _Answer] = {}
        self.evidence: list[Link] = []
        """Heads in pairs that providers keep because they exclude each other."""
        self.rolled_back: set[bytes] = set()
        self.remembered = {writer: self._remembered(writer) for writer in self.writers}

    def _remembered(self, writer: Identity) -> Link | None:
        """Return the newest head that any provider was known to have seen, before this round."""
        found = self.heads.newest_witnessed(writer)
        newest = self.half.catalog.snapshots.newest("writer = ? AND published_ns != 0 AND head != x''", (writer,))
        if newest is not None and (found is None or newest.number > found.number):
            found = read_head(newest.head, self.tenant)  # by a catalog of an earlier build
            self.heads.put([found], witnessed=True)
        return found

    # asking

    async def ask(self) -> None:
        """Ask all; what a provider answers is read whole before anything is made of it."""
        asked = list(self.federation.links.values())
        await ask_all(asked, lambda peer: self._ask(peer, []))
        # In the order they were asked, not that in which they answered.
        self.answers = {one.identity: self.answers[one.identity] for one in asked if one.identity in self.answers}

    async def _ask(self, peer: Peer, more: list[bytes]) -> None:
        words = [one for one in self.heads.words(peer.identity) if self._is_of_now(one, peer)]
        parts = [*(word.hash for word in words), *more]
        challenge = challenge_of(parts)
        try:
            reply = await peer.connection.call("heads", HeadsRequest(challenge=challenge), Heads)
            if reply.incarnation != peer.info.incarnation:
                raise ProtocolError(peer.pin.name, "its store became another one while it was asked")
        except PeerError as error:
            await self.federation.drop(peer, error)
            self.answers.pop(peer.identity, None)
            return
        links = [link for signed in reply.heads if (link := self._read(peer, signed)) is not None]
        answer = _Answer(peer=peer, links=links, word=self._word(peer, reply, challenge), parts=parts)
        if answer.word is not None:
            shown = {(link.writer, link.number, link.hash) for link in links}
            said = {(one.writer, one.number, one.head) for one in answer.word.heads.values()}
            if {one for one in said if one[0] in self.writers} != shown:
                self._blame(peer, "the heads that it shows are not those that it signed for")
        for pair in reply.forks:
            self._take_pair(peer, pair)
        answer.testimony = [word for signed in reply.testimony if (word := self._testimony(signed)) is not None]
        self.answers[peer.identity] = answer

    def _is_of_now(self, word: Word, peer: Peer) -> bool:
        return word.incarnation == peer.info.incarnation

    def _read(self, peer: Peer, signed: bytes) -> Link | None:
        try:
            link = read_head(signed, self.tenant)
            if link.writer not in self.writers:
                raise IntegrityError(f"head: signed by a key that may not ({short(link.writer)})")
        except ReplicatorError as error:
            self._blame(peer, str(error))
            return None
        return link

    def _word(self, peer: Peer, reply: Heads, challenge: bytes) -> Word | None:
        try:
            word = read_word(Statement(context="standing", signed=reply.standing), self.tenant)
            if (word.provider, word.challenge) != (peer.identity, challenge):
                raise IntegrityError("standing: of another provider, or an answer to another question")
            if not word.incarnation == reply.incarnation == peer.info.incarnation:
                raise IntegrityError("standing: of another store")
        except ReplicatorError as error:
            self._blame(peer, str(error))
            return None
        return word

    def _take_pair(self, peer: Peer, pair: tuple[bytes, bytes]) -> None:
        try:
            links = [read_head(signed, self.tenant) for signed in pair]
        except ReplicatorError:
            links = []
        if len(links) != len(pair) or not excludes(*links) or links[0].writer not in self.writers:
            self._blame(peer, "shows evidence of a fork that does not hold")
            return
        self.evidence += links

    def _testimony(self, signed: bytes) -> Word | None:
        """Return what a writer says that another provider signed; what proves nothing is passed over."""
        try:
            word = read_word(Statement(context="witness", signed=signed), self.tenant)
        except ReplicatorError:
            return None
        known = {pin.identity for pin in self.half.peers}
        return word if word.provider in known and next(iter(word.heads)) in self.writers else None

    def _blame(self, peer: Peer, text: str) -> None:
        line = f"{peer.pin.name}: {text}"
        if line not in self.federation.integrity:
            self.federation.integrity.append(line)
        if text not in peer.problems:
            peer.problems.append(text)

    # what providers signed before

    async def confront(self) -> None:
        """Hold what providers signed, to us and to writers, against what they say now; remember what they say."""
        # Of one witness several providers tell, as a rule.
        told = list({word.hash: word for answer in self.answers.values() for word in answer.testimony}.values())
        for identity, answer in list(self.answers.items()):
            mine = [word for word in told if word.provider == identity and self._is_of_now(word, answer.peer)]
            against = [word for word in mine if answer.word is not None and gone_back(word, answer.word)]
            if against:
                # Asked again with that in hand, its answer is one it gave after having signed the other.
                await self._ask(answer.peer, [word.hash for word in against])
        with self.half.catalog.database.transaction("word rows"):  # a commit for each would wait for the disk each time
            for answer in self.answers.values():
                if answer.word is not None:
                    self._compare(answer.peer, answer.word, answer.parts, told)
            for word in told:
                self._remember_testimony(word)

    def _compare(self, peer: Peer, word: Word, parts: list[bytes], told: list[Word]) -> None:
        before = self.heads.words(peer.identity)
        known = {one.hash: one for one in (*before, *told) if one.provider == peer.identity}
        back = False
        for earlier in known.values():
            for writer in gone_back(earlier, word) if earlier.hash in parts else ():
                back = True
                if writer not in self.writers:
                    continue
                self.rolled_back.add(writer)
                number = earlier.heads[writer].number
                kept = report(
                    *(self.half, self.federation, "rollback"),
                    writer=writer,
                    number=number,
                    provider=peer.identity,
                    statements=[earlier.statement, word.statement],
                    challenge=tuple(parts),
                )
                if kept.open:
                    peer.problems.append(f"shows less of {self._name(writer)} than it had signed (finding {kept.id})")
        for earlier in before:
            if earlier.incarnation != word.incarnation:
                self._say_loss(peer, earlier, word)
        # Another process of this home may have heard more since this one asked.
        if not back and not any(gone_back(earlier, word) for earlier in before):
            self.heads.put_word(word)

    def _say_loss(self, peer: Peer, earlier: Word, word: Word) -> None:
        """Say what an honest provider that was put back has lost sight of; it hears of it with the next backup."""
        for writer in gone_back(earlier, replace(word, incarnation=earlier.incarnation)):
            text = (
                f"{peer.pin.name}: had seen snapshot {earlier.heads[writer].number} of {self._name(writer)} before its "
                "store was put back or made anew, and has not now"
            )
            if writer in self.writers and text not in self.federation.notices:
                self.federation.notices.append(text)

    def _remember_testimony(self, word: Word) -> None:
        [writer] = word.heads
        kept = [
            one
            for one in self.heads.words(word.provider)
            if one.incarnation == word.incarnation and one.statement.context == "witness" and writer in one.heads
        ]
        if not kept or kept[0].heads[writer].number < word.heads[writer].number:
            self.heads.put_word(word)

    # one history

    async def connect(self) -> None:
        """Find out whether what is shown and what is remembered of each writer is one chain."""
        for writer in self.writers:
            mine = list({link.hash: link for link in self._links(writer)}.values())
            pairs = [link for link in self.evidence if link.writer == writer]
            before = self.remembered[writer]
            ends = [*mine, *([before] if before is not None else [])]
            if not ends:
                continue
            known = [*self.heads.since(writer, min(link.number for link in ends) - 1), *ends, *pairs]
            ordered = sorted({link.hash: link for link in ends}.values(), key=lambda link: link.number)
            for earlier, later in pairwise(ordered):
                if connected(known, earlier, later) is None and not forks([*known]):
                    known += await self._fetch(writer, above=earlier.number, below=later.number)
                if connected(known, earlier, later) is None and not forks(known):
                    self.federation.notices.append(
                        f"{self._name(writer)}: nobody who answers knows the heads between snapshots {earlier.number} "
                        f"and {later.number}, so whether they are one history is not proven"
                    )
            self.heads.put(mine, witnessed=True)
            for one, other in forks(known):
                report(
                    *(self.half, self.federation, "fork"),
                    writer=writer,
                    number=other.number,
                    statements=[one.statement, other.statement],
                )

    async def _fetch(self, writer: Identity, *, above: int, below: int) -> list[Link]:
        found: list[Link] = []
        for answer in list(self.answers.values()):
            if any(link.writer == writer and link.number >= below - 1 for link in answer.links):
                found += await fetch_chain(self.half, self.federation, answer.peer, writer, above=above, below=below)
        return found

    # what should be there

    def judge(self) -> None:
        """Find heads that nobody shows any more, and heads of revoked nodes."""
        for writer in self.writers:
            self._judge_lost(writer)
        for right in self.half.charter.charter.rights:
            if right.role == "node" and right.revoked:
                self._judge_revoked(identity_of(right.holder_key))

    def _links(self, writer: bytes) -> list[Link]:
        return [link for answer in self.answers.values() for link in answer.links if link.writer == writer]

    def _shown(self, writer: bytes) -> list[tuple[_Answer, Shown]]:
        return [
            (answer, answer.word.heads[writer])
            for answer in self.answers.values()
            if answer.word is not None and writer in answer.word.heads
        ]

    def _judge_lost(self, writer: Identity) -> None:
        before = self.remembered[writer]
        newest = max((link.number for link in self._links(writer)), default=0)
        if before is None or not self.answers or newest >= before.number or writer in self.rolled_back:
            return
        witnesses = [pin for pin in self.half.peers if self._has_witnessed(Identity(pin.identity), before)]
        # It is not known who has seen it (a catalog of an earlier build, or of a run that was stopped): anybody may.
        witnesses = witnesses or self.half.peers
        silent = [pin.name for pin in witnesses if pin.identity not in self.answers]
        if silent:
            self.federation.notices.append(
                f"{self._name(writer)}: nobody who answers shows snapshot {before.number}; {', '.join(silent)} may "
                "have it and does not answer"
            )
            return
        words = [answer.word.statement for answer in self.answers.values() if answer.word is not None]
        if words:
            report(
                *(self.half, self.federation, "lost"),
                writer=writer,
                number=before.number,
                statements=[before.statement, *words],
            )

    def _has_witnessed(self, provider: Identity, link: Link) -> bool:
        return any(
            (shown := word.heads.get(link.writer)) is not None and shown.number >= link.number
            for word in self.heads.words(provider)
        )

    def _judge_revoked(self, writer: Identity) -> None:
        # The first charter in which this home saw the node revoked: what was sent after that, was sent by somebody.
        key = f"revoked {writer.hex()}"
        kept = self.half.catalog.meta(key)
        if kept is None:
            kept = self.half.charter.signed
            self.half.catalog.set_meta(key, kept)
        limit = read_charter(body_of(kept)).created_ns + SKEW_S * NS
        seen = self._shown(writer)
        for answer, shown in seen:
            earlier = any(one.head == shown.head and one.seen_ns <= limit for _, one in seen)
            head = next((link for link in answer.links if link.hash == shown.head), None)
            if shown.seen_ns > limit and not earlier and head is not None and answer.word is not None:
                report(
                    *(self.half, self.federation, "revoked"),
                    writer=writer,
                    number=shown.number,
                    statements=[
                        head.statement,
                        answer.word.statement,
                        Statement(context="charter", signed=kept),
                    ],
                )

    # the answer

    def newest(self) -> dict[bytes, KnownHead]:
        """Return the newest head of each writer that any provider shows."""
        found: dict[bytes, KnownHead] = {}
        for writer in self.writers:
            links = self._links(writer)
            if not links:
                continue
            best = max(links, key=lambda link: (link.number, link.hash))
            found[writer] = KnownHead(
                head=decode(Head, body_of(best.statement.signed)),
                signed=best.statement.signed,
                seen_by=tuple(identity for identity, answer in self.answers.items() if best in answer.links),
                asked=len(self.federation.links),
                sights=tuple(self._sight(answer, writer, best) for answer in self.answers.values()),
            )
        return found

    def _sight(self, answer: _Answer, writer: Identity, best: Link) -> Sight:
        shown = answer.word.heads.get(writer) if answer.word is not None else None
        if shown is not None and shown.number == best.number and shown.head != best.hash:
            shown = None  # of the other branch of a fork
        return Sight(
            provider=answer.peer.identity,
            name=answer.peer.pin.name,
            number=0 if shown is None else shown.number,
            seen_ns=0 if shown is None else shown.seen_ns,
            own=answer.peer.pin.own,
        )

    def _name(self, writer: bytes) -> str:
        return next((one.name for one in self.half.private.nodes if one.identity == writer), short(writer))


async def fetch_chain(
    half: Half, federation: Federation, peer: Peer, writer: Identity, *, above: int, below: int
) -> list[Link]:
    """Return and remember the heads with numbers between two that a provider keeps of a writer, the newest first."""
    found: list[Link] = []
    before = below
    for _ in range(MAX_PAGES):
        request = ChainRequest(writer=writer, before=before, limit=CHAIN_PAGE)
        try:
            reply = await peer.connection.call("chain", request, Chain)
            page = [read_head(signed, half.tenant) for signed in reply.heads]
            if any(link.writer != writer or link.number >= before for link in page[:1]) or any(
                later.number >= earlier.number or later.writer != writer for earlier, later in pairwise(page)
            ):
                raise ProtocolError(peer.pin.name, "its heads of a writer are not what was asked for, or not in order")
        except PeerError as error:
            await federation.drop(peer, error)
            break
        except ReplicatorError as error:
            federation.integrity.append(f"{peer.pin.name}: {error}")
            break
        found += [link for link in page if link.number > above]
        if not page or not reply.more or page[-1].number <= above + 1:
            break
        before = page[-1].number
    Memory(half).put(found, witnessed=True)
    return found
