"""Stop a provider at every step of what it promises, reopen it, and find the old state or the new.

Each act is lived once undisturbed to count its steps. Then it is stopped before each of them, once as if the
process were killed and once for every way a power loss may leave what was not synced. After each, the provider
starts again and everything it ever promised must hold, and the act must succeed when it is tried again.

The same search must find a broken promise as soon as any single protecting step is left out.
"""

import itertools
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from replicator.charter.verify import signed_hash
from replicator.clock import DAY_S
from replicator.crypto.sign import body_of
from replicator.errors import ReplicatorError
from replicator.format.claim import Receipt, Witness, set_root
from replicator.format.codec import decode
from replicator.format.merkle import name_of
from replicator.fs import PosixFs
from replicator.ids import ObjectName
from replicator.provider.home import Provider
from replicator.provider.service import ProviderService
from replicator.provider.session import ProviderSession
from replicator.transport.handler import RequestRefusedError
from replicator.wire.messages import (
    CharterNotice,
    CheckRequest,
    EnrolRequest,
    HeadsRequest,
    InventoryRequest,
    MarksRequest,
    Signed,
)
from tests.crashfs import Crash, CrashFs, subsets
from tests.fakes import FakeClock, SeededRng
from tests.provider.tenant import (
    MIB,
    House,
    Tenant,
    charter_object,
    data_object,
    hire,
    put,
    right,
    secret_of,
    settle,
)

FIRST = data_object(1)
SECOND = data_object(2)
KEYBAG = data_object(7)


@dataclass
class World:
    """A copy of the settled provider for one life and the one after it."""

    path: str
    life: int = 0
    tenant: Tenant = field(default_factory=lambda: Tenant("crash"))
    receipts: list[bytes] = field(default_factory=list)
    claimed: int = 0
    head: bytes = b""
    forks: int = 0
    charter: int = 1
    enrolled: set[bytes] = field(default_factory=set)
    code: str = ""
    marked: int = 0
    swept: bool = False
    retired: bool = False
    erased: bytes = b""

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.fs = CrashFs(os.path.join(self.path, "graveyard"))
        self._open: list[Provider] = []

    @property
    def house(self) -> House:
        """The house that the copy is."""
        return House(self.path, clock=self.clock)

    def start(self, fs: CrashFs | PosixFs) -> tuple[Provider, ProviderService]:
        """Open the home and start the service on this file system."""
        self.life += 1
        house = House(self.path, fs=fs, clock=self.clock, rng=SeededRng(f"life {self.life}"))
        provider = house.open()
        self._open.append(provider)
        return provider, provider.start()

    def close(self) -> None:
        """End a life: what was not committed is undone by SQLite."""
        while self._open:
            self._open.pop().close()

    def session(self, service: ProviderService) -> ProviderSession:
        """Return the node's session."""
        return service.session(self.tenant.node.public)

    def file(self, data: bytes, folder: str = "objects") -> str:
        """Return where an object's file would be."""
        return os.path.join(self.house.objects(self.tenant, folder), name_of(data).hex())

    def damage(self, data: bytes) -> None:
        """Change a stored object on the disk."""
        with open(self.file(data), "r+b") as file:
            file.write(b"rot")


@dataclass(frozen=True)
class Act:
    """What a life does. ``before`` runs undisturbed, ``live`` is stopped, ``after`` looks at what the next finds.

    ``bare`` looks at the disk before the next life, ``rotten`` says that the test itself damages the second object.
    """

    live: Callable[[World, ProviderService], None]
    before: Callable[[World, ProviderService], None] = lambda _world, _service: None
    after: Callable[[World, ProviderService], None] = lambda _world, _service: None
    bare: Callable[[World], None] = lambda _world: None
    rotten: bool = False


def _put(world: World, service: ProviderService) -> None:
    world.receipts.append(put(world.session(service), SECOND))
    assert os.listdir(world.house.objects(world.tenant, "incoming")) == [], "the temporary name is still there"


def _damaged_before(world: World, service: ProviderService) -> None:
    put(world.session(service), SECOND)
    world.damage(SECOND)


def _put_over_damage(world: World, service: ProviderService) -> None:
    _put(world, service)
    assert not os.listdir(world.house.objects(world.tenant, "quarantine")), "a stored object is not in quarantine"


def _damage_is_kept(world: World) -> None:
    # Its segments may be all that is left of something, until it has been stored again.
    contents = []
    for folder in ("objects", "quarantine"):
        with suppress(FileNotFoundError), open(world.file(SECOND, folder), "rb") as file:
            contents.append(file.read())
    rotten = b"rot" + SECOND[3:]
    assert rotten in contents or SECOND in contents, "the damaged bytes are gone and nothing has replaced them"


def _claim(world: World, service: ProviderService) -> None:
    names: list[bytes] = [name_of(FIRST), name_of(KEYBAG)]
    statement = world.tenant.claim(
        service.identity, 2, names, base=1, added=[name_of(KEYBAG)], dropped=[name_of(SECOND)]
    )
    world.session(service).claim(Signed(statement=statement))
    world.claimed = 2


def _claim_before(world: World, service: ProviderService) -> None:
    names: list[bytes] = [name_of(FIRST), name_of(SECOND)]
    world.session(service).claim(Signed(statement=world.tenant.claim(service.identity, 1, names)))
    world.claimed = 1


def _claim_after(world: World, service: ProviderService) -> None:
    session = world.session(service)
    number = session.info().claim
    assert number in {world.claimed, 2}, f"claim {number} is there, {world.claimed} was acknowledged"
    names = _rows(world, "SELECT name FROM claimed ORDER BY name")
    [(root,)] = _rows(world, "SELECT root FROM claims")
    assert set_root(name for (name,) in names) == root, "the claimed set is not the one of the claim's root"
    _claim(world, service)


def _head(world: World, service: ProviderService) -> None:
    head = world.tenant.head(2, signed_hash(world.tenant.head(1)))
    answer = world.session(service).head(Signed(statement=head))
    assert decode(Witness, body_of(answer.statement)).head == signed_hash(head)
    world.head = head


def _head_before(world: World, service: ProviderService) -> None:
    world.head = world.tenant.head(1)
    world.session(service).head(Signed(statement=world.head))


def _head_after(world: World, service: ProviderService) -> None:
    [head] = world.session(service).heads(HeadsRequest(challenge=bytes(32))).heads
    assert head in {world.head, world.tenant.head(2, signed_hash(world.tenant.head(1)))}, "a witnessed head is gone"
    _head(world, service)


def _fork(world: World, service: ProviderService) -> None:
    with pytest.raises(RequestRefusedError, match="contradicts"):
        world.session(service).head(Signed(statement=world.tenant.head(1, snapshot=bytes([1]) * 32)))
    world.forks = 1


def _fork_after(world: World, service: ProviderService) -> None:
    assert world.session(service).heads(HeadsRequest(challenge=bytes(32))).heads == [world.head]
    assert len(world.session(service).heads(HeadsRequest(challenge=bytes(32))).forks) in {world.forks, 1}, (
        "evidence of a fork is gone"
    )
    _fork(world, service)


def _charter_before(world: World, service: ProviderService) -> None:
    tenant = world.tenant
    settled = _rows(world, "SELECT charter FROM tenants")
    tenant.charters = [settled[0][0]]
    rights = [right(tenant.keeper, "keeper"), right(tenant.node, "node")]
    put(service.session(tenant.keeper.public), charter_object(tenant.charter(rights, keybag=name_of(KEYBAG))))


def _charter(world: World, service: ProviderService) -> None:
    name = name_of(charter_object(world.tenant.charters[1]))
    service.session(world.tenant.keeper.public).charter(CharterNotice(name=name))
    world.charter = 2


def _charter_after(world: World, service: ProviderService) -> None:
    number = world.session(service).info().charter_number
    assert number in {world.charter, 2}, f"charter {number} is there, {world.charter} was acknowledged"
    _charter(world, service)


def _enrol_before(world: World, service: ProviderService) -> None:
    assert service is not None
    world.code = world.house.open().invite(quota=MIB, label="late")


def _enrol(world: World, service: ProviderService) -> None:
    late = Tenant("late")
    request = EnrolRequest(
        holder_key=late.keeper.public, secret=secret_of(world.code), order=b"", root=late.root_statement()
    )
    service.enrol(request)
    world.enrolled.add(late.keeper.public)


def _enrol_after(world: World, service: ProviderService) -> None:
    for key in world.enrolled:
        assert service.session(key).info().quota == MIB, "an invite was spent and its quota is not there"
    _enrol(world, service)
    assert service.session(Tenant("late").keeper.public).info().quota == MIB, "one invite was counted twice"


def _order(world: World, service: ProviderService) -> None:
    drill = SeededRng("drill").bytes(32)
    from replicator.crypto.sign import SigningKey

    key = SigningKey(drill)
    service.enrol(EnrolRequest(holder_key=key.public, secret=b"", order=world.tenant.order(key), root=b""))
    world.enrolled.add(key.public)


def _order_after(world: World, service: ProviderService) -> None:
    for key in world.enrolled:
        assert service.session(key).info().charter_number == 1
    _order(world, service)


def _mark(world: World, service: ProviderService, *names: ObjectName) -> None:
    maintainer = service.session(world.tenant.maintainer.public)
    statement = world.tenant.mark(service.identity, maintainer.claims(), dead=names)
    assert maintainer.mark(Signed(statement=statement)).state == "stands"
    world.marked = maintainer.claims().mark


def _mark_before(world: World, service: ProviderService) -> None:
    [settled] = _rows(world, "SELECT charter FROM tenants")
    world.tenant.charters = [settled[0]]
    hire(service, world.tenant)
    put(world.session(service), SECOND)


def _mark_after(world: World, service: ProviderService) -> None:
    maintainer = service.session(world.tenant.maintainer.public)
    chain = maintainer.claims().mark
    listed = [one.name for one in maintainer.marks(MarksRequest(after=b"", limit=9)).marks]
    assert chain in {world.marked, 1}, "an accepted mark is not in the chain"
    assert listed == ([name_of(SECOND)] if chain else []), "the chain and the marks are not of one mind"
    if not chain:
        _mark(world, service, name_of(SECOND))


def _sweep_before(world: World, service: ProviderService) -> None:
    _mark_before(world, service)
    _mark(world, service, name_of(SECOND))
    for _ in range(31):
        world.clock.advance(DAY_S)
        service.tick()


def _sweep(world: World, service: ProviderService) -> None:
    [(_, gone, _)] = service.sweep()
    assert [one.name for one in gone] == [name_of(SECOND)]
    world.swept = True


def _sweep_after(world: World, service: ProviderService) -> None:
    session = world.session(service)
    names = session.inventory(InventoryRequest(after=b"", limit=100)).names
    there = name_of(SECOND) in {names[at : at + 32] for at in range(0, len(names), 32)}
    assert there == ((name_of(SECOND),) in _rows(world, "SELECT name FROM objects")), (
        "an object without its row, or a row without its object"
    )
    assert not (there and world.swept), "what was swept has come back"
    if there:
        _sweep(world, service)
    assert world.session(service).claims().mark == 1


def _retire_before(world: World, service: ProviderService) -> None:
    _mark_before(world, service)
    _claim_before(world, service)


def _retire(world: World, service: ProviderService) -> None:
    maintainer = service.session(world.tenant.maintainer.public)
    maintainer.retire(Signed(statement=world.tenant.retire(service.identity, 1)))
    world.retired = True


def _retire_after(world: World, service: ProviderService) -> None:
    [writer] = world.session(service).claims().writers
    kept = bool(_rows(world, "SELECT signed FROM orders"))
    assert writer.retired == kept, "a retirement without its evidence, or the other way round"
    assert writer.retired or not world.retired, "an accepted retirement is gone"
    _retire(world, service)


LEAVING = Tenant("leaving")


def _erase_before(world: World, service: ProviderService) -> None:
    settle(world.house.open(), service, LEAVING)
    put(service.session(LEAVING.node.public), SECOND)
    put(service.session(LEAVING.node.public), FIRST)


def _erase(world: World, service: ProviderService) -> None:
    world.erased = service.erase(LEAVING.erase_order())


def _is_erased(world: World) -> None:
    if not world.erased:
        return
    left = [files for _, _, files in os.walk(os.path.join(world.house.data, LEAVING.id.hex())) if files]
    assert left == [], "a receipt was given, and files are there"
    assert _rows(world, "SELECT receipt FROM erasures") == [(world.erased,)], "a receipt was given and is not kept"
    for table in ("objects", "holders", "usage"):
        assert LEAVING.id not in {tenant for (tenant,) in _rows(world, f"SELECT tenant FROM {table}")}  # noqa: S608


def _erase_after(world: World, service: ProviderService) -> None:
    before = world.erased
    _erase(world, service)
    assert before in {b"", world.erased}, "one order has two receipts"
    _is_erased(world)
    with pytest.raises(RequestRefusedError):
        service.session(LEAVING.node.public)


ACTS = {
    "put": Act(_put),
    "put over a damaged object": Act(_put_over_damage, before=_damaged_before, bare=_damage_is_kept, rotten=True),
    "claim": Act(_claim, before=_claim_before, after=_claim_after),
    "head": Act(_head, before=_head_before, after=_head_after),
    "fork": Act(_fork, before=_head_before, after=_fork_after),
    "charter": Act(_charter, before=_charter_before, after=_charter_after),
    "enrol by invite": Act(_enrol, before=_enrol_before, after=_enrol_after),
    "enrol by order": Act(_order, after=_order_after),
    "mark": Act(lambda world, service: _mark(world, service, name_of(SECOND)), _mark_before, _mark_after),
    "sweep": Act(_sweep, _sweep_before, _sweep_after),
    "retire": Act(_retire, _retire_before, _retire_after),
    "erase": Act(_erase, _erase_before, _erase_after, bare=_is_erased),
}

PROTECTING = [
    ("put", "fsync file incoming"),
    ("put", "link objects"),
    ("put", "fsync folder objects"),
    ("put", "unlink incoming"),
    ("put", "commit object row"),
    ("put over a damaged object", "replace quarantine"),
    ("put over a damaged object", "fsync folder quarantine"),
    ("put over a damaged object", "unlink quarantine"),
    ("claim", "commit claim"),
    ("head", "commit head"),
    ("fork", "commit fork"),
    ("charter", "commit charter"),
    ("enrol by invite", "commit enrol by invite"),
    ("enrol by order", "commit enrol by order"),
    ("mark", "commit mark"),
    ("sweep", "commit sweep"),
    ("sweep", "unlink objects"),
    ("sweep", "fsync folder objects"),
    ("retire", "commit retire"),
    ("erase", "commit erase"),
    ("erase", "unlink objects"),
    ("erase", "fsync folder objects"),
    ("erase", "commit erased"),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A provider with one tenant, its charter, keybag and one object, stopped in good order."""
    path = str(tmp_path_factory.mktemp("template"))
    house = House(path)
    tenant = Tenant("crash")
    provider = house.init()
    service = provider.start()
    settle(provider, service, tenant)
    put(service.session(tenant.node.public), FIRST)
    service.stop()
    provider.close()
    return path


@pytest.mark.parametrize("name", ACTS)
def test_every_stop_leaves_the_old_state_or_the_new(name: str, template: str, tmp_path: str) -> None:
    runs = sum(1 for _ in search(ACTS[name], template, str(tmp_path)))
    assert runs > 2, "nothing was stopped"


@pytest.mark.parametrize(("name", "step"), PROTECTING)
def test_no_step_can_be_left_out(name: str, step: str, template: str, tmp_path: str) -> None:
    with pytest.raises((AssertionError, sqlite3.OperationalError, ReplicatorError)):
        for _ in search(ACTS[name], template, str(tmp_path), skip=step):
            pass


def test_every_step_of_a_put_is_known_here(template: str, tmp_path: str) -> None:
    """A new step must get its place in the list of those that cannot be left out, or be named here as free."""
    free = {"create incoming", "write incoming"}
    for name in ("put", "put over a damaged object"):
        steps = set(undisturbed(ACTS[name], template, os.path.join(tmp_path, name)))
        assert steps - free <= {step for _, step in PROTECTING}


def test_every_step_of_a_sweep_is_known_here(template: str, tmp_path: str) -> None:
    # The clock is looked at, traffic counted; nothing is in quarantine; a note that is left is done once more.
    free = {"commit clock", "commit traffic", "fsync folder quarantine", "commit sweep done"}
    steps = set(undisturbed(ACTS["sweep"], template, os.path.join(tmp_path, "steps")))
    assert steps - free <= {step for _, step in PROTECTING}


def test_every_step_of_an_erasure_is_known_here(template: str, tmp_path: str) -> None:
    # There is nothing in incoming and quarantine; a folder that is empty says nothing of what was in it.
    parts = ("incoming", "quarantine", LEAVING.id.hex())
    free = {f"fsync folder {part}" for part in (*parts, "data")}
    free |= {f"remove folder {part}" for part in (*parts, "objects")}
    steps = set(undisturbed(ACTS["erase"], template, os.path.join(tmp_path, "steps")))
    assert steps - free <= {step for _, step in PROTECTING}


def search(act: Act, template: str, work: str, *, skip: str = "") -> Iterator[None]:
    """Live an act with every stop and every loss; raises what it finds wrong."""
    numbers = itertools.count()

    def fresh() -> str:
        return os.path.join(work, str(next(numbers)))

    count = len(undisturbed(act, template, fresh(), skip=skip))
    for stop in reversed(range(count + 1)):
        entries = one(act, template, fresh(), skip=skip, stop=stop)
        yield
        for kept in subsets([os.path.basename(entry) for entry in entries]):
            for torn in (False, True):
                one(act, template, fresh(), skip=skip, stop=stop, kept=kept, torn=torn)
                yield


def undisturbed(act: Act, template: str, path: str, *, skip: str = "") -> list[str]:
    """Return the steps of an act."""
    world = copy(template, path)
    try:
        live(world, act, skip=skip, stop=None)
        return world.fs.steps
    finally:
        world.close()
        world.fs.close()
        shutil.rmtree(path)


def one(
    act: Act, template: str, path: str, *, skip: str, stop: int, kept: frozenset[str] | None = None, torn: bool = False
) -> list[str]:
    """Live an act up to a stop, end it (``kept`` None: killed), and look; return what a power loss might undo."""
    world = copy(template, path)
    try:
        with suppress(Crash):
            live(world, act, skip=skip, stop=stop)
        entries = world.fs.pending()
        world.close()
        if kept is not None:
            world.fs.power_loss(keep=lambda entry: os.path.basename(entry) in kept, torn=torn)
        look(world, act)
        return entries
    finally:
        world.close()
        world.fs.close()
        shutil.rmtree(path)


def live(world: World, act: Act, *, skip: str, stop: int | None) -> None:
    """Live an act in the world."""
    _, service = world.start(PosixFs())
    act.before(world, service)
    world.close()
    world.fs = CrashFs(os.path.join(world.path, "graveyard"))
    _, service = world.start(world.fs)
    world.fs._skip = skip
    world.fs.stop_at(stop)
    act.live(world, service)


def look(world: World, act: Act) -> None:
    """Check on the bare disk and rows, start again, and check everything that was ever promised."""
    act.bare(world)
    rows = {name: (size, lock) for name, size, lock in _rows(world, "SELECT name, size, lock_until_ns FROM objects")}
    for signed in world.receipts:
        receipt = decode(Receipt, body_of(signed))
        assert receipt.name in rows, "a receipt was given and its row is gone"
        assert rows[receipt.name] == (receipt.size, receipt.lock_until_ns)
    world.life = 100
    _, service = world.start(PosixFs())
    session = world.session(service)
    for signed in world.receipts:
        receipt = decode(Receipt, body_of(signed))
        assert name_of(session.get(ObjectName(receipt.name))) == receipt.name
    listed = session.inventory(InventoryRequest(after=b"", limit=100))
    assert listed.missing == b"", "a row without its object"
    names = [listed.names[at : at + 32] for at in range(0, len(listed.names), 32)]
    whole = [name for name in names if name != name_of(SECOND) or not act.rotten]
    assert set(session.check(CheckRequest(names=b"".join(whole))).states) == {"good"}, "a torn object was listed"
    assert {name_of(FIRST), name_of(KEYBAG)} <= set(names)
    assert os.listdir(world.house.objects(world.tenant, "incoming")) == [], "a leftover survived the start"
    act.after(world, service)
    world.receipts.append(put(session, SECOND))
    assert session.get(name_of(SECOND)) == SECOND
    [(used,)] = _rows(world, "SELECT sum(bytes) FROM usage")
    [(sizes,)] = _rows(world, "SELECT sum(size) FROM objects")
    assert used == sizes, "the quota counts other bytes than there are"


def copy(template: str, path: str) -> World:
    """Copy the template and make its home point to the copy of the data."""
    shutil.copytree(template, path)
    file = os.path.join(path, "home", "provider", "home.json")
    with open(file, "rb") as source:
        settings = msgspec.json.decode(source.read())
    settings["data"] = os.path.join(path, "data")
    with open(file, "wb") as target:
        target.write(msgspec.json.encode(settings))
    return World(path)


def _rows(world: World, statement: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(os.path.join(world.path, "home", "provider", "provider.db"))
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()
