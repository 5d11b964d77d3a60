"""Signed chains: which statements of writers and providers cannot stand beside each other. Pure.

Every rule here needs public keys alone, so that whoever is shown a finding can check it again (:func:`check_finding`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise

from replicator.charter.newest import excludes as excludes_charter
from replicator.charter.verify import VerifiedCharter, signed_hash, verify_charter, verify_root
from replicator.crypto.sign import Context, body_of, signer_of, verify, verify_once
from replicator.errors import IntegrityError
from replicator.format.charter import read_charter
from replicator.format.claim import Shown, Standing, Witness, challenge_of
from replicator.format.codec import decode
from replicator.format.finding import Finding, FindingKind, Said, Statement
from replicator.format.snapshot import Head, Snapshot
from replicator.ids import Identity, identity_of

CONTEXTS: Mapping[Said, Context] = {
    "head": Context.HEAD,
    "snapshot": Context.SNAPSHOT,
    "witness": Context.WITNESS,
    "standing": Context.STANDING,
    "charter": Context.CHARTER,
}
_STATEMENTS: Mapping[FindingKind, int] = {
    "fork": 2,
    "rollback": 2,
    "lost": 2,
    "revoked": 3,
    "continued": 1,
    "interleaved": 2,
    "charters": 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One place in a writer's chain, as a signed head or a signed snapshot says it.

    ``hash`` is that of the signed head; empty if it is a snapshot that says it.
    """

    writer: Identity
    number: int
    previous: bytes
    snapshot: bytes
    hash: bytes
    statement: Statement


def read_head(signed: bytes, tenant: bytes) -> Link:
    """Return the place that a signed head takes, after checking its signature. Who may write is not looked at.

    Raises:
        FormatError, IntegrityError: it is no head of this tenant signed by its writer.
    """
    head = decode(Head, verify(signed, Context.HEAD, [signer_of(signed)]))
    must_be_own(signed, head.writer, head.tenant, tenant, "head")
    return _link_of(head, signed)


def kept_head(signed: bytes) -> Link:
    """Return the place of a signed head that was checked before it was kept here."""
    return _link_of(decode(Head, body_of(signed)), signed)


def created_of(link: Link) -> int:
    """Return when a head's writer says that it made its snapshot, in ns."""
    return decode(Head, body_of(link.statement.signed)).created_ns


def _link_of(head: Head, signed: bytes) -> Link:
    return Link(
        writer=Identity(head.writer),
        number=head.number,
        previous=head.previous,
        snapshot=head.snapshot,
        hash=signed_hash(signed),
        statement=Statement(context="head", signed=signed),
    )


def read_snapshot_link(signed: bytes, name: bytes, tenant: bytes) -> Link:
    """Return the place that a signed snapshot takes; ``name`` is its object's, empty if that is not known.

    Raises:
        FormatError, IntegrityError: it is no snapshot of this tenant signed by its writer.
    """
    snapshot = decode(Snapshot, verify(signed, Context.SNAPSHOT, [signer_of(signed)]))
    must_be_own(signed, snapshot.writer, snapshot.tenant, tenant, "snapshot")
    return Link(
        writer=Identity(snapshot.writer),
        number=snapshot.number,
        previous=snapshot.previous,
        snapshot=name,
        hash=b"",
        statement=Statement(context="snapshot", signed=signed),
    )


def must_be_own(signed: bytes, writer: bytes, named: bytes, tenant: bytes, what: str) -> None:
    """Check that a record names its signer as its writer, and this tenant; the signature was checked before.

    Raises:
        IntegrityError: it names another.
    """
    if identity_of(signer_of(signed)) != writer:
        raise IntegrityError(f"{what}: of another writer than its signer")
    if named != tenant:
        raise IntegrityError(f"{what}: of another tenant")


def excludes(one: Link, other: Link) -> bool:
    """Return whether two places cannot be in one chain: a fork.

    At one number: two heads, or a head and a snapshot that name another head before them or another object. At two
    numbers that follow each other: the later does not name the earlier, whose hash has to be known.
    """
    if one.writer != other.writer or one.statement == other.statement:
        return False
    if one.number == other.number:
        if one.hash and other.hash:
            return True
        named = bool(one.snapshot and other.snapshot) and one.snapshot != other.snapshot
        return named or one.previous != other.previous
    earlier, later = sorted((one, other), key=lambda link: link.number)
    return later.number == earlier.number + 1 and bool(earlier.hash) and later.previous != earlier.hash


def forks(links: Iterable[Link]) -> list[tuple[Link, Link]]:
    """Return pairs that exclude each other, by number: all of one number, and those that follow on nothing known."""
    by_place: dict[tuple[Identity, int], list[Link]] = {}
    for link in links:
        here = by_place.setdefault((link.writer, link.number), [])
        if link not in here:
            here.append(link)
    found = []
    for writer, number in sorted(by_place):
        here = by_place[writer, number]
        found += [_ordered(pair) for pair in combinations(here, 2) if excludes(*pair)]
        before = by_place.get((writer, number - 1), [])
        found += [(before[0], link) for link in here if before and all(excludes(link, one) for one in before)]
    return found


def _ordered(pair: tuple[Link, Link]) -> tuple[Link, Link]:
    first, second = sorted(pair, key=lambda link: (link.number, link.statement.signed))
    return first, second


def connected(links: Iterable[Link], earlier: Link, later: Link) -> bool | None:
    """Return whether ``later`` follows from ``earlier``; None if a head between them is not known."""
    by_hash = {link.hash: link for link in links if link.hash and link.writer == later.writer}
    at = later
    while at.number > earlier.number + 1:
        before = by_hash.get(at.previous)
        if before is None or before.number != at.number - 1:
            return None
        at = before
    if at.number == earlier.number:
        return at == earlier
    return at.previous == earlier.hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What a provider signed about the newest heads of writers in one incarnation: a witness or a standing."""

    provider: Identity
    incarnation: bytes
    heads: Mapping[bytes, Shown]
    hash: bytes
    challenge: bytes
    statement: Statement


def read_word(statement: Statement, tenant: bytes) -> Word:
    """Return what a witness or a standing says, after checking its signature.

    Raises:
        FormatError, IntegrityError: it is neither, or of another tenant.
    """
    signed = statement.signed
    body = verify_once(signed, CONTEXTS[statement.context])
    heads: dict[bytes, Shown]
    if statement.context == "witness":
        witness = decode(Witness, body)
        found, incarnation, challenge = witness.tenant, witness.incarnation, b""
        shown = Shown(writer=witness.writer, number=witness.number, head=witness.head, seen_ns=witness.seen_ns)
        heads = {witness.writer: shown}
    elif statement.context == "standing":
        standing = decode(Standing, body)
        found, incarnation, challenge = standing.tenant, standing.incarnation, standing.challenge
        heads = {one.writer: one for one in standing.heads}
    else:
        raise IntegrityError(f"{statement.context}: no word of a provider about heads")
    if found != tenant:
        raise IntegrityError(f"{statement.context}: of another tenant")
    return Word(
        provider=identity_of(signer_of(signed)),
        incarnation=incarnation,
        heads=heads,
        hash=signed_hash(signed),
        challenge=challenge,
        statement=statement,
    )


def gone_back(earlier: Word, later: Word) -> list[bytes]:
    """Return the writers of whom a provider says less, or another head, than it had signed before, sorted.

    Both words are of one provider; in another incarnation it may have lost what it knew.
    """
    if (earlier.provider, earlier.incarnation) != (later.provider, later.incarnation):
        return []
    return sorted(writer for writer, shown in earlier.heads.items() if not _at_least(later.heads.get(writer), shown))


def _at_least(now: Shown | None, before: Shown) -> bool:
    if now is None:
        return False
    return now.number > before.number or (now.number == before.number and now.head == before.head)


def check_finding(finding: Finding) -> None:
    """Check that the statements of a finding show what it says, with nothing but what is in it.

    Whose keys these are is for the reader to compare: a writer's and a provider's identity are in the finding.

    Raises:
        IntegrityError, FormatError: they do not.
    """
    said = finding.statements
    if len(said) < _STATEMENTS[finding.kind]:
        raise IntegrityError(f"finding: a {finding.kind} is shown by {_STATEMENTS[finding.kind]} statements")
    _CHECKS[finding.kind](finding)


def _link(finding: Finding, place: int) -> Link:
    statement = finding.statements[place]
    if statement.context == "head":
        link = read_head(statement.signed, finding.tenant)
    elif statement.context == "snapshot":
        link = read_snapshot_link(statement.signed, b"", finding.tenant)
    else:
        raise IntegrityError("finding: a head or a snapshot has to be there")
    if link.writer != finding.writer:
        raise IntegrityError("finding: a statement is of another writer")
    return link


def _word(finding: Finding, place: int) -> Word:
    word = read_word(finding.statements[place], finding.tenant)
    if word.provider != finding.provider and finding.kind == "rollback":
        raise IntegrityError("finding: a statement is of another provider")
    return word


def _check_fork(finding: Finding) -> None:
    if not excludes(_link(finding, 0), _link(finding, 1)):
        raise IntegrityError("finding: the two can be in one chain")


def _check_rollback(finding: Finding) -> None:
    earlier, later = _word(finding, 0), _word(finding, 1)
    if later.challenge != challenge_of(finding.challenge) or earlier.hash not in finding.challenge:
        raise IntegrityError("finding: nothing shows that the second was said after the first")
    if finding.writer not in gone_back(earlier, later):
        raise IntegrityError("finding: the provider did not go back")


def _check_lost(finding: Finding) -> None:
    head = _link(finding, 0)
    for place in range(1, len(finding.statements)):
        shown = _word(finding, place).heads.get(finding.writer)
        if shown is not None and shown.number >= head.number:
            raise IntegrityError("finding: a provider shows that head, or a later one")


def _check_revoked(finding: Finding) -> None:
    head, word = _link(finding, 0), _word(finding, 1)
    charter_statement = finding.statements[2]
    if charter_statement.context != "charter":
        raise IntegrityError("finding: the charter has to be there")
    signed = charter_statement.signed
    charter = read_charter(verify(signed, Context.CHARTER, [signer_of(signed)]))
    if verify_root(charter.root, None).owner_key != signer_of(signed) or charter.tenant != finding.tenant:
        raise IntegrityError("finding: the charter is not this tenant's")
    key = signer_of(head.statement.signed)
    if not any(right.holder_key == key and right.revoked for right in charter.rights):
        raise IntegrityError("finding: the charter does not revoke the writer")
    shown = word.heads.get(finding.writer)
    if shown is None or shown.head != head.hash or shown.seen_ns <= charter.created_ns:
        raise IntegrityError("finding: nothing shows that the head came after the charter")


def _check_continued(finding: Finding) -> None:
    links = [_link(finding, place) for place in range(len(finding.statements))]
    if any(later.number <= earlier.number for earlier, later in pairwise(links)):
        raise IntegrityError("finding: the second does not go on after the first")


def _check_charters(finding: Finding) -> None:
    if any(statement.context != "charter" for statement in finding.statements):
        raise IntegrityError("finding: two charters have to be there")
    one, other = (_charter(statement.signed) for statement in finding.statements[:2])
    for charter in (one, other):
        if charter.charter.tenant != finding.tenant:
            raise IntegrityError("finding: a charter is not this tenant's")
    if identity_of(one.root.owner_key) != finding.writer or one.root.root_key != other.root.root_key:
        raise IntegrityError("finding: a charter is of another owner or root")
    if not excludes_charter(one, other):
        raise IntegrityError("finding: the two can be in one chain")


def _charter(signed: bytes) -> VerifiedCharter:
    charter = read_charter(verify(signed, Context.CHARTER, [signer_of(signed)]))
    return verify_charter(signed, root_key=verify_root(charter.root, None).root_key, known=None)


_CHECKS = {
    "fork": _check_fork,
    "rollback": _check_rollback,
    "lost": _check_lost,
    "revoked": _check_revoked,
    "continued": _check_continued,
    "interleaved": _check_continued,
    "charters": _check_charters,
}
