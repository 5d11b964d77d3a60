"""A federation in one process: providers on real folders, a memory network, a clock that stands still."""

import os
from dataclasses import dataclass, field

from replicator.catalog.snapshots import Dataset
from replicator.engine.backup import BackupReport, backup
from replicator.engine.browse import Library
from replicator.engine.edge import Edge, NoProgress
from replicator.engine.federation import Federation
from replicator.engine.keeper import KeeperHome
from replicator.engine.members import add_peer
from replicator.engine.node import NodeHome
from replicator.engine.restore import RestoreReport, restore
from replicator.engine.tenant import NewTenant, create_tenant
from replicator.fs import Fs, PosixFs
from replicator.format.policy import Policy
from replicator.ids import Identity
from replicator.provider.home import Provider, Terms, init_provider, open_provider
from replicator.transport.memory import MemoryNetwork
from tests.fakes import FakeClock, SeededRng

PASSPHRASE = "correct horse battery"
PLACES = (
    ("alice", "cellar", "umea", "SE"),
    ("bob", "loft", "skane", "SE"),
    ("carol", "shed", "oslo", "NO"),
    ("dave", "office", "helsinki", "FI"),
    ("erin", "barn", "jutland", "DK"),
    ("frank", "garage", "bremen", "DE"),
    ("grace", "tower", "tallinn", "EE"),
)


@dataclass
class World:
    """Five providers by default, and one tenant's keeper and node in homes of their own."""

    root: str
    providers: int = 5
    keeper_only: bool = False
    clock: FakeClock = field(default_factory=FakeClock)
    network: MemoryNetwork = field(default_factory=MemoryNetwork)
    fs: Fs = field(default_factory=PosixFs)
    opened: list[Provider] = field(default_factory=list)
    tenant: NewTenant | None = None

    def __post_init__(self) -> None:
        self.rng = SeededRng(1)
        self.edge = Edge(
            fs=self.fs, clock=self.clock, rng=self.rng, network=self.network, progress=NoProgress(), host="testhost"
        )
        self.home = os.path.join(self.root, "home")
        for number in range(self.providers):
            self.start_provider(number)

    def start_provider(self, number: int, capacity: int = 10**10) -> Provider:
        """Make a provider, or open it again, and put it on the network."""
        owner, site, region, country = PLACES[number]
        home = os.path.join(self.root, f"provider-{number}")
        os.makedirs(home, exist_ok=True)
        if os.path.exists(os.path.join(home, "provider", "home.json")):
            provider = open_provider(home, fs=PosixFs(), clock=self.clock, rng=self.rng)
        else:
            provider = init_provider(
                home,
                data=os.path.join(home, "data"),
                terms=Terms(
                    capacity=capacity,
                    owner=owner,
                    site=site,
                    region=region,
                    country=country,
                    listen=f"{owner}.example:7144",
                    advertise=(),
                    lock_s=30 * 86400,
                    grace_s=14 * 86400,
                ),
                fs=PosixFs(),
                clock=self.clock,
                rng=self.rng,
            )
        service = provider.start()
        self.network.add(service)
        self.opened[number:] = [provider]
        return provider

    def identity(self, number: int) -> Identity:
        """A provider's identity."""
        return self.opened[number].key.identity

    async def found(self, *, quota: int = 10**9, keeper_only: bool = False) -> None:
        """Make the tenant and add every provider as its peer."""
        self.tenant = create_tenant(
            self.home,
            self.edge,
            name="björkby",
            country="SE",
            passphrase=PASSPHRASE,
            keeper_only=keeper_only,
        )
        for provider in self.opened:
            await self.add_peer(provider, quota=quota)

    async def add_peer(self, provider: Provider, *, quota: int = 10**9, own: bool = False) -> None:
        """Let the tenant use an invite of this provider."""
        keeper = self.keeper()
        siblings = [self.node()] if not self.keeper_only else []
        try:
            code = provider.invite(quota=quota, label="test")
            await add_peer(keeper, list(siblings), self.edge, code, name=None, own=own)
        finally:
            keeper.close()
            for half in siblings:
                half.close()

    def keeper(self, home: str | None = None) -> KeeperHome:
        """Open the keeper's half."""
        return KeeperHome(home or self.home, self.fs, lambda _: PASSPHRASE)

    def node(self, home: str | None = None) -> NodeHome:
        """Open the node's half."""
        return NodeHome(home or self.home, self.fs)

    def add_dataset(self, name: str, *roots: str, policy: Policy | None = None) -> None:
        """Add a dataset to the node."""
        node = self.node()
        node.catalog.datasets.add(
            Dataset(
                name=name,
                roots=tuple(os.fsencode(root) for root in roots),
                policy=policy or PROMISE,
                exclude=(),
                one_file_system=False,
                created_ns=self.clock.now_ns(),
            )
        )
        node.close()

    async def backup(self, *names: str, overlap: bool = False) -> BackupReport:
        """Run a backup on the node."""
        node = self.node()
        try:
            return await backup(node, self.edge, names, overlap=overlap)
        finally:
            node.close()

    async def restore(self, target: str, snapshot: str = "latest", home: str | None = None) -> RestoreReport:
        """Restore a snapshot with the keeper."""
        keeper = self.keeper(home)
        try:
            async with Federation(keeper, self.edge, ticket=keeper.lazy_ticket) as federation:
                library = Library(keeper, federation)
                await library.refresh()
                found = await library.find(snapshot)
                return await restore(library, self.edge, found, target, privileged=os.geteuid() == 0)
        finally:
            keeper.close()


PROMISE = Policy(
    copies=3,
    minimum=2,
    coding=None,
    spread=["owner", "region"],
    residency=["EEA"],
    count_own=False,
    stale_after_s=30 * 86400,
)
