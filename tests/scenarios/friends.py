"""People who begin with nothing: each has a home with a tenant, a provider or both, on one network in memory."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from replicator.crypto.passphrase import DEFAULT_COST, Cost, Wrapped, wrap
from replicator.engine import keeper
from replicator.engine.edge import Edge, NoProgress
from replicator.engine.home import Half
from replicator.engine.joining import Accepted, Here, accept, candidates, invite, join
from replicator.engine.keeper import KeeperHome
from replicator.engine.node import NodeHome
from replicator.engine.tenant import create_tenant
from replicator.fs import PosixFs
from replicator.ids import Identity
from replicator.provider.home import Provider, Terms, init_provider, open_provider
from replicator.rng import Rng
from replicator.transport.memory import MemoryNetwork
from tests.fakes import FakeClock, SeededRng
from tests.scenarios.world import LATER_NS, PASSPHRASE, copy_or_link, move_data

GB = 10**9


@dataclass
class Friend:
    """One person's home. ``clock`` is that of all its machines."""

    name: str
    home: str
    edge: Edge
    clock: FakeClock
    tenant: bool
    provider: Provider | None = None
    identity: Identity | None = None

    @contextmanager
    def here(self) -> Iterator[Here]:
        """Open what a command would."""
        halves: list[Half] = []
        home = None
        if self.tenant:
            home = KeeperHome(self.home, PosixFs(), lambda _: PASSPHRASE)
            halves = [home, NodeHome(self.home, PosixFs())]
        try:
            yield Here(edge=self.edge, keeper=home, siblings=halves[1:], provider=self.provider)
        finally:
            for half in halves:
                half.close()

    async def invites(self, label: str = "", valid_s: int = 7 * 86400) -> str:
        """Return a code."""
        with self.here() as here:
            return (await invite(here, label=label, valid_s=valid_s)).code

    async def joins(self, code: str, called: str = "") -> Accepted:
        """Join with a code, and take everybody's provider."""
        with self.here() as here:
            await join(here, code, called=called or self.name)
        return await self.accepts()

    async def accepts(self) -> Accepted:
        """Take everybody's provider."""
        with self.here() as here:
            return await accept(here, candidates(here)) if self.tenant else Accepted(pins=[], failures={}, notices=[])

    def members(self) -> dict[str, str]:
        """Return who is in the group as this home sees it, and how each stands."""
        with self.here() as here:
            known = here.known()
            assert known is not None, f"{self.name} is in a group"
            mine = known.members((here.voice().member,))
        return {one.name: one.state for one in mine}

    def peers(self) -> list[str]:
        """Return the petnames of this tenant's providers."""
        with self.here() as here:
            assert here.keeper is not None, f"{self.name} is a tenant"
            return sorted(pin.name for pin in here.keeper.peers)


@dataclass
class Friends:
    """Everybody, and the network between them."""

    root: str
    templates: str
    """Where homes are kept as they are when they are new: passphrases take their time."""
    network: MemoryNetwork = field(default_factory=MemoryNetwork)
    everybody: dict[str, Friend] = field(default_factory=dict)

    def add(
        self,
        name: str,
        *,
        tenant: bool = True,
        disk: bool = True,
        owner: str = "",
        gives: int = GB,
        country: str = "SE",
    ) -> Friend:
        """Make a person's home, from nothing; ``gives`` is what the provider keeps for each member."""
        clock = FakeClock(LATER_NS)
        home = os.path.join(self.root, name)
        edge = Edge(
            fs=PosixFs(),
            clock=clock,
            rng=SeededRng(name),
            network=self.network,
            progress=NoProgress(),
            host=name,
        )
        terms = None
        if disk:
            terms = Terms(
                capacity=10 * GB,
                owner=owner or name,
                site=f"{owner or name}s house",
                region=f"{name}s town",
                country=country,
                listen=f"{name}.example:7144",
                advertise=(),
                lock_s=30 * 86400,
                grace_s=14 * 86400,
            )
        made = os.path.join(self.templates, f"{name}-{tenant}-{disk}-{owner}-{country}")
        if not os.path.exists(made):
            _make(made, edge, name, tenant=tenant, terms=terms)
        shutil.copytree(made, home, copy_function=copy_or_link)
        friend = Friend(name=name, home=home, edge=edge, clock=clock, tenant=tenant)
        if disk:
            move_data(home, os.path.join(home, "data"))
            self.start(friend)
            assert friend.provider is not None, "it was started"
            friend.provider.set_for_members(gives)
        self.everybody[name] = friend
        return friend

    def start(self, friend: Friend) -> None:
        """Let a person's provider answer."""
        friend.provider = open_provider(friend.home, fs=PosixFs(), clock=friend.clock, rng=friend.edge.rng)
        friend.identity = friend.provider.key.identity
        self.network.add(friend.provider.start(self.network, lambda work: work()))

    def stop(self, friend: Friend) -> None:
        """Let a person's provider fall silent; its home can still be opened."""
        assert friend.identity is not None, "it has a provider"
        self.network.remove(friend.identity)

    def close(self) -> None:
        """Close every provider."""
        for friend in self.everybody.values():
            if friend.provider is not None:
                friend.provider.close()


@dataclass
class _Salted:
    """Gives one salt to all, and then what another would."""

    rng: Rng
    salted: bool = False

    def bytes(self, count: int) -> bytes:
        if self.salted:
            return self.rng.bytes(count)
        self.salted = True
        return bytes(count)

    def below(self, bound: int) -> int:
        return self.rng.below(bound)


def salt_alike(patch: pytest.MonkeyPatch) -> None:
    """Wrap keys with one salt: a passphrase that is stretched once then does for all friends (see conftest.py)."""

    def salted(words: str, secret: bytes, label: bytes, rng: Rng, cost: Cost = DEFAULT_COST) -> Wrapped:
        return wrap(words, secret, label, _Salted(rng), cost)

    patch.setattr(keeper, "wrap", salted)


def _make(home: str, edge: Edge, name: str, *, tenant: bool, terms: Terms | None) -> None:
    os.makedirs(home)
    if tenant:
        with pytest.MonkeyPatch.context() as patch:
            salt_alike(patch)
            create_tenant(home, edge, name=name, country="SE", passphrase=PASSPHRASE, keeper_only=False)
    if terms is not None:
        data = os.path.join(home, "data")
        init_provider(home, data=data, terms=terms, fs=PosixFs(), clock=edge.clock, rng=edge.rng).close()
