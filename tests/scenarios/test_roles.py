"""What each key can and cannot do: docs/spec/crypto.md's table, each cell against providers and members as they are."""

import os
import pathlib
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
import pytest

from replicator.charter.verify import NO_PREVIOUS, signed_hash
from replicator.crypto.recovery import Root, from_words, root_of
from replicator.crypto.sign import Context, SigningKey
from replicator.crypto.unseal import unseal
from replicator.engine.browse import Library
from replicator.engine.federation import Federation
from replicator.engine.home import Half, open_private
from replicator.engine.keeper import KeeperHome, ReaderHome, sign_charter
from replicator.engine.members import revoke
from replicator.engine.tenant import open_keybag
from replicator.errors import KeyMissingError, ReplicatorError
from replicator.format.charter import CharterPrivate, EnrolOrder, ErasedDomain, Objection, RootChange
from replicator.format.claim import Claim, set_root
from replicator.format.codec import Record, decode, encode
from replicator.format.container import Kind
from replicator.format.erasure import EraseOrder
from replicator.format.snapshot import Head
from replicator.ids import ObjectName
from replicator.pack.sealed import open_object
from replicator.provider.session import ProviderSession
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import (
    CharterNotice,
    CheckRequest,
    EnrolRequest,
    InventoryRequest,
    Signed,
    Succession,
    SuccessionRequest,
)
from tests.provider.tenant import data_object, put
from tests.scenarios.joining import joined, keeping, opened
from tests.scenarios.world import PROMISE, World

TABLE: dict[str, set[str]] = {
    "root": {
        *("ask", "read objects", "store objects", "audit", "hand on a charter", "enrol others"),
        *("name an owner", "change a floor", "open the keybag", "read the charter's names"),
        *("open indexes", "read contents", "write charters", "announce another root", "object to another root"),
        *("erase a domain", "erase the tenant"),
    },
    "owner": {"write charters", "enrol others", "announce another root"},
    "keeper": {
        *("ask", "read objects", "store objects", "audit", "hand on a charter", "read the charter's names"),
        *("open indexes", "read contents", "write charters", "enrol others", "mark", "announce another root"),
        "erase a domain",
    },
    "node": {
        *("ask", "read objects", "store objects", "audit", "hand on a charter", "publish"),
        *("read the charter's names", "open indexes"),
    },
    "maintainer": {
        *("ask", "read objects", "store objects", "audit", "hand on a charter", "mark"),
        *("read the charter's names", "open indexes"),
    },
    "drill host": {"ask", "read objects", "audit", "read the charter's names", "open indexes", "read contents"},
    "revoked node": {"read the charter's names", "open indexes"},
    "provider": {"read objects"},
    "stranger": set(),
}
"""Who can do what; everybody else cannot. "keeper" is a keeper's home with its passphrase, "root" the sheet with
what its keybag holds, "provider" the provider's own disk and key."""

ABILITIES = (
    "ask",
    "read objects",
    "store objects",
    "audit",
    "publish",
    "mark",
    "hand on a charter",
    "enrol others",
    "write charters",
    "name an owner",
    "change a floor",
    "announce another root",
    "object to another root",
    "open the keybag",
    "read the charter's names",
    "open indexes",
    "read contents",
    "erase a domain",
    "erase the tenant",
)


@dataclass
class Holder:
    """One who holds a key and nothing else: what the key opens, signs and is let do is tried with it."""

    name: str
    key: SigningKey
    half: Half | None = None
    owner: SigningKey | None = None
    root: Root | None = None


@dataclass
class Tenancy:
    """A tenant with one of everybody, a snapshot, and a provider to ask."""

    world: World
    holders: dict[str, Holder] = field(default_factory=dict)

    @property
    def keeper(self) -> KeeperHome:
        """The keeper's home, as the others are held against it."""
        half = self.holders["keeper"].half
        assert isinstance(half, KeeperHome)
        return half

    def session(self, holder: Holder) -> ProviderSession:
        """Return what one holder may ask the first provider."""
        return self.world.services[0].session(holder.key.public)  # type: ignore[return-value] # providers' own

    def some_object(self, kind: str) -> ObjectName:
        """Return the name of an object of the snapshot."""
        with_rows = self.holders["node"].half
        assert with_rows is not None
        names = [row.name for row in with_rows.catalog.objects.all() if row.kind == kind]
        held = set(os.listdir(self.world.objects(0)))
        return next(name for name in names if name.hex() in held)

    def bytes_of(self, kind: str) -> bytes:
        """Return an object of the snapshot as the first provider holds it."""
        with open(os.path.join(self.world.objects(0), self.some_object(kind).hex()), "rb") as file:
            return file.read()

    def close(self) -> None:
        """Close all homes."""
        for holder in self.holders.values():
            if holder.half is not None:
                holder.half.close()


async def settled(world: World) -> Tenancy:
    """Let everybody join and a snapshot be taken; enrol the keys with providers by whoever vouches for them."""
    everywhere = msgspec.structs.replace(PROMISE, copies=5, spread=["owner"])
    world.small_dataset(policy=everywhere)
    await world.backup()
    homes = {
        "maintainer": await joined(world, "maintainer", "barn"),
        "drill host": await joined(world, "drill", "attic"),
        "revoked node": await joined(world, "node", "stolen"),
    }
    stolen = opened(homes["revoked node"], "node")
    async with Federation(stolen, world.edge):
        pass
    stolen.close()
    with keeping(world) as (keeper, siblings):
        await revoke(keeper, siblings, world.edge, "stolen")
    node, keeper = world.node(), world.keeper()
    assert world.tenant is not None
    root = root_of(from_words(world.tenant.words))
    fresh = [SigningKey(bytes([number]) * 32) for number in range(1, 4)]
    tenancy = Tenancy(
        world,
        {
            "root": Holder("root", fresh[0], root=root),
            "owner": Holder("owner", fresh[1], owner=keeper.owner()),
            "keeper": Holder("keeper", keeper.signing, half=keeper, owner=keeper.owner()),
            "node": Holder("node", node.signing, half=node),
            "provider": Holder("provider", world.opened[0].key),
            "stranger": Holder("stranger", fresh[2]),
        },
    )
    for name, role in (("maintainer", "maintainer"), ("drill host", "drill"), ("revoked node", "node")):
        half = opened(homes[name], role)  # type: ignore[arg-type] # each is one
        tenancy.holders[name] = Holder(name, half.signing, half=half)
    order = root.signing.sign(Context.ENROL_ORDER, encode(EnrolOrder(holder_key=fresh[0].public, expires_ns=0)))
    world.services[0].enrol(EnrolRequest(holder_key=fresh[0].public, secret=b"", order=order, root=b""))
    for name in ("maintainer", "drill host"):
        member = tenancy.holders[name].half
        assert member is not None
        async with Federation(member, world.edge) as federation:
            assert len(federation.links) == 5
    return tenancy


async def asked(tenancy: Tenancy, holder: Holder) -> None:
    tenancy.session(holder).info()


async def reads(tenancy: Tenancy, holder: Holder) -> None:
    if holder.name == "provider":
        tenancy.bytes_of("data")
        return
    tenancy.session(holder).get(tenancy.some_object("data"))


async def stores(tenancy: Tenancy, holder: Holder) -> None:
    put(tenancy.session(holder), data_object(len(holder.name)))


async def audits(tenancy: Tenancy, holder: Holder) -> None:
    session = tenancy.session(holder)
    session.inventory(InventoryRequest(after=b"", limit=10))
    session.check(CheckRequest(names=tenancy.some_object("data")))


def _publication(tenancy: Tenancy, holder: Holder) -> list[tuple[str, Context, Record]]:
    name = tenancy.some_object("data")
    claim = Claim(
        tenant=tenancy.keeper.tenant,
        writer=holder.key.identity,
        provider=tenancy.world.identity(0),
        number=10**6,
        base=0,
        added=name,
        dropped=b"",
        root=set_root([name]),
    )
    head = Head(
        tenant=tenancy.keeper.tenant,
        writer=holder.key.identity,
        number=10**6,
        previous=NO_PREVIOUS,
        snapshot=bytes(32),
        created_ns=0,
    )
    return [("claim", Context.CLAIM, claim), ("head", Context.HEAD, head)]


async def publishes(tenancy: Tenancy, holder: Holder) -> None:
    session = tenancy.session(holder)
    refused: dict[str, RequestRefusedError] = {}
    for op, context, record in _publication(tenancy, holder):
        try:
            session.handle(op, encode(Signed(statement=holder.key.sign(context, encode(record)))))
        except RequestRefusedError as error:
            refused[op] = error
    if refused:
        # A maintainer claims what it keeps of a surplus, and shows no heads.
        assert set(refused) == ({"head"} if holder.name == "maintainer" else {"claim", "head"}), "half would be a hole"
        raise refused["head"]


async def marks(tenancy: Tenancy, holder: Holder) -> None:
    """Only keys that the provider's charter gives "mark" are heard; a keeper's is its maintenance key."""
    key = tenancy.keeper.maintenance() if holder.half is tenancy.keeper else holder.key
    right = tenancy.keeper.charter.right_of(key.public)
    if right is None or "mark" not in right.ops:
        raise RequestRefusedError("forbidden", "no right to mark")


async def hands_on(tenancy: Tenancy, holder: Holder) -> None:
    name, _ = tenancy.keeper.charter_object()
    tenancy.session(holder).charter(CharterNotice(name=name))


async def enrols(tenancy: Tenancy, holder: Holder) -> None:
    other = SigningKey(bytes(31) + bytes([len(holder.name)]))
    signer = holder.root.signing if holder.root else holder.owner or holder.key
    order = signer.sign(Context.ENROL_ORDER, encode(EnrolOrder(holder_key=other.public, expires_ns=0)))
    tenancy.world.services[0].enrol(EnrolRequest(holder_key=other.public, secret=b"", order=order, root=b""))


async def erases(tenancy: Tenancy, holder: Holder) -> None:
    """Whatever key the holder has, its order is brought to a provider."""
    body = encode(EraseOrder(tenant=tenancy.keeper.tenant, created_ns=0))
    for signer in (holder.key, holder.owner, None if holder.root is None else holder.root.signing):
        if signer is not None:
            with suppress(RequestRefusedError):
                tenancy.world.services[0].erase(signer.sign(Context.ERASE_ORDER, body))
                return
    raise RequestRefusedError("forbidden", "no provider obeyed")


def _charter(
    tenancy: Tenancy,
    owner: SigningKey,
    root: bytes | None = None,
    change: bytes = b"",
    private: CharterPrivate | None = None,
    member_key: bytes = b"",
) -> bytes:
    keeper = tenancy.keeper
    old = keeper.charter
    return sign_charter(
        owner=owner,
        member_key=member_key or keeper.member.member_key,
        previous=old.hash,
        number=old.number + 1,
        root=root or old.charter.root,
        rights=old.charter.rights,
        keybag=old.charter.keybag,
        private=private or keeper.private,
        tenant=keeper.tenant,
        change=change,
        edge=tenancy.world.edge,
    )


async def erases_domain(tenancy: Tenancy, holder: Holder) -> None:
    """Say in a charter that a domain is erased, so that members believe it and refuse to write into it."""
    owner, member_key = holder.owner or holder.key, next(_private_keys(holder))
    if holder.half is not None:
        member_key = holder.half.member.member_key
    if holder.root is not None:
        bag = open_keybag(holder.root, _keybag(tenancy))
        owner, member_key = SigningKey(bag.owner_seed), bag.member_key
    gone = tenancy.keeper.private.domains[0]
    private = msgspec.structs.replace(
        tenancy.keeper.private,
        domains=[],
        erased=[ErasedDomain(id=gone.id, name=gone.name, erased_ns=1)],
    )
    node = tenancy.holders["node"].half
    assert node is not None
    seen: list[bool] = []

    def refuses() -> None:
        with pytest.raises(KeyMissingError):
            node.check_living(gone.id)
        seen.append(True)

    _believed(tenancy, _charter(tenancy, owner, private=private, member_key=member_key), refuses)
    assert seen


def _believed(tenancy: Tenancy, data: bytes, then: Callable[[], None] = lambda: None) -> None:
    """Give a charter to a member that has not seen it, look at it ``then``, and put it back afterwards."""
    node = tenancy.holders["node"].half
    assert node is not None
    before = node.charter_object()[1]
    known = node.charter
    node.adopt_charter(data)
    then()
    node.charter, node.private = known, open_private(known, node.member.member_key)
    with open(node.file("charter.obj"), "wb") as file:
        file.write(before)


async def writes(tenancy: Tenancy, holder: Holder) -> None:
    owner = holder.owner or holder.key
    if holder.root is not None:
        owner = SigningKey(open_keybag(holder.root, _keybag(tenancy)).owner_seed)
    _believed(tenancy, _charter(tenancy, owner))


def _statement(tenancy: Tenancy, holder: Holder, **changes: object) -> tuple[bytes, bytes]:
    """Return a charter whose root statement is the holder's word, and that statement."""
    old = tenancy.keeper.charter
    fresh = SigningKey(bytes(30) + b"ow")
    statement = msgspec.structs.replace(
        old.root,
        number=old.root.number + 1,
        previous=signed_hash(old.charter.root),
        owner_key=fresh.public,
        **changes,
    )
    signer = holder.root.signing if holder.root else holder.owner or holder.key
    signed = signer.sign(Context.ROOT_STATEMENT, encode(statement))
    return _charter(tenancy, fresh, signed), signed


async def names_owner(tenancy: Tenancy, holder: Holder) -> None:
    _believed(tenancy, _statement(tenancy, holder)[0])


async def lowers(tenancy: Tenancy, holder: Holder) -> None:
    floors = msgspec.structs.replace(tenancy.keeper.charter.root.floors, lock_s=0, delete_budget_percent=100)
    _believed(tenancy, _statement(tenancy, holder, floors=floors)[0])


async def announces(tenancy: Tenancy, holder: Holder) -> None:
    old = tenancy.keeper.charter
    following = SigningKey(bytes(30) + b"rt")
    statement = msgspec.structs.replace(
        old.root,
        number=old.root.number + 1,
        previous=signed_hash(old.charter.root),
        root_key=following.public,
    )
    successor = following.sign(Context.ROOT_STATEMENT, encode(statement))
    change = RootChange(tenant=tenancy.keeper.tenant, former=old.charter.root, successor=successor, announced_ns=0)
    signer = holder.owner or holder.key
    if holder.root is not None:
        signer = SigningKey(open_keybag(holder.root, _keybag(tenancy)).owner_seed)
    _believed(tenancy, _charter(tenancy, signer, change=signer.sign(Context.ROOT_CHANGE, encode(change))))


async def objects(tenancy: Tenancy, holder: Holder) -> None:
    """Whoever may ask may hand on an objection; whose it is decides."""
    statement = signed_hash(tenancy.keeper.charter.charter.root)
    record = Objection(tenant=tenancy.keeper.tenant, statement=statement, created_ns=0)
    signer = holder.root.signing if holder.root else holder.owner or holder.key
    signed = signer.sign(Context.OBJECTION, encode(record))
    asker = tenancy.holders["keeper"]
    answer = tenancy.session(asker).handle("succession", encode(SuccessionRequest(objection=signed)))
    assert decode(Succession, answer).objection == signed


def _keybag(tenancy: Tenancy) -> bytes:
    found = tenancy.keeper.keybag_object()
    assert found is not None
    return found[1]


async def opens_keybag(tenancy: Tenancy, holder: Holder) -> None:
    data = _keybag(tenancy)
    if holder.root is not None:
        open_keybag(holder.root, data)
        return
    for private in _private_keys(holder):
        try:
            unseal(private, data[12:], b"replicator/1 keybag", "keybag")
        except ReplicatorError:
            continue
        return
    raise RequestRefusedError("forbidden", "nothing that it holds opens it")


def _private_keys(holder: Holder) -> Iterator[bytes]:
    """Yield everything secret that a holder has, as if each were the key."""
    yield holder.key.seed()
    if holder.owner is not None:
        yield holder.owner.seed()
    if isinstance(holder.half, ReaderHome):
        yield from (holder.half.reader(domain).restore_private for domain in holder.half.domain_ids)
    if holder.half is not None:
        yield holder.half.member.member_key


async def reads_names(tenancy: Tenancy, holder: Holder) -> None:
    keys = [holder.half.member.member_key] if holder.half else list(_private_keys(holder))
    if holder.root is not None:
        keys = [open_keybag(holder.root, _keybag(tenancy)).member_key]
    _first_that(lambda key: open_private(tenancy.keeper.charter, key), keys)


def _first_that(opens: Callable[[bytes], object], keys: list[bytes]) -> None:
    problem: ReplicatorError | None = None
    for key in keys:
        try:
            opens(key)
        except ReplicatorError as error:
            problem = error
        else:
            return
    assert problem is not None, "there was a key to try"
    raise problem


async def opens_indexes(tenancy: Tenancy, holder: Holder) -> None:
    keys = tenancy.keeper.keys()
    if holder.root is not None:
        found = open_keybag(holder.root, _keybag(tenancy)).domains[0].index_keys
        index_keys = {one.epoch: one.key for one in found}
    elif holder.half is not None:
        index_keys = dict(holder.half.keys().index_keys)
    else:
        index_keys = {1: next(_private_keys(holder))}
    own = type(keys)(
        tenant=keys.tenant,
        domain=keys.domain,
        restore_key=keys.restore_key,
        mix=b"",
        id_key=b"",
        cut_key=b"",
        epoch=max(index_keys),
        index_keys=index_keys,
    )
    open_object(tenancy.bytes_of("index"), Kind.INDEX, own)


async def reads_contents(tenancy: Tenancy, holder: Holder) -> None:
    reader = holder.half
    if holder.root is not None:
        found = open_keybag(holder.root, _keybag(tenancy))
        assert found.domains[0].restore_private == tenancy.keeper.reader(found.domains[0].id).restore_private
        return
    if not isinstance(reader, ReaderHome):
        # What it has besides is tried as a restore key, on a snapshot's names.
        data = tenancy.keeper.domain_secrets(tenancy.keeper.domain_ids[0])
        if data.restore_private in set(_private_keys(holder)) or (reader and data.restore_private in _all(reader)):
            return
        raise RequestRefusedError("forbidden", "no restore key")
    async with Federation(reader, tenancy.world.edge, ticket=reader.lazy_ticket) as federation:
        library = Library(reader, federation)
        await library.refresh()
        [snapshot] = await library.snapshots()
        assert snapshot.details.dataset == "docs"


def _all(half: Half) -> bytes:
    """Return every byte in a home, end to end."""
    parts = []
    for folder, _, names in os.walk(half.path):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                parts.append(file.read())
    return b"".join(parts)


TRIES: dict[str, Callable[[Tenancy, Holder], Awaitable[None]]] = {
    "ask": asked,
    "read objects": reads,
    "store objects": stores,
    "audit": audits,
    "publish": publishes,
    "mark": marks,
    "hand on a charter": hands_on,
    "enrol others": enrols,
    "write charters": writes,
    "name an owner": names_owner,
    "change a floor": lowers,
    "announce another root": announces,
    "object to another root": objects,
    "open the keybag": opens_keybag,
    "read the charter's names": reads_names,
    "open indexes": opens_indexes,
    "read contents": reads_contents,
    "erase a domain": erases_domain,
    "erase the tenant": erases,
}


@pytest.mark.parametrize("name", TABLE)
async def test_a_key_can_do_what_the_table_says_and_nothing_else(name: str, world: World) -> None:
    tenancy = await settled(world)
    holder = tenancy.holders[name]
    can = set()
    for ability in ABILITIES:
        try:
            await TRIES[ability](tenancy, holder)
        except (ReplicatorError, RequestRefusedError):
            continue
        can.add(ability)
    tenancy.close()
    assert can == TABLE[name]


async def test_a_drill_host_that_is_to_forget_says_that_it_lacks_the_key(world: World) -> None:
    half = opened(await joined(world, "drill", "attic"), "drill")
    assert isinstance(half, ReaderHome)
    with pytest.raises(KeyMissingError, match="this drill host has no maintenance key") as caught:
        half.maintenance()
    half.close()
    assert caught.value.hint == "run this on the keeper"


def test_every_ability_is_somebodys_and_nobody_but_root_has_nearly_all() -> None:
    assert set().union(*TABLE.values()) == set(ABILITIES) == set(TRIES)
    assert all(abilities < set(ABILITIES) for abilities in TABLE.values())


def test_the_specification_has_this_table() -> None:
    text = (pathlib.Path(__file__).parents[2] / "docs" / "spec" / "crypto.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    [header] = [row for row in rows if row[0] == "can"]
    found: dict[str, set[str]] = {name: set() for name in header[1:]}
    at = rows.index(header) + 1
    for row in rows[at : at + len(ABILITIES)]:
        assert row[0] in ABILITIES, row
        for name, cell in zip(header[1:], row[1:], strict=True):
            assert re.fullmatch(r"yes|–", cell), row
            if cell == "yes":
                found[name].add(row[0])
    assert found == TABLE
