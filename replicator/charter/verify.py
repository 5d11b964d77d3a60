"""Check a charter against what was known before it: signatures, numbers, the hash chain, root's floors."""

from collections.abc import Collection
from dataclasses import dataclass

from blake3 import blake3

from replicator.crypto.sign import Context, verify
from replicator.errors import IntegrityError
from replicator.format.charter import Charter, EnrolOrder, Right, RootStatement
from replicator.format.codec import decode
from replicator.format.policy import Policy
from scheduler import PolicyError
from scheduler.geography import residency

NO_PREVIOUS = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCharter:
    """A charter whose signatures and numbers were checked; ``signed`` are its stored bytes, ``hash`` theirs."""

    charter: Charter
    root: RootStatement
    signed: bytes
    hash: bytes

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


def verify_charter(signed: bytes, *, root_key: bytes, known: VerifiedCharter | None) -> VerifiedCharter:
    """Return the charter after checking it against root and against the newest one ``known``.

    A number may jump (charters in between were missed); it never goes back, and one that follows directly must
    name the known one's hash. The same holds for the root statement inside. A key has one right at most.

    Raises:
        IntegrityError: a signature, number, chain or tenant that does not hold.
    """
    owner_key = signed[:32]
    charter = decode(Charter, verify(signed, Context.CHARTER, [owner_key]))
    root = verify_root(charter.root, root_key)
    if root.owner_key != owner_key:
        raise IntegrityError("charter: signed by a key that root has not named owner")
    if root.tenant != charter.tenant:
        raise IntegrityError("charter: its root statement is of another tenant")
    if len({right.holder_key for right in charter.rights}) != len(charter.rights):
        raise IntegrityError("charter: names one key twice, so it is not clear what that key may do")
    found = VerifiedCharter(charter=charter, root=root, signed=signed, hash=signed_hash(signed))
    if known is None:
        return found
    if charter.tenant != known.charter.tenant:
        raise IntegrityError("charter: of another tenant")
    if charter.number < known.number:
        raise IntegrityError(f"charter: number {charter.number} is older than {known.number}, which was seen before")
    if charter.number == known.number and found.hash != known.hash:
        raise IntegrityError(f"charter: two different charters have the number {charter.number}")
    if charter.number == known.number + 1 and charter.previous != known.hash:
        raise IntegrityError(f"charter: number {charter.number} does not follow the one that was seen before it")
    if root.number < known.root.number:
        raise IntegrityError("charter: its root statement is older than one that was seen before")
    if root.number == known.root.number and charter.root != known.charter.root:
        raise IntegrityError(f"charter: two different root statements have the number {root.number}")
    if root.number == known.root.number + 1 and root.previous != signed_hash(known.charter.root):
        raise IntegrityError("charter: its root statement does not follow the one that was seen before it")
    return found


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
    found: set[str] = set()
    for word in words:
        try:
            found |= residency(word)
        except PolicyError:
            found.add(word)
    return frozenset(found)
