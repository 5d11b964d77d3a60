"""Check a charter against what was known before it: signatures, numbers, the hash chain, root's floors."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from blake3 import blake3

from replicator.clock import DAY_S, NS
from replicator.crypto.sign import Context, verify
from replicator.errors import IntegrityError, RootWaitsError
from replicator.format.charter import (
    Charter,
    EnrolOrder,
    Objection,
    Right,
    RootChange,
    RootStatement,
    read_charter,
)
from replicator.format.codec import decode
from replicator.format.policy import Policy
from replicator.ids import tenant_of

NO_PREVIOUS = bytes(32)
ROOT_WAIT_NS = 30 * DAY_S * NS
"""How long a change of root waits for root's objection, at each provider and in each home by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """A change of root whose three signatures hold; ``signed`` are its stored bytes, ``hash`` theirs."""

    former: RootStatement
    former_hash: bytes
    successor: RootStatement
    successor_signed: bytes
    successor_hash: bytes
    announced_ns: int
    signed: bytes
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCharter:
    """A charter whose signatures and numbers were checked; ``signed`` are its stored bytes, ``hash`` theirs.

    ``pending`` is a change of root that it announces.
    """

    charter: Charter
    root: RootStatement
    signed: bytes
    hash: bytes
    pending: Handover | None = None

    @property
    def number(self) -> int:
        """The charter's number."""
        return self.charter.number

    def right_of(self, holder_key: bytes) -> Right | None:
        """Return what a key may do, None if it is unknown or revoked."""
        for right in self.charter.rights:
            if right.holder_key == holder_key and not right.revoked:
                return right
        return None

    def writer_keys(self) -> list[bytes]:
        """Return the public keys of all nodes, revoked ones too: their old snapshots stay valid."""
        return [right.holder_key for right in self.charter.rights if right.role == "node"]

    def maintainer_keys(self) -> list[bytes]:
        """Return the public keys of all maintainers, revoked ones too: what they put together anew stays readable."""
        return [right.holder_key for right in self.charter.rights if right.role == "maintainer"]


MOST_AHEAD = 1_000_000
"""How many charters somebody can have missed. A thief of the owner key who may sign any number ends the line with one
charter of the highest there is; so he would need 10**12 of them, each taken over before the next."""
HIGHEST_UNSEEN = 2**61
"""The highest number of a charter where none was seen before: as many as below are left above it."""


def signed_hash(signed: bytes) -> bytes:
    """Return the BLAKE3 hash of a signed record: what the next in its chain names as ``previous``."""
    return blake3(signed).digest()


def verify_root(signed: bytes, root_key: bytes | None) -> RootStatement:
    """Return a root statement that carries its own root key's signature.

    ``root_key`` pins the key; None accepts the statement's own (a provider that meets a tenant, by invite).

    Raises:
        IntegrityError: another root, or the signature does not hold.
    """
    keys: Collection[bytes] = [root_key] if root_key is not None else [signed[:32]]
    statement = decode(RootStatement, verify(signed, Context.ROOT_STATEMENT, keys))
    if statement.root_key != signed[:32]:
        raise IntegrityError("root statement: names another root key than the one that signed it")
    return statement


def verify_change(signed: bytes) -> Handover:
    """Return a change of root: the owner that both roots name says that one follows the other, with equal floors.

    Raises:
        IntegrityError: a signature, number, tenant or floor that does not hold.
    """
    owner_key = signed[:32]
    change = decode(RootChange, verify(signed, Context.ROOT_CHANGE, [owner_key]))
    former, successor = verify_root(change.former, None), verify_root(change.successor, None)
    if not former.owner_key == successor.owner_key == owner_key:
        raise IntegrityError("change of root: signed by a key that the two roots do not both name owner")
    if not change.tenant == former.tenant == successor.tenant:
        raise IntegrityError("change of root: of several tenants")
    if former.root_key == successor.root_key:
        raise IntegrityError("change of root: to the same root")
    if (successor.number, successor.previous) != (former.number + 1, signed_hash(change.former)):
        raise IntegrityError("change of root: the second root statement does not follow the first")
    if successor.floors != former.floors:
        raise IntegrityError("change of root: it changes floors, which only a root that counts may")
    return Handover(
        former=former,
        former_hash=signed_hash(change.former),
        successor=successor,
        successor_signed=change.successor,
        successor_hash=signed_hash(change.successor),
        announced_ns=change.announced_ns,
        signed=signed,
        hash=signed_hash(signed),
    )


def belongs_to_root(tenant: bytes, root_key: bytes, handovers: Iterable[bytes] = ()) -> bool:
    """Return whether a tenant's id was made of this root key, or of one that changes of root lead from to it.

    Whoever is shown this needs to know nothing of the tenant; how long a change has waited is not in it.

    Raises:
        IntegrityError: a change of root does not hold.
    """
    if tenant_of(root_key) == tenant:
        return True
    reached = b""
    for change in map(verify_change, handovers):
        if change.former.tenant == tenant and (
            change.former.root_key == reached or (not reached and tenant_of(change.former.root_key) == tenant)
        ):
            reached = change.successor.root_key
    return reached == root_key


def verify_objection(signed: bytes, *, root_key: bytes, tenant: bytes) -> Objection:
    """Return root's objection to what the owner announces.

    Raises:
        IntegrityError: not this root's, or of another tenant.
    """
    objection = decode(Objection, verify(signed, Context.OBJECTION, [root_key]))
    if objection.tenant != tenant:
        raise IntegrityError("objection: of another tenant")
    return objection


def _crossed(charter: Charter, root_key: bytes, known: VerifiedCharter | None) -> tuple[RootStatement, list[Handover]]:
    """Return the root statement of a charter, and the changes of root that lead to it from the pinned key.

    Raises:
        IntegrityError: nothing leads there, or what does is older than what was seen.
    """
    root = verify_root(charter.root, None)
    if root.root_key == root_key:
        return root, []
    crossed: list[Handover] = []
    reached = root_key
    newest = (0, b"") if known is None else (known.root.number, signed_hash(known.charter.root))
    for signed in charter.handovers:
        handover = verify_change(signed)
        if handover.former.root_key != reached:
            continue
        _check_goes_on(newest, (handover.former.number, handover.former_hash), handover.former.previous)
        crossed.append(handover)
        reached, newest = handover.successor.root_key, (handover.successor.number, handover.successor_hash)
    verify_root(charter.root, reached)
    _check_goes_on(newest, (root.number, signed_hash(charter.root)), root.previous)
    return root, crossed


def _check_goes_on(seen: tuple[int, bytes], statement: tuple[int, bytes], previous: bytes) -> None:
    """Check that a root statement (number, hash) can stand beside one that was seen: it, or a later one."""
    if statement[0] < seen[0]:
        raise IntegrityError("charter: its root statement is older than one that was seen before")
    if statement[0] == seen[0] and statement[1] != seen[1]:
        raise IntegrityError(f"charter: two different root statements have the number {statement[0]}")
    if statement[0] == seen[0] + 1 and seen[1] and previous != seen[1]:
        raise IntegrityError("charter: its root statement does not follow the one that was seen before it")


def verify_charter(
    signed: bytes, *, root_key: bytes, known: VerifiedCharter | None, passed: Collection[bytes] | None = ()
) -> VerifiedCharter:
    """Return the charter after checking it against root and against the newest one ``known``.

    A number may jump (charters in between were missed), by :data:`MOST_AHEAD` unless root has spoken anew; it never
    goes back, and one that follows directly must name the known one's hash. The same chain holds for the root statement
    inside. A key has one right at most.

    A charter may be under another root than the pinned one, if changes of root in it lead there and whoever asks has
    waited for each: ``passed`` are their hashes, None for all (a file that was taken over before).

    Raises:
        IntegrityError: a signature, number, chain or tenant that does not hold.
        RootWaitsError: all holds, but a change of root that leads to it does not count yet.
    """
    owner_key = signed[:32]
    charter = read_charter(verify(signed, Context.CHARTER, [owner_key]))
    root, crossed = _crossed(charter, root_key, known)
    if root.owner_key != owner_key:
        raise IntegrityError("charter: signed by a key that root has not named owner")
    if root.tenant != charter.tenant:
        raise IntegrityError("charter: its root statement is of another tenant")
    if len({right.holder_key for right in charter.rights}) != len(charter.rights):
        raise IntegrityError("charter: names one key twice, so it is not clear what that key may do")
    pending = verify_change(charter.change) if charter.change else None
    if pending is not None and pending.former_hash != signed_hash(charter.root):
        raise IntegrityError("charter: it announces a change of another root statement than its own")
    found = VerifiedCharter(charter=charter, root=root, signed=signed, hash=signed_hash(signed), pending=pending)
    if known is not None:
        _check_follows(found, known)
    waiting = [one for one in crossed if passed is not None and one.hash not in passed]
    if known is None and found.number > HIGHEST_UNSEEN:
        raise IntegrityError(f"charter: number {found.number} is higher than any that honest owners come to")
    if waiting:
        what = f"charter {found.number} is under a root that does not count yet"
        raise RootWaitsError(what, change=waiting[0].signed)
    return found


def _check_follows(found: VerifiedCharter, known: VerifiedCharter) -> None:
    """Check numbers and chains against what was seen before."""
    charter = found.charter
    if charter.tenant != known.charter.tenant:
        raise IntegrityError("charter: of another tenant")
    if charter.number < known.number:
        raise IntegrityError(f"charter: number {charter.number} is older than {known.number}, which was seen before")
    if charter.number > known.number + MOST_AHEAD and found.root.number == known.root.number:
        raise IntegrityError(
            f"charter: number {charter.number} leaps from {known.number}, by more than {MOST_AHEAD}: whoever has the "
            "owner key would end the numbers so"
        )
    if charter.number == known.number and found.hash != known.hash:
        raise IntegrityError(f"charter: two different charters have the number {charter.number}")
    if charter.number == known.number + 1 and charter.previous != known.hash:
        raise IntegrityError(f"charter: number {charter.number} does not follow the one that was seen before it")
    seen = (known.root.number, signed_hash(known.charter.root))
    _check_goes_on(seen, (found.root.number, signed_hash(charter.root)), found.root.previous)


def verify_enrol_order(signed: bytes, keys: Collection[bytes], *, now_ns: int, skew_ns: int) -> EnrolOrder:
    """Return an enrol order signed by one of ``keys`` and not expired by more than ``skew_ns``.

    Raises:
        IntegrityError: another signer, a bad signature, or expired.
    """
    order = decode(EnrolOrder, verify(signed, Context.ENROL_ORDER, keys))
    if order.expires_ns and now_ns > order.expires_ns + skew_ns:
        raise IntegrityError("enrol order: expired")
    return order


def below_floors(policy: Policy, root: RootStatement) -> list[str]:
    """Return in words where a policy goes below what root allows; empty if nowhere.

    A coding k+m survives the loss of m shards and so counts as m+1 copies.
    """
    found = []
    floors = root.floors
    copies = policy.copies if policy.coding is None else policy.coding[1] + 1
    if copies < floors.minimum_copies:
        what = f"{copies} copies are" if policy.coding is None else f"a coding that survives {copies - 1} losses is"
        found.append(f"{what} fewer than the {floors.minimum_copies} copies that root demands")
    if floors.residency:
        allowed = ", ".join(floors.residency)
        beyond = [word for word in policy.residency if not _countries([word]) <= _countries(floors.residency)]
        if not policy.residency:
            found.append(f"no residency is set, root allows only {allowed}")
        elif beyond:
            found.append(f"residency in {', '.join(beyond)} goes beyond {allowed}, which is all that root allows")
    return found


def _countries(words: Collection[str]) -> frozenset[str]:
    """Return the countries that residency words name; a word that no release knows allows nothing but itself."""
    from scheduler import PolicyError  # noqa: PLC0415 - where root set no such floor, nobody needs the scheduler
    from scheduler.geography import residency  # noqa: PLC0415

    found: set[str] = set()
    for word in words:
        try:
            found |= residency(word)
        except PolicyError:
            found.add(word)
    return frozenset(found)
