"""Every key of a tenant: which there are, whether they open what they should, new ones in place of old."""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from replicator.charter.verify import signed_hash
from replicator.crypto.passphrase import Cost
from replicator.crypto.recovery import Root, from_words, root_of
from replicator.crypto.sign import Context, SigningKey
from replicator.crypto.unseal import public_of
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation, get_whole
from replicator.engine.forgetting import say_anew
from replicator.engine.handing import enrol_order, free_name, name_of_key, noted, noted_revoked
from replicator.engine.home import Half
from replicator.engine.keeper import (
    KeeperHome,
    ReaderHome,
    check_passphrase,
    domain_file,
)
from replicator.engine.members import catch_up, spread_charter, write_with_epochs
from replicator.engine.roots import announced
from replicator.engine.signedhere import Entry, SignedHere, UnconfirmedError, chosen, without
from replicator.engine.tenant import MAINTENANCE_NAME, open_keybag, open_keybag_of, right_of, seal_keybag
from replicator.errors import IntegrityError, KeyMissingError, KeyWrongError, ReplicatorError
from replicator.format.charter import CharterPrivate, DomainPublic, Right
from replicator.format.codec import encode
from replicator.format.keybag import DomainKeyFile, DomainSecrets
from replicator.ids import Identity, ObjectName, identity_of, root_fingerprint, short

ABILITIES: Final[dict[str, tuple[str, str]]] = {
    "root": ("everything: name another owner, go below a floor, open the keybag", ""),
    "next root": ("nothing yet: it takes root's place after its wait, unless root objects", ""),
    "owner": ("sign charters: peers, members, rights, within root's floors", "go below a floor"),
    "restore": ("read names and contents of its domain", "sign, publish, delete"),
    "index": ("open directories and indexes of its epoch", "read names or contents, sign"),
    "member": ("read the charter's private part: names, peers, domains", "sign, read data"),
    "keeper": ("fetch and store objects, hand on charters", "publish, mark"),
    "node": ("back up, publish and claim its own snapshots, audit, repair", "read anything older, list names, delete"),
    "maintainer": ("mark what is dead; see times, chunk ids and sizes", "read names or contents, publish, forge"),
    "drill": ("fetch and audit objects; with restore keys: restore for trial", "store, publish, delete"),
    "provider": ("sign offers, receipts, witnesses", "read"),
}
"""What holders of each kind of key can and cannot do, in words; docs/spec/crypto.md has the whole table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """One key. ``since_ns`` 0: not known. ``here``: its file in this home, empty if it is not here."""

    id: str
    kind: str
    name: str
    held_by: str
    here: str
    since_ns: int
    revoked: bool
    revoked_ns: int
    can: str
    cannot: str


def _row(
    kind: str,
    identity: str,
    *,
    name: str,
    held_by: str,
    here: str = "",
    since_ns: int = 0,
    revoked: bool = False,
    revoked_ns: int = 0,
) -> KeyRow:
    can, cannot = ABILITIES[kind]
    return KeyRow(
        id=identity,
        kind=kind,
        name=name,
        held_by=held_by,
        here=here,
        since_ns=since_ns,
        revoked=revoked,
        revoked_ns=revoked_ns,
        can="nothing any more" if revoked else can,
        cannot=cannot,
    )


def list_keys(half: Half, others: Iterable[Half] = ()) -> list[KeyRow]:
    """Return every key of the tenant that this home knows of, and of this home's own files where each lies.

    ``others`` are the other parts of the same home. Public halves and dates alone: no secret is opened.
    """
    halves = [half, *others]
    root = half.charter.root
    living = [one for one in half.charter.charter.rights if not one.revoked]
    readers = [_name(half, one) for one in living if one.role in {"keeper", "drill"}]
    members = [_name(half, one) for one in living]
    pending = half.charter.pending
    rows = [
        _row("root", root.root_key.hex(), name="recovery sheet", held_by="the recovery sheet", since_ns=0),
        *(
            _row("next root", one.successor.root_key.hex(), name="announced sheet", held_by="the new sheet")
            for one in ([] if pending is None else [pending])
        ),
        _row(
            "owner",
            identity_of(root.owner_key).hex(),
            name="owner",
            held_by="keeper, wrapped",
            here=_file(halves, "owner.key"),
            since_ns=root.created_ns,
        ),
    ]
    for domain in half.private.domains:
        rows.append(
            _row(
                "restore",
                identity_of(domain.restore_key).hex(),
                name=domain.name,
                held_by=f"{', '.join(readers)}; wrapped",
                here=_file(halves, domain_file(domain.id)),
            )
        )
        rows.append(
            _row(
                "index",
                f"{short(domain.id)}-{domain.epoch}",
                name=f"{domain.name}, epoch {domain.epoch}",
                held_by=", ".join(members),
                here=_file(halves, "index.bin", "member.bin"),
            )
        )
    rows.append(
        _row(
            "member",
            half.tenant.hex(),
            name=half.private.name,
            held_by=", ".join(members),
            here=_file(halves, "member.bin"),
        )
    )
    rows += [_of_right(half, right, halves) for right in half.charter.charter.rights]
    rows += [
        _row("provider", pin.identity.hex(), name=pin.name, held_by=f"provider of {pin.owner}", since_ns=pin.added_ns)
        for pin in half.peers
    ]
    return rows


def _name(half: Half, right: Right) -> str:
    return name_of_key(half.private, identity_of(right.holder_key))


def _file(halves: Iterable[Half], *names: str) -> str:
    """Return the first of these files that this home has."""
    paths = (one.file(name) for name in names for one in halves)
    return next((path for path in paths if os.path.exists(path)), "")


def _of_right(half: Half, right: Right, halves: list[Half]) -> KeyRow:
    identity = identity_of(right.holder_key)
    note = next((one for one in half.private.notes if one.identity == identity), None)
    own = next((one for one in halves if one.identity == identity), None)
    name = name_of_key(half.private, identity)
    here = own.file("identity.seed") if own is not None else ""
    held_by = f"{name}, 0600"
    if right.role == "maintainer" and name.startswith(MAINTENANCE_NAME):
        held_by = "keeper, wrapped"
        here = _file(halves, "maintenance.key") if not right.revoked else ""
    return _row(
        right.role,
        identity.hex(),
        name=name,
        held_by=held_by,
        here=here,
        since_ns=note.added_ns if note is not None else 0,
        revoked=right.revoked,
        revoked_ns=note.revoked_ns if note is not None else 0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Whether one thing opens. ``problem`` is empty if it does; ``integrity``: what opened is not what it should be."""

    id: str
    problem: str
    integrity: bool = False


def _judge(what: str, right: bool, problem: str) -> Checked:
    return Checked(id=what, problem="" if right else problem, integrity=not right)


def _missing_epochs(domain: DomainPublic, secrets: DomainSecrets) -> list[int]:
    """Return the epochs up to the one that is written under now whose index keys are not among the secrets."""
    return sorted(set(range(1, domain.epoch + 1)) - {one.epoch for one in secrets.index_keys})


def check_wrapped(home: ReaderHome, now_ns: int) -> list[Checked]:
    """Open everything that this home's passphrase should open and compare it with the charter. Changes nothing.

    Another root that is announced is told too.

    Raises:
        KeyWrongError: the passphrase is wrong.
    """
    found = []
    if isinstance(home, KeeperHome):
        owner = home.counting("owner.key")
        found.append(
            _judge("owner key", owner.public == home.charter.root.owner_key, "not the owner that root has named")
        )
        maintenance = home.counting("maintenance.key")
        found.append(
            Checked(
                id="maintenance key",
                problem=""
                if home.may_maintain(maintenance.public)
                else "the charter gives it no right: `replicator key rotate maintenance` makes another",
            )
        )
    found += [Checked(id="root", problem=f"{one.text}. {one.advice}") for one in announced(home, {}, now_ns)]
    for domain in home.private.domains:
        what = f"restore key of {domain.name}"
        if domain.id not in home.domain_ids:
            continue
        secrets = home.domain_secrets(domain.id)
        found.append(_judge(what, public_of(secrets.restore_private) == domain.restore_key, "not the charter's"))
        missing = _missing_epochs(domain, secrets)
        said = f"epochs that are missing: {', '.join(map(str, missing))}"
        found.append(_judge(f"index keys of {domain.name}", not missing, said))
    return found


def root_of_sheet(half: Half, words: list[str]) -> Root:
    """Return root from the sheet's words.

    Raises:
        KeyWrongError: the words are damaged, or of another tenant's sheet, or of one that does not count yet.
    """
    root = root_of(from_words(words))
    pending = half.charter.pending
    if pending is not None and root.signing.public == pending.successor.root_key:
        raise KeyWrongError(
            "this is the sheet of the root that is announced, which does not count yet",
            hint="`replicator key check` says when it does",
        )
    if root.signing.public != half.member.root_key:
        raise KeyWrongError(
            f"this is the sheet of tenant {root_fingerprint(root.signing.public)}; this home is of "
            f"{root_fingerprint(half.member.root_key)}",
            hint="the tenant's number is on the sheet, below its name",
        )
    return root


async def check_sheet(keeper: KeeperHome, edge: Edge, words: list[str]) -> list[Checked]:
    """Recover for trial: does this sheet open the keybag, here and at each provider, and is it all in there?

    Nothing is changed anywhere: the keeper asks with its own key. The sheet of a root that is announced is tried too.

    Raises:
        KeyWrongError: the words are damaged, or of another tenant's sheet.
    """
    root = root_of(from_words(words))
    pending = keeper.charter.pending
    if pending is None or root.signing.public != pending.successor.root_key:
        root = root_of_sheet(keeper, words)
    found = [Checked(id="words", problem="")]
    own = keeper.keybag_object()
    if own is not None:
        found += _check_keybag(keeper, root, own[1], "keybag in this home")
    async with Federation(keeper, edge, ticket=keeper.lazy_ticket) as federation:
        for pin in keeper.peers:
            what = f"keybag at {pin.name}"
            link = federation.links.get(Identity(pin.identity))
            if link is None:
                found.append(
                    Checked(id=what, problem=str(federation.failures.get(Identity(pin.identity), "no answer")))
                )
                continue
            try:
                if link.info.charter_number != keeper.charter.number:
                    raise IntegrityError(f"it has charter {link.info.charter_number}, not {keeper.charter.number}")
                data = await get_whole(link.connection, ObjectName(keeper.charter.charter.keybag))
            except ReplicatorError as error:
                found.append(Checked(id=what, problem=str(error), integrity=isinstance(error, IntegrityError)))
            else:
                found += _check_keybag(keeper, root, data, what)
    return found


def _check_keybag(keeper: KeeperHome, root: Root, data: bytes, what: str) -> list[Checked]:
    """Return whether a keybag holds what recovery needs; one line if all is well."""
    try:
        bag = open_keybag(root, data)
    except ReplicatorError as error:
        return [Checked(id=what, problem=str(error), integrity=True)]
    problems = []
    if SigningKey(bag.owner_seed).public != keeper.charter.root.owner_key:
        problems.append("its owner key is not the one that root has named")
    if bag.member_key != keeper.member.member_key or bag.tenant != keeper.tenant:
        problems.append("it is of another tenant")
    held = {one.id: one for one in bag.domains}
    for domain in keeper.private.domains:
        secrets = held.get(domain.id)
        if secrets is None or public_of(secrets.restore_private) != domain.restore_key:
            problems.append(f"it lacks the restore key of {domain.name}")
        elif _missing_epochs(domain, secrets):
            problems.append(f"it lacks index keys of {domain.name}")
    return [Checked(id=what, problem="; ".join(problems), integrity=bool(problems))]


def change_passphrase(home: ReaderHome, edge: Edge, passphrase: str, cost: Cost) -> None:
    """Wrap a home's keys with another passphrase, or make the same one dearer to try.

    Raises:
        KeyWrongError: the passphrase so far is wrong.
        UsageError: the new one is too short.
        LockedError: another run works here.
    """
    check_passphrase(passphrase)
    with home.lock():
        home.rewrap(edge, passphrase, home.contents(), cost)


async def reset_passphrase(keeper: KeeperHome, edge: Edge, words: list[str], passphrase: str, cost: Cost) -> None:
    """Give a keeper whose passphrase is lost a new one, by the sheet: root opens the keybag, which has every secret.

    Nothing but this home changes, and nobody has to be reachable if the keybag lies here.

    Raises:
        KeyWrongError: the words are damaged, or of another tenant's sheet.
        KeyMissingError: the keybag is neither here nor at a provider that answers.
    """
    check_passphrase(passphrase)
    root = root_of_sheet(keeper, words)
    if keeper.keybag_object() is None:
        order = enrol_order(root.signing, keeper.signing.public)
        async with Federation(keeper, edge, ticket=lambda _: order):
            pass  # it takes the keybag that the charter names
    found = keeper.keybag_object()
    if found is None:
        raise KeyMissingError(
            "the keybag is neither in this home nor at a provider that answers", hint="try again when more answer"
        )
    bag = open_keybag_of(root, found[1], keeper.charter)
    secrets = {"owner.key": bag.owner_seed, "maintenance.key": bag.maintenance_seed}
    held = {domain_file(one.id): encode(DomainKeyFile(secrets=one)) for one in bag.domains}
    wanted = {name: held[name] for name in keeper.key_files() if name in held}
    with keeper.lock():
        keeper.rewrap(edge, passphrase, secrets | wanted, cost)


async def rotate_index(keeper: KeeperHome, siblings: list[Half], edge: Edge) -> list[str]:
    """Begin a new index epoch in every domain: who has lost its right is not given the key.

    Returns what could not be told to whom.

    Raises:
        KeyWrongError: the passphrase is wrong.
    """
    await catch_up(keeper, edge)
    return await spread_charter(keeper, siblings, edge, write_with_epochs(keeper, edge))


async def rotate_maintenance(keeper: KeeperHome, siblings: list[Half], edge: Edge) -> list[str]:
    """Give the keeper another maintenance key; the one so far can do nothing from then on.

    Returns what could not be told to whom.

    Raises:
        KeyWrongError: the passphrase is wrong.
    """
    await catch_up(keeper, edge)
    bag = keeper.keybag()
    fresh = SigningKey(edge.rng.bytes(32))
    keeper.prepare(edge, "maintenance.key", fresh)
    former = SigningKey(bag.maintenance_seed)
    rights, private = with_maintenance(
        keeper.charter.charter.rights, keeper.private, former, fresh, keeper.living_ids, edge.clock.now_ns()
    )
    bag = msgspec.structs.replace(bag, maintenance_seed=fresh.seed())
    seal_key, successor = keeper.charter.root.root_seal_key, keeper.successor_seal_key()
    keybag_data = seal_keybag(bag, seal_key, edge.rng, successor)
    data = keeper.write_charter(edge, private=private, rights=rights, keybag_data=keybag_data)
    keeper.succeed("maintenance.key")
    notices = await spread_charter(keeper, siblings, edge, data)
    return notices + await say_anew(keeper, edge, fresh, keeper.lazy_ticket)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerRotated:
    """What another owner began with: what was dropped, what others had taken away, what could not be told to whom.

    ``restored``: names of domains under whose name somebody else had put a restore key.
    """

    dropped: list[Entry]
    gone: list[Entry]
    restored: list[str]
    notices: list[str]


async def rotate_owner(
    keeper: KeeperHome,
    siblings: list[Half],
    edge: Edge,
    words: list[str],
    *,
    keep: Collection[str] = (),
    drop: Collection[str] = (),
) -> OwnerRotated:
    """Name another owner key by the sheet; what the one so far signs counts nowhere from then on.

    Who had that key may have given rights. What this home did not sign itself has to be confirmed, by name: what is
    in ``drop`` loses its right or its place. All index keys and the keeper's maintenance key, which were under the
    same passphrase, are replaced; every member that stays is handed the new ones, with an enrol order by the new owner.

    Raises:
        KeyWrongError: the passphrase or the sheet is wrong.
        UnconfirmedError: of something in the charter it was not said whether it stays. Nothing was changed.
        NotFoundError, UsageError: ``keep`` and ``drop`` cannot be meant so.
    """
    root = root_of_sheet(keeper, words)
    await catch_up(keeper, edge)
    signed = keeper.signed_here()
    entries = keeper.entries()
    foreign = _foreign(keeper, siblings, signed, entries)
    dropped, unsaid = chosen(foreign, keep, drop)
    if unsaid:
        raise UnconfirmedError(unsaid, signed)
    bag = keeper.keybag()
    fresh, maintenance = SigningKey(edge.rng.bytes(32)), SigningKey(edge.rng.bytes(32))
    now = edge.clock.now_ns()
    rights, private = without(keeper.charter.charter.rights, keeper.private, dropped, now)
    rights, private = with_maintenance(
        rights, private, SigningKey(bag.maintenance_seed), maintenance, keeper.living_ids, now
    )
    domains = _own_domains(private.domains, bag.domains)
    restored = [one.name for one, was in zip(domains, private.domains, strict=True) if one != was]
    private = msgspec.structs.replace(private, domains=domains)
    bag = msgspec.structs.replace(bag, owner_seed=fresh.seed(), maintenance_seed=maintenance.seed())
    old = keeper.charter
    statement = msgspec.structs.replace(
        old.root,
        number=old.root.number + 1,
        previous=signed_hash(old.charter.root),
        owner_key=fresh.public,
        created_ns=now,
    )
    keeper.prepare(edge, "owner.key", fresh)
    keeper.prepare(edge, "maintenance.key", maintenance)
    data = write_with_epochs(
        keeper,
        edge,
        private=private,
        rights=rights,
        bag=bag,
        root=root.signing.sign(Context.ROOT_STATEMENT, encode(statement)),
        owner=fresh,
    )
    keeper.succeed("owner.key")
    keeper.succeed("maintenance.key")
    notices = await spread_charter(keeper, siblings, edge, data)
    notices += await say_anew(keeper, edge, maintenance, keeper.lazy_ticket)
    return OwnerRotated(dropped=dropped, gone=signed.gone(entries), restored=restored, notices=notices)


def _foreign(keeper: KeeperHome, siblings: list[Half], signed: SignedHere, entries: list[Entry]) -> list[Entry]:
    """Return what this home did not sign, but for what it can tell by keys that it holds itself."""
    held = [half.identity for half in (keeper, *siblings)] + [identity_of(keeper.keybag_maintenance())]
    own = {f"key {one.hex()}" for one in held} | {f"domain {one.hex()}" for one in keeper.living_ids}
    return [one for one in entries if not signed.is_own(one) and one.place not in own]


def _own_domains(publics: Iterable[DomainPublic], secrets: Iterable[DomainSecrets]) -> list[DomainPublic]:
    """Return domains under the restore keys that this keeper holds, whatever somebody else wrote there."""
    held = {one.id: public_of(one.restore_private) for one in secrets}
    return [msgspec.structs.replace(one, restore_key=held.get(one.id, one.restore_key)) for one in publics]


def with_maintenance(
    rights: Iterable[Right],
    private: CharterPrivate,
    former: SigningKey,
    fresh: SigningKey,
    domains: list[bytes],
    now_ns: int,
) -> tuple[list[Right], CharterPrivate]:
    """Return rights and notes in which the keeper's maintenance key has another in its place."""
    changed = [msgspec.structs.replace(one, revoked=True) if one.holder_key == former.public else one for one in rights]
    if any(one.holder_key == former.public for one in changed):
        private = noted_revoked(private, [former.identity], now_ns)
    changed.append(right_of("maintainer", fresh.public, domains))
    return changed, noted(private, fresh.identity, free_name(MAINTENANCE_NAME, private), now_ns)
