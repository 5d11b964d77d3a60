"""Many tenants on one host: each makes the keys at home, and the host has a node's home of each and no more."""

import asyncio
import os
from dataclasses import dataclass
from hashlib import blake2b

import pytest

from replicator.crypto import passphrase
from replicator.engine.home import has_half
from replicator.engine.members import accept_grant, add_node, request_node
from replicator.engine.node import NodeHome
from replicator.engine.status import status
from replicator.engine.tenant import create_tenant
from replicator.engine.turns import Came, Memory, Outcome, Pass
from replicator.errors import ReplicatorError
from replicator.format.policy import Policy
from replicator.fs import PosixFs
from tests.scenarios.conftest import Worlds
from tests.scenarios.world import PASSPHRASE, World, read, small_tree, write

ONE = Policy(
    copies=1, minimum=1, coding=None, spread=["owner"], residency=["EEA"], count_own=False, stale_after_s=30 * 86400
)


@pytest.fixture(autouse=True)
def _quick_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tenant has a passphrase to be stretched for three keys: what that is worth is tried elsewhere."""

    def quick(text: str, salt: bytes, *_: object) -> bytes:
        return blake2b(text.encode(), key=salt, digest_size=32).digest()

    monkeypatch.setattr(passphrase, "_stretch", quick)


class Still:
    """The clock of a pass: as the world's, and whoever waits on it waits for something else to happen."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now_ns(self) -> int:
        return self._world.clock.now_ns()

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, _seconds: float) -> None:
        await asyncio.Event().wait()


@dataclass
class Host:
    """A machine with a node's home for each of its tenants, whose keepers are laptops elsewhere."""

    world: World

    @property
    def homes(self) -> str:
        return os.path.join(self.world.root, "homes")

    def home(self, name: str) -> str:
        return os.path.join(self.homes, name)

    def laptop(self, name: str) -> str:
        return os.path.join(self.world.root, "laptops", name)

    def data(self, name: str) -> str:
        return os.path.join(self.world.root, "data", name)

    async def take_in(self, name: str) -> None:
        """Do what docs/guide/hosted.md says: keys and providers on the laptop, request and grant, data on the host."""
        world = self.world
        create_tenant(self.laptop(name), world.edge, name=name, country="SE", passphrase=PASSPHRASE, keeper_only=True)
        keeper = world.keeper(self.laptop(name))
        try:
            for provider in world.opened:
                await world.add_peer_by(keeper, provider, quota=10**8)
            code = request_node(self.home(name), world.edge, name=f"{name}-hosted", role="node")
            added = await add_node(keeper, [], world.edge, code)
        finally:
            keeper.close()
        accept_grant(self.home(name), world.edge, added.code, _nobody)
        world.add_dataset("files", small_tree(self.data(name), name), home=self.home(name), policy=ONE)

    def make_pass(self, names: list[str], lanes: int = 2) -> Pass:
        """Return a pass whose runs are backups of this program, in this process."""

        def launch(name: str) -> "InProcess":
            return InProcess(self.world, self.home(name))

        return Pass(
            names=names,
            launch=launch,
            clock=Still(self.world),
            memory=Memory(PosixFs(), self.homes),
            lanes=lanes,
            slice_s=1.0,
            limit_s=1.0,
        )


def _nobody(_what: str) -> str:
    raise AssertionError("a node's home never asks for a passphrase")


class InProcess:
    """A backup of one home."""

    def __init__(self, world: World, home: str) -> None:
        self._world = world
        self._home = home

    async def wait(self) -> Came:
        await asyncio.sleep(0)
        try:
            report = await self._world.backup(home=self._home)
        except ReplicatorError as error:
            return Came(code=1, said=(error.message,))
        good = all(one.published and one.error is None for one in report.datasets)
        return Came(code=0 if good else 3)

    def stop(self) -> None:
        raise AssertionError("there is time enough")


async def all_run(host: Host, names: list[str]) -> dict[str, Outcome]:
    os.makedirs(host.homes, exist_ok=True)
    for name in names:
        await host.take_in(name)
    return {one.id: one for one in await host.make_pass(names).go()}


async def restored(host: Host, name: str) -> list[str]:
    return await host.world.differences(host.data(name), home=host.laptop(name))


async def test_the_host_gets_a_write_key_and_the_laptop_alone_reads(worlds: Worlds) -> None:
    host = Host(worlds(1))
    outcomes = await all_run(host, ["anna", "bo"])
    assert {name: one.came for name, one in outcomes.items()} == {"anna": Came(code=0), "bo": Came(code=0)}
    for name in ("anna", "bo"):
        assert has_half(host.home(name), "node")
        assert not any(has_half(host.home(name), role) for role in ("keeper", "drill", "maintainer"))
        held = [file for _, _, files in os.walk(host.home(name)) for file in files]
        assert not any(file.endswith(".key") for file in held), "no owner, maintenance or restore key, wrapped or not"
        assert await restored(host, name) == []
    anna, bo = (NodeHome(host.home(name), PosixFs()) for name in ("anna", "bo"))
    try:
        assert anna.tenant != bo.tenant
        assert {row.name for row in anna.catalog.objects.all()}.isdisjoint(
            row.name for row in bo.catalog.objects.all()
        ), "two tenants share nothing, also on one host"
    finally:
        anna.close()
        bo.close()


async def test_a_tenant_whose_home_is_damaged_stops_no_other_and_comes_first_when_it_is_mended(worlds: Worlds) -> None:
    host = Host(worlds(1))
    os.makedirs(host.homes)
    names = ["anna", "bo", "cecilia"]
    for name in names:
        await host.take_in(name)
    charter = os.path.join(host.home("bo"), "node", "charter.obj")
    whole = read(charter)
    write(charter, b"rot" + whole[3:])
    outcomes = {one.id: one for one in await host.make_pass(names).go()}
    assert {name: one.came.code if one.came else None for name, one in outcomes.items()} == {
        "anna": 0,
        "bo": 1,
        "cecilia": 0,
    }
    write(charter, whole)
    again = {one.id: one for one in await host.make_pass(names, lanes=1).go()}
    assert again["bo"].came == Came(code=0)
    assert await restored(host, "bo") == []


async def tenants_on_one_node(world: World, count: int) -> None:
    host = Host(world)
    names = [f"tenant-{number:03}" for number in range(count)]
    outcomes = await all_run(host, names)
    assert [one.state for one in outcomes.values()] == ["ended"] * count
    assert {one.came for one in outcomes.values()} == {Came(code=0)}
    for name in names:
        node = NodeHome(host.home(name), PosixFs())
        try:
            found = await status(node, world.edge, offline=True)
        finally:
            node.close()
        assert [one.state for one in found.datasets] == ["safe"], name
    assert await restored(host, names[-1]) == []


async def test_twenty_tenants_on_one_node(worlds: Worlds) -> None:
    await tenants_on_one_node(worlds(1), 20)


@pytest.mark.slow
async def test_two_hundred_tenants_on_one_node(worlds: Worlds) -> None:
    await tenants_on_one_node(worlds(1), 200)
