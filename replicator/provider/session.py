"""One request of one enrolled holder: may it, and what is the answer. docs/spec/protocol.md is the contract."""

import logging
import sqlite3
import threading
from collections.abc import Callable
from typing import Literal, TypeVar

from replicator.charter.offers import verify_offer
from replicator.charter.verify import (
    VerifiedCharter,
    signed_hash,
    verify_charter,
    verify_objection,
)
from replicator.config import counted
from replicator.crypto.sign import Context, signer_of, verify
from replicator.errors import IntegrityError, RootWaitsError
from replicator.format.charter import Op, Right
from replicator.format.claim import AuditReceipt, Claim, Receipt, Standing, Witness, hash_of
from replicator.format.codec import Record, decode, encode
from replicator.format.container import unwrap_record
from replicator.format.mark import Fence, Mark, Retire
from replicator.format.merkle import name_of
from replicator.format.notice import Clearing
from replicator.format.sizes import LARGEST, RANGE_ALIGN, is_allowed
from replicator.format.snapshot import Head
from replicator.ids import NAME_SIZE, ObjectName, TenantId, identity_of
from replicator.provider.audit import inventory, names_in, prove_all
from replicator.provider.charters import keep_charter_fork, store_charter
from replicator.provider.claims import apply_claim, lacking, number_of
from replicator.provider.core import NOBODY, Core
from replicator.provider.drain import keep_clearing, notice_for
from replicator.provider.groups import look_at, swap
from replicator.provider.heads import (
    ForkError,
    accept_head,
    chain_page,
    keep_fork,
    keep_testimony,
    known_forks,
    newest_heads,
    testimony,
)
from replicator.provider.marks import (
    Ground,
    accept_fence,
    accept_mark,
    accept_retire,
    claims_now,
    keep_order,
    kept_names,
    proven,
    signers,
)
from replicator.provider.objects import arrived_after, size_of, used
from replicator.provider.offers import swap_offers
from replicator.provider.permits import Wanted, check_errand, read_permit
from replicator.provider.pulling import AGAIN_S, Errand
from replicator.provider.quota import Levels, Reservation
from replicator.provider.receipts import next_receipts
from replicator.provider.refusals import refusing
from replicator.provider.succession import changes_of, keep_objection, objection_to
from replicator.provider.sweeping import marks_page
from replicator.provider.tenants import Holder, Tenant
from replicator.provider.traffic import months
from replicator.store.base import Incoming, ObjectStore
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import (
    MAX_CHECKS,
    MAX_PROBES,
    MAX_REQUEST,
    PULLS_VERSION,
    RECEIPTS_PAGE,
    REVOKED,
    WIRE_VERSION,
    Arrivals,
    ArrivalsRequest,
    AttestReply,
    Chain,
    ChainRequest,
    CharterNotice,
    CheckReply,
    CheckRequest,
    ClaimReply,
    Claims,
    Empty,
    GroupReply,
    GroupRequest,
    Heads,
    HeadsRequest,
    Info,
    Inventory,
    InventoryRequest,
    Leaving,
    LeavingRequest,
    MarkReply,
    Marks,
    MarksRequest,
    Offers,
    OffersRequest,
    ProveReply,
    ProveRequest,
    PullFailure,
    PullReply,
    PullRequest,
    Receipts,
    ReceiptsRequest,
    Signed,
    Succession,
    SuccessionRequest,
    Testimony,
    Usage,
    UsageMonth,
    VouchReply,
    VouchRequest,
)

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Record)
Order = TypeVar("Order", bound=Fence | Retire)


class ProviderSession:
    """What one holder may ask. Cheap: the transport makes one for every request."""

    def __init__(self, core: Core, holder: Holder) -> None:
        self._core = core
        self._holder = holder

    @property
    def tenant(self) -> TenantId:
        """Whose holder asks."""
        return self._holder.tenant

    def handle(self, op: str, body: bytes) -> bytes:
        """Answer one of :data:`replicator.wire.messages.OPS`.

        Raises:
            RequestRefusedError: any refusal.
        """
        handler = HANDLERS.get(op)
        if handler is None:
            raise RequestRefusedError("bad-request", "no such operation")
        with refusing(integrity="bad-request"):
            return encode(handler(self, body))

    def info(self) -> Info:
        """Return how the provider sees this tenant; also without its disk, and to holders the charter lacks yet."""
        tenant, right = self._permit(None)
        signed, _ = self._core.offer()
        free = 0
        if self._core.available():
            levels = self._core.levels(tenant, self._holder, right.quota if right else 0)
            free = levels.free_beside(*self._core.quotas.pledged(tenant.id))
        return Info(
            incarnation=self._core.incarnation,
            offer=signed,
            charter_number=tenant.charter_number,
            charter=tenant.charter_name,
            claim=number_of(self._core.database, tenant.id, self._holder.identity),
            quota=self._core.quota(tenant),
            used=used(self._core.database, tenant.id),
            free=free,
            now_ns=self._core.clock.now_ns(),
            wire=[WIRE_VERSION, PULLS_VERSION],
        )

    def inventory(self, request: InventoryRequest) -> Inventory:
        """Return a page of what was received, as it lies on the disk now."""
        tenant, _ = self._permit("audit")
        store = self._core.store(tenant.id)
        return inventory(
            self._core.database,
            store,
            tenant.id,
            after=request.after,
            limit=request.limit,
            incarnation=self._core.incarnation,
        )

    def arrivals(self, request: ArrivalsRequest) -> Arrivals:
        """Return a page of what was stored since, in order, and lies on the disk now."""
        tenant, _ = self._permit("audit")
        store = self._core.store(tenant.id)
        found, last, more = arrived_after(
            self._core.database, tenant.id, request.after, largest=request.largest, limit=request.limit
        )
        there = store.sizes([name for name, _ in found])
        names = [name for (name, size), now in zip(found, there, strict=True) if now == size]
        return Arrivals(incarnation=self._core.incarnation, names=b"".join(names), last=last, more=more)

    def prove(self, request: ProveRequest) -> ProveReply:
        """Prove leaves from the disk."""
        tenant, _ = self._permit("audit")
        names = names_in(request.names)
        if len(names) != len(request.leaves) or len(names) > MAX_PROBES:
            raise RequestRefusedError("bad-request", f"a name for each leaf, and at most {MAX_PROBES}")
        store = self._core.store(tenant.id)
        return ProveReply(incarnation=self._core.incarnation, proofs=prove_all(store, names, request.leaves))

    def attest(self, request: ProveRequest) -> AttestReply:
        """Prove leaves from the disk, and sign what was asked and answered."""
        tenant, _ = self._permit("audit")
        reply = self.prove(request)
        core = self._core
        receipt = AuditReceipt(
            tenant=tenant.id,
            auditor=self._holder.identity,
            incarnation=reply.incarnation,
            question=hash_of(request),
            answer=hash_of(reply),
            probes=len(reply.proofs),
            shown=sum(proof is not None for proof in reply.proofs),
            at_ns=core.clock.now_ns(),
        )
        signed = core.key.sign(Context.AUDIT_RECEIPT, encode(receipt))
        return AttestReply(incarnation=reply.incarnation, proofs=reply.proofs, receipt=signed)

    def check(self, request: CheckRequest) -> CheckReply:
        """Read objects whole and compare them with their names."""
        tenant, _ = self._permit("audit")
        names = names_in(request.names)
        if len(names) > MAX_CHECKS:
            raise RequestRefusedError("bad-request", f"at most {MAX_CHECKS} objects")
        store = self._core.store(tenant.id)
        states = [store.check(name) for name in names]
        damaged = states.count("damaged")
        if damaged:
            log.warning("%s damaged and in quarantine", counted(damaged, "object is", "objects are"))
        return CheckReply(incarnation=self._core.incarnation, states=states)

    def claim(self, request: Signed) -> ClaimReply:
        """Record what the holder relies on; say what of it is not here.

        A maintainer relies on what takes the place of something it marks.
        """
        tenant, right = self._permit(None)
        if right is None or "mark" not in right.ops:
            tenant, right = self._permit("publish")
            self._must_be_node(tenant, right)
        claim = self._signed(Claim, Context.CLAIM, request)
        if (claim.tenant, claim.writer, claim.provider) != (tenant.id, self._holder.identity, self._core.identity):
            raise RequestRefusedError("bad-request", "this claim is of another tenant, writer or provider")
        store = self._core.store(tenant.id)
        now_ns = self._core.clock.now_ns()
        names = self._core.database.write(
            "claim",
            lambda connection: apply_claim(
                connection,
                claim,
                quota=tenant.quota,
                incarnation=self._core.incarnation,
                days=self._core.days,
                now_ns=now_ns,
                recent=self._core.claimed_sets,
            ),
        )
        missing = lacking(self._core.database, tenant.id, names, store.sizes)
        return ClaimReply(incarnation=self._core.incarnation, number=claim.number, missing=b"".join(missing))

    def head(self, request: Signed) -> Signed:
        """Witness the newest snapshot of the holder's chain."""
        tenant, right = self._permit("publish")
        self._must_be_node(tenant, right)
        head = self._signed(Head, Context.HEAD, request)
        writer = self._holder.identity
        if (head.tenant, head.writer) != (tenant.id, writer):
            raise RequestRefusedError("bad-request", "this head is of another tenant or writer")
        now_ns = self._core.clock.now_ns()
        try:
            seen_ns = self._core.database.write(
                "head", lambda connection: accept_head(connection, head, request.statement, now_ns)
            )
        except ForkError as fork:
            evidence = fork
        else:
            witness = Witness(
                tenant=tenant.id,
                writer=writer,
                number=head.number,
                head=signed_hash(request.statement),
                incarnation=self._core.incarnation,
                seen_ns=seen_ns,
            )
            return Signed(statement=self._core.key.sign(Context.WITNESS, encode(witness)))
        self._core.database.write("fork", lambda connection: keep_fork(connection, tenant.id, writer, evidence))
        log.warning("a writer signed two heads that contradict each other; both are kept")
        raise RequestRefusedError("fork", f"head {head.number} contradicts one that was seen here; both are kept")

    def heads(self, request: HeadsRequest) -> Heads:
        """Return the newest head of each writer with a signed word about them, forks, and what writers testified."""
        tenant, _ = self._permit("read")
        newest = newest_heads(self._core.database, tenant.id)
        standing = Standing(
            tenant=tenant.id,
            incarnation=self._core.incarnation,
            challenge=request.challenge,
            heads=[shown for shown, _ in newest],
            now_ns=self._core.clock.now_ns(),
        )
        return Heads(
            incarnation=self._core.incarnation,
            heads=[signed for _, signed in newest],
            forks=known_forks(self._core.database, tenant.id),
            standing=self._core.key.sign(Context.STANDING, encode(standing)),
            testimony=testimony(self._core.database, tenant.id),
        )

    def chain(self, request: ChainRequest) -> Chain:
        """Return a page of a writer's heads as they were witnessed here."""
        tenant, _ = self._permit("read")
        heads = chain_page(
            self._core.database, tenant.id, request.writer, before=request.before, limit=request.limit + 1
        )
        return Chain(incarnation=self._core.incarnation, heads=heads[: request.limit], more=len(heads) > request.limit)

    def testify(self, request: Testimony) -> Empty:
        """Keep what other providers signed to the holder, for the tenant's other members."""
        tenant, right = self._permit("publish")
        self._must_be_node(tenant, right)
        told = []
        for signed in request.witnesses:
            witness = decode(Witness, verify(signed, Context.WITNESS, [signer_of(signed)]))
            if (witness.tenant, witness.writer) != (tenant.id, self._holder.identity):
                raise RequestRefusedError("bad-request", "this witness is for another tenant or writer")
            told.append((witness, identity_of(signer_of(signed)), signed))

        def keep(connection: sqlite3.Connection) -> None:
            for witness, provider, signed in told:
                keep_testimony(connection, witness, provider, signed)

        self._core.database.write("testimony", keep)
        return Empty()

    def charter(self, request: CharterNotice) -> Empty:
        """Take over a newer charter, whose object and keybag are here."""
        tenant, _ = self._permit("write")
        store = self._core.store(tenant.id)
        name = ObjectName(request.name)
        with self._core.gate.arriving(tenant.id, name):
            data = store.read(name)
            if name_of(data) != name:
                store.check(name)
                raise RequestRefusedError("damaged", "the charter's object is damaged here")
            known = self._core.charters.current(tenant)
            found = self._verified(tenant, unwrap_record(data), known)
            if found.charter.tenant != tenant.id:
                raise RequestRefusedError("bad-request", "this charter is of another tenant")
            if known is not None and found.number <= known.number:
                if found.hash == known.hash:
                    return Empty()
                if found.number == known.number:
                    self._keep_fork(tenant, known, found)
                    raise RequestRefusedError("fork", f"another charter has the number {found.number} here")
                raise RequestRefusedError(
                    "conflict", f"charter {found.number} is older than {known.number}, known here"
                )
            if known is not None:
                with refusing(integrity="fork"):
                    try:
                        self._verified(tenant, found.signed, known, follows=True)
                    except IntegrityError:
                        self._keep_fork(tenant, known, found)
                        raise
            after = b"" if known is None else known.hash
            keybag = ObjectName(found.charter.keybag)
            with self._core.gate.arriving(tenant.id, keybag):
                expected = size_of(self._core.database, tenant.id, keybag)
                if expected is None or store.size(keybag) != expected:
                    raise RequestRefusedError("not-found", "the keybag that this charter names is not here")
                now_ns = self._core.clock.now_ns()
                self._core.database.write(
                    "charter",
                    lambda connection: store_charter(
                        connection, found, name, after=after, days=self._core.days, now_ns=now_ns
                    ),
                )
        return Empty()

    def _keep_fork(self, tenant: Tenant, known: VerifiedCharter, found: VerifiedCharter) -> None:
        """Keep both of two charters that exclude each other: each was signed by the owner that root named."""
        log.warning("an owner signed two charters that exclude each other; both are kept")
        keep_charter_fork(self._core.database, tenant.id, known.signed, found.signed, now_ns=self._core.clock.now_ns())

    def _verified(
        self, tenant: Tenant, signed: bytes, known: VerifiedCharter | None, *, follows: bool = False
    ) -> VerifiedCharter:
        """Return a charter under the tenant's root, or one that has waited here for as long as it must.

        ``follows``: hold it against the known one too.

        Raises:
            RequestRefusedError: "conflict": its root does not count here yet. Only a charter that announces the change
                and is taken over begins a wait, since every home sees that one.
            IntegrityError: it does not hold.
        """
        days, now_ns = self._core.days, self._core.clock.now_ns()
        changes = self._core.database.read(lambda connection: changes_of(connection, tenant.id))
        passed = [one.hash for one in changes if one.passed(days, now_ns)]
        before = known if follows else None
        try:
            return verify_charter(signed, root_key=tenant.root_key, known=before, passed=passed)
        except RootWaitsError as error:
            raise RequestRefusedError(
                "conflict",
                "this charter is under another root, which waits here for thirty days first, from a charter on that "
                "announces it",
            ) from error

    def succession(self, request: SuccessionRequest) -> Succession:
        """Say how long a change of root has waited here, after taking in root's objection, if one is shown."""
        tenant, _ = self._permit(None)
        statement = signed_hash(tenant.root)
        if request.objection:
            objection = verify_objection(request.objection, root_key=tenant.root_key, tenant=tenant.id)
            if objection.statement != statement:
                raise RequestRefusedError("conflict", "this objection is about another root statement")
            self._core.database.write(
                "objection",
                lambda connection: keep_objection(connection, tenant.id, statement, request.objection),
            )
            log.warning("a tenant's root objects to another root in its place")
        days, now_ns = self._core.days, self._core.clock.now_ns()
        changes, objected = self._core.database.read(
            lambda connection: (changes_of(connection, tenant.id), objection_to(connection, tenant.id, statement))
        )
        waiting = changes[0] if changes else None
        return Succession(
            incarnation=self._core.incarnation,
            change=waiting.hash if waiting else b"",
            began_ns=waiting.began_ns if waiting else 0,
            due_ns=waiting.due_ns(days, now_ns) if waiting else 0,
            passed=waiting is not None and waiting.passed(days, now_ns),
            objection=objected,
        )

    def claims(self) -> Claims:
        """Return all writers as they are known here, and the end of the chain of marks."""
        tenant, _ = self._permit("audit")
        charter = self._core.charters.current(tenant)
        return self._core.database.read(lambda connection: claims_now(connection, tenant.id, charter))

    def mark(self, request: Signed) -> MarkReply:
        """Take in what maintenance says may be deleted, if it has seen all that was accepted here."""
        tenant, charter = self._under_charter()
        mark = decode(Mark, verify(request.statement, Context.MARK, signers(charter, "mark")), limit=MAX_REQUEST)
        self._must_be_ours(mark.tenant, mark.provider, tenant)
        ground = Ground(
            identity=self._core.identity,
            charter=charter,
            days=self._core.days,
            now_ns=self._core.clock.now_ns(),
        )
        copies = proven(mark, ground)
        reply = self._core.database.write(
            "mark",
            lambda connection: accept_mark(connection, mark, request.statement, ground=ground, copies=copies),
        )
        if reply.state == "stands":
            log.info("a mark of %d objects was accepted", (len(mark.dead) + len(mark.surplus)) // NAME_SIZE)
        return reply

    def marks(self, request: MarksRequest) -> Marks:
        """Return a page of what is marked, and when it may go."""
        tenant, charter = self._under_charter()
        return marks_page(
            self._core.database,
            tenant.id,
            after=request.after,
            limit=request.limit,
            kept=kept_names(tenant.charter_name, charter),
            limits=self._core.limits(charter),
            days=self._core.days,
            now_ns=self._core.clock.now_ns(),
            incarnation=self._core.incarnation,
        )

    def fence(self, request: Signed) -> Claims:
        """Refuse what a hung session of a writer may still send."""
        return self._order(
            "fence", Fence, Context.FENCE, request, lambda connection, fence, _: accept_fence(connection, fence)
        )

    def retire(self, request: Signed) -> Claims:
        """Wait for a writer no longer."""
        return self._order(
            "retire",
            Retire,
            Context.RETIRE,
            request,
            lambda connection, retire, now_ns: accept_retire(connection, retire, days=self._core.days, now_ns=now_ns),
        )

    def vouch(self, request: VouchRequest) -> VouchReply:
        """Read objects whole and sign fresh receipts for those that are intact, as if they were put again."""
        tenant, _ = self._permit("write")
        names = names_in(request.names)
        if len(names) > MAX_CHECKS:
            raise RequestRefusedError("bad-request", f"at most {MAX_CHECKS} objects")
        store = self._core.store(tenant.id)
        receipts = []
        for name in names:
            with self._core.gate.arriving(tenant.id, name):
                size = size_of(self._core.database, tenant.id, name)
                good = size is not None and store.size(name) == size and store.check(name) == "good"
                receipts.append(receipt_for(self._core, tenant.id, name, size or 0, NOBODY) if good else b"")
        return VouchReply(incarnation=self._core.incarnation, receipts=receipts)

    def pull(self, request: PullRequest) -> PullReply:
        """Fetch an object from another provider, or say how that went. The same request again asks for the outcome."""
        tenant, _ = self._permit("write")
        pulls = self._core.pulls
        if pulls is None:
            raise RequestRefusedError("forbidden", "this provider fetches from nobody")
        key = (tenant.id, ObjectName(request.name))
        if pulls.runs(key):
            return self._pulled(after_s=AGAIN_S)
        ended = pulls.outcome(key, request.permit)
        if ended is None:
            errand = self._errand(request, tenant)
            receipt = self._held_already(key)
            if receipt:
                return self._pulled(receipt=receipt)
            pulls.begin(key, errand, lambda: self.begin_put(errand.name, errand.size))
            ended = pulls.outcome(key, request.permit)
        return self._pulled(after_s=AGAIN_S) if ended is None else self._pulled(ended.receipt, ended.failed)

    def group(self, request: GroupRequest) -> GroupReply:
        """Swap facts of the group that this provider is in."""
        tenant, _ = self._permit(None)
        look_at(self._core.database, request.group, request.facts)
        if not request.facts:
            return self._core.database.read(lambda connection: swap(connection, request, tenant.root_key))
        return self._core.database.write("group", lambda connection: swap(connection, request, tenant.root_key))

    def leaving(self, request: LeavingRequest) -> Leaving:
        """Say whether this provider leaves or shrinks for the tenant, after keeping how far a writer is with it."""
        tenant, right = self._permit(None)
        if request.clearing:
            self._must_be_node(tenant, right)
            signed = request.clearing
            clearing = self._signed(Clearing, Context.CLEARING, Signed(statement=signed))
            self._must_be_ours(clearing.tenant, clearing.provider, tenant)
            keep_clearing(self._core.database, clearing, self._holder.identity, signed)
        return Leaving(incarnation=self._core.incarnation, notice=notice_for(self._core.database, tenant.id))

    def usage(self) -> Usage:
        """Say what was kept, taken and given for the tenant, month by month."""
        tenant, _ = self._permit(None)
        self._core.note_traffic()
        return Usage(
            incarnation=self._core.incarnation,
            months=[
                UsageMonth(month=one.month, kept=one.kept, taken=one.taken, given=one.given)
                for one in months(self._core.database)
                if one.tenant == tenant.id
            ],
        )

    def must_write(self) -> None:
        """Make sure that the holder may store here at this moment.

        Raises:
            RequestRefusedError: "forbidden".
        """
        self._permit("write")

    def receipts(self, request: ReceiptsRequest) -> Receipts:
        """Give receipts of what was taken in from a disk that the holder signed for."""
        tenant, _ = self._permit("write")
        found = next_receipts(
            self._core.database, tenant.id, self._holder.identity, names_in(request.got), RECEIPTS_PAGE
        )
        return Receipts(incarnation=self._core.incarnation, receipts=found)

    def _pulled(self, receipt: bytes = b"", failed: PullFailure | None = None, *, after_s: float = 0.0) -> PullReply:
        return PullReply(incarnation=self._core.incarnation, receipt=receipt, failed=failed, after_s=after_s)

    def _errand(self, request: PullRequest, tenant: Tenant) -> Errand:
        """Check that whoever asks signed the permit, for us, and that the source itself named the addresses."""
        if signer_of(request.permit) != self._holder.key:
            raise RequestRefusedError("forbidden", "this permit is another's")
        permit = read_permit(request.permit, self._core.clock.now_ns())
        found, name = verify_offer(request.offer), ObjectName(request.name)
        check_errand(permit, tenant=tenant.id, ours=self._core.identity, source=found.identity, name=name)
        return Errand(permit=request.permit, offer=found.offer, source=found.identity, name=name, size=request.size)

    def offers(self, request: OffersRequest) -> Offers:
        """Take newer offers of the tenant's other providers, and hand on those that are newer here, whoever told."""
        tenant, _ = self._permit(None)
        newer, lacking = swap_offers(self._core.database, self._core.key, tenant.id, request, clock=self._core.clock)
        return Offers(incarnation=self._core.incarnation, offers=newer, lacking=lacking)

    def _held_already(self, key: tuple[TenantId, ObjectName]) -> bytes:
        """Return a fresh receipt for an object that is here and intact, as if it were put again; empty otherwise."""
        tenant, name = key
        store = self._core.store(tenant)
        with self._core.gate.arriving(tenant, name):
            size = size_of(self._core.database, tenant, name)
            if size is None or store.size(name) != size or store.check(name) != "good":
                return b""
            return receipt_for(self._core, tenant, name, size, NOBODY)

    def give(self, wanted: Wanted) -> bytes:
        """Return what a permit of this holder gives to another provider. For the service, which has checked it."""
        tenant, _ = self._permit("read")
        size = size_of(self._core.database, tenant.id, wanted.name)
        if size is None:
            raise RequestRefusedError("not-found", "no such object")
        self._core.hours.check(size, self._core.clock)
        return self.get(wanted.name, wanted.offset, wanted.length)

    def get(self, name: ObjectName, offset: int = 0, length: int | None = None) -> bytes:
        """Return bytes of an object; a whole one is verified first and never given out damaged.

        Raises:
            RequestRefusedError: "not-found", "damaged" (now in quarantine), "bad-request" for other ranges than
                whole mebibytes.
        """
        with refusing(integrity="damaged"):
            tenant, _ = self._permit("read")
            store = self._core.store(tenant.id)
            size = store.size(name)
            expected = size_of(self._core.database, tenant.id, name)
            if size is None:
                aside = store.check(name) == "damaged"
                raise RequestRefusedError(*_DAMAGED) if aside else RequestRefusedError("not-found", "no such object")
            if size != (size if expected is None else expected):
                store.check(name)
                raise RequestRefusedError(*_DAMAGED)
            check_range(size, offset, length)
            data = store.read(name, offset, length)
            if len(data) == size and name_of(data) != name and store.check(name) != "good":
                log.warning("an object is damaged and in quarantine")
                raise RequestRefusedError(*_DAMAGED)
            self._core.traffic.gave(tenant.id, self._holder.identity, len(data))
            return data

    def begin_put(self, name: ObjectName, size: int, *, at_any_hour: bool = False) -> "ProviderUpload":
        """Reserve space for an object, before its body is taken.

        ``at_any_hour``: the operator brings it, whom this provider's hours do not hold up.

        Raises:
            RequestRefusedError: "bad-request" (size), "forbidden", "busy", "quota", "full", "unavailable".
        """
        with refusing(integrity="wrong-name"):
            tenant, right = self._permit("write")
            if not is_allowed(size):
                raise RequestRefusedError("bad-request", "not a size that an object may have")
            if not at_any_hour:
                self._core.hours.check(size, self._core.clock)
            if right is not None and size > (right.max_object or LARGEST):
                raise RequestRefusedError("forbidden", f"this holder may store objects of at most {right.max_object}")
            store = self._core.store(tenant.id)

            def measure() -> tuple[Levels, int]:
                counted = size_of(self._core.database, tenant.id, name) is not None
                now = self._core.tenant(self._holder)  # under the lock: of an erased one nothing is taken in any more
                return self._core.levels(now, self._holder, right.quota if right else 0, size), 0 if counted else size

            reservation = self._core.quotas.reserve(tenant.id, self._holder.identity, size=size, measure=measure)
            try:
                incoming = store.begin(name, size)
            except BaseException:
                reservation.release()
                raise
            return ProviderUpload(self._core, store, incoming, reservation)

    def _under_charter(self) -> tuple[Tenant, VerifiedCharter]:
        """Return tenant and charter of a holder that may audit; without a charter nobody can say what may go."""
        tenant, _ = self._permit("audit")
        charter = self._core.charters.current(tenant)
        if charter is None:
            raise RequestRefusedError("forbidden", "there is no charter here that says who may do this")
        return tenant, charter

    def _order(
        self,
        what: Literal["fence", "retire"],
        kind: type[Order],
        context: Context,
        request: Signed,
        accept: Callable[[sqlite3.Connection, Order, int], None],
    ) -> Claims:
        """Take in what maintenance or the owner says of a writer: ``accept`` is given the order and the time."""
        tenant, charter = self._under_charter()
        keys = [*signers(charter, "mark"), charter.root.owner_key]
        order = decode(kind, verify(request.statement, context, keys), limit=MAX_REQUEST)
        self._must_be_ours(order.tenant, order.provider, tenant)
        now_ns = self._core.clock.now_ns()

        def work(connection: sqlite3.Connection) -> Claims:
            accept(connection, order, now_ns)
            keep_order(connection, tenant.id, what, request.statement, now_ns)
            return claims_now(connection, tenant.id, charter)

        return self._core.database.write(what, work)

    def _must_be_ours(self, tenant: bytes, provider: bytes, ours: Tenant) -> None:
        if (tenant, provider) != (ours.id, self._core.identity):
            raise RequestRefusedError("bad-request", "this is for another tenant or provider")

    def _permit(self, op: Op | None) -> tuple[Tenant, Right | None]:
        """Return the tenant and the holder's entry in the charter; None where there is none and it may do everything.

        The entry allows ``op``, or root's order allows all. An explicit revocation in the charter ends every right,
        also one that root's order gave.
        """
        tenant = self._core.tenant(self._holder)
        charter = self._core.charters.current(tenant)
        if charter is None:
            if op is not None and self._holder.source == "owner":
                raise RequestRefusedError("forbidden", "the charter that names this key is not here yet")
            return tenant, None
        right = charter.right_of(self._holder.key)
        if right is None and any(one.holder_key == self._holder.key for one in charter.charter.rights):
            raise RequestRefusedError("forbidden", REVOKED)
        if self._holder.source == "root":
            return tenant, right
        if op is not None and (right is None or op not in right.ops):
            raise RequestRefusedError("forbidden", f"the charter gives this key no right to {op}")
        return tenant, right

    def _must_be_node(self, tenant: Tenant, right: Right | None) -> None:
        if tenant.charter_number and (right is None or right.role != "node"):
            raise RequestRefusedError("forbidden", "only nodes publish")

    def _signed(self, kind: type[R], context: Context, request: Signed) -> R:
        return decode(kind, verify(request.statement, context, [self._holder.key]), limit=MAX_REQUEST)


_DAMAGED: tuple[Literal["damaged"], str] = ("damaged", "the object is damaged here and in quarantine")


class ProviderUpload:
    """An object on its way in, with its space reserved until commit or abort."""

    def __init__(self, core: Core, store: ObjectStore, incoming: Incoming, reservation: Reservation) -> None:
        self._core = core
        self._store = store
        self._incoming = incoming
        self._reservation = reservation
        self._lock = threading.Lock()
        self._open = True

    def hash(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next bytes into the name. Without the lock, which a write holds while it waits for the disk."""
        with refusing(integrity="wrong-name"):
            self._incoming.hash(piece)

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Append."""
        with self._lock, refusing(integrity="wrong-name"):
            self._must_be_open()
            self._incoming.write(piece)

    def commit(self) -> bytes:
        """Return the signed receipt: the object is durable, and so is the row that says so."""
        try:
            with self._lock, refusing(integrity="wrong-name"):
                self._must_be_open()
                tenant, name, size = self._reservation.tenant, self._incoming.name, self._incoming.size
                with self._core.gate.arriving(tenant, name):
                    self._incoming.commit()
                    receipt = receipt_for(self._core, tenant, name, size, self._reservation.holder)
                self._core.traffic.took(tenant, self._reservation.holder, size)
                return receipt
        finally:
            self.abort()

    def abort(self) -> None:
        """Leave no trace."""
        with self._lock:
            if self._open:
                self._open = False
                try:
                    self._incoming.abort()
                finally:
                    self._reservation.release()

    def _must_be_open(self) -> None:
        if not self._open:
            raise RequestRefusedError("unavailable", "the upload was given up")


def receipt_for(core: Core, tenant: TenantId, name: ObjectName, size: int, holder: bytes) -> bytes:
    """Record a durable object and return the signed receipt. Inside the gate."""
    received_ns, lock_until_ns = core.record(tenant, name, size, holder)
    receipt = Receipt(
        tenant=tenant,
        name=name,
        size=size,
        incarnation=core.incarnation,
        received_ns=received_ns,
        lock_until_ns=lock_until_ns,
    )
    return core.key.sign(Context.RECEIPT, encode(receipt))


def check_range(size: int, offset: int, length: int | None) -> None:
    """Check that a range begins and ends at whole mebibytes or at the end of the object.

    Raises:
        RequestRefusedError: "bad-request".
    """
    end = size if length is None else offset + length
    if not (0 <= offset < end <= size) or offset % RANGE_ALIGN or (end % RANGE_ALIGN and end != size):
        raise RequestRefusedError("bad-request", "ranges begin and end at whole mebibytes, or at the object's end")


def _read(kind: type[R], body: bytes) -> R:
    return decode(kind, body, limit=MAX_REQUEST)


def _info(session: ProviderSession, body: bytes) -> Record:
    _read(Empty, body)
    return session.info()


def _usage(session: ProviderSession, body: bytes) -> Record:
    _read(Empty, body)
    return session.usage()


def _claims(session: ProviderSession, body: bytes) -> Record:
    _read(Empty, body)
    return session.claims()


HANDLERS: dict[str, Callable[[ProviderSession, bytes], Record]] = {
    "info": _info,
    "inventory": lambda session, body: session.inventory(_read(InventoryRequest, body)),
    "arrivals": lambda session, body: session.arrivals(_read(ArrivalsRequest, body)),
    "prove": lambda session, body: session.prove(_read(ProveRequest, body)),
    "attest": lambda session, body: session.attest(_read(ProveRequest, body)),
    "check": lambda session, body: session.check(_read(CheckRequest, body)),
    "claim": lambda session, body: session.claim(_read(Signed, body)),
    "head": lambda session, body: session.head(_read(Signed, body)),
    "heads": lambda session, body: session.heads(_read(HeadsRequest, body)),
    "chain": lambda session, body: session.chain(_read(ChainRequest, body)),
    "testify": lambda session, body: session.testify(_read(Testimony, body)),
    "charter": lambda session, body: session.charter(_read(CharterNotice, body)),
    "succession": lambda session, body: session.succession(_read(SuccessionRequest, body)),
    "claims": _claims,
    "mark": lambda session, body: session.mark(_read(Signed, body)),
    "marks": lambda session, body: session.marks(_read(MarksRequest, body)),
    "fence": lambda session, body: session.fence(_read(Signed, body)),
    "retire": lambda session, body: session.retire(_read(Signed, body)),
    "vouch": lambda session, body: session.vouch(_read(VouchRequest, body)),
    "pull": lambda session, body: session.pull(_read(PullRequest, body)),
    "offers": lambda session, body: session.offers(_read(OffersRequest, body)),
    "leaving": lambda session, body: session.leaving(_read(LeavingRequest, body)),
    "group": lambda session, body: session.group(_read(GroupRequest, body)),
    "usage": _usage,
    "receipts": lambda session, body: session.receipts(_read(ReceiptsRequest, body)),
}
"""The operations of :data:`replicator.wire.messages.OPS`, each with its request decoded."""
