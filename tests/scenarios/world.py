"""A federation in one process: providers on real folders, a memory network, a clock that stands still."""

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from replicator.catalog.snapshots import Dataset
from replicator.engine.backup import BackupReport, backup
from replicator.engine.browse import Library, OpenSnapshot
from replicator.engine.commands import PipedCommand
from replicator.engine.edge import Edge, NoProgress
from replicator.engine.federation import Federation
from replicator.engine.handing import name_of_key
from replicator.engine.home import Half
from replicator.engine.keeper import KeeperHome
from replicator.engine.members import add_peer
from replicator.engine.node import NodeHome
from replicator.engine.printed import addresses_of, remember_printed
from replicator.engine.repair import RepairReport, repair
from replicator.engine.restore import RestoreReport, restore
from replicator.engine.status import Status, status
from replicator.engine.tenant import NewTenant, create_tenant
from replicator.engine.verify import VerifyReport, verify_sealed
from replicator.format.policy import Policy
from replicator.fs import Fs, PosixFs
from replicator.ids import Identity
from replicator.provider.home import Provider, Terms, init_provider, open_provider
from replicator.snapshot.plan import Overwrite
from replicator.snapshot.walk import Source
from replicator.transport.handler import Service
from replicator.transport.memory import MemoryNetwork
from tests.compare import Rules, compare
from tests.fakes import NS, FakeClock, SeededRng

PASSPHRASE = "correct horse battery"
LATER_NS = 2_208_988_800 * NS
"""2040-01-01, after every file that a test makes: a file as young as its backup is read again by the next one."""
PLACES = (
    ("alice", "cellar", "umea", "SE"),
    ("bob", "loft", "skane", "SE"),
    ("carol", "shed", "oslo", "NO"),
    ("dave", "office", "helsinki", "FI"),
    ("erin", "barn", "jutland", "DK"),
    ("frank", "garage", "bremen", "DE"),
    ("grace", "tower", "tallinn", "EE"),
    ("heidi", "barge", "utrecht", "NL"),
)
PROMISE = Policy(
    copies=3,
    minimum=2,
    coding=None,
    spread=["owner", "region"],
    residency=["EEA"],
    count_own=False,
    stale_after_s=30 * 86400,
)
TOO_MUCH = msgspec.structs.replace(PROMISE, copies=7, minimum=6)
"""More than five providers can keep."""


@dataclass
class World:
    """Five providers by default, and one tenant's keeper and node."""

    root: str
    providers: int = 5
    keeper_only: bool = False
    clock: FakeClock = field(default_factory=lambda: FakeClock(LATER_NS))
    network: MemoryNetwork = field(default_factory=MemoryNetwork)
    fs: Fs = field(default_factory=PosixFs)
    opened: list[Provider] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)
    tenant: NewTenant | None = None
    seed: str = "1"

    def __post_init__(self) -> None:
        self.rng = SeededRng(self.seed)
        self.edge = Edge(
            fs=self.fs, clock=self.clock, rng=self.rng, network=self.network, progress=NoProgress(), host="testhost"
        )
        self.home = os.path.join(self.root, "home")
        for number in range(self.providers):
            self.start_provider(number)

    def copy(self, root: str, seed: str = "copy") -> "World":
        """Copy everything on disk, whose providers are stopped, to a new folder and start it there."""
        shutil.copytree(self.root, root, copy_function=copy_or_link)
        for number in range(self.providers):
            home = os.path.join(root, f"provider-{number}")
            move_data(home, os.path.join(home, "data"))
        return World(
            root,
            providers=self.providers,
            keeper_only=self.keeper_only,
            clock=FakeClock(self.clock.now_ns()),
            tenant=self.tenant,
            seed=seed,
        )

    def close(self) -> None:
        """Stop all providers in good order and close their databases."""
        for number in range(len(self.opened)):
            self.stop_provider(number)

    # providers

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
        service = provider.start(self.network, lambda work: work())
        self.network.add(service)
        self.opened[number : number + 1] = [provider]
        self.services[number : number + 1] = [service]
        self.providers = max(self.providers, number + 1)
        return provider

    def stop_provider(self, number: int) -> None:
        """Stop a provider in good order."""
        self.silence(number)
        self.services[number].stop()  # type: ignore[attr-defined] # what the daemon does; no part of the transport's face
        self.opened[number].close()

    def kill_provider(self, number: int) -> None:
        """End a provider as a crash does."""
        self.silence(number)
        self.opened[number].close()

    def silence(self, *numbers: int) -> None:
        """Let providers not answer any more."""
        for number in numbers:
            self.network.remove(self.identity(number))

    def answer(self, *numbers: int) -> None:
        """Let providers answer again."""
        for number in numbers:
            self.network.add(self.services[number])

    def identity(self, number: int) -> Identity:
        """A provider's identity."""
        return self.opened[number].key.identity

    def data(self, number: int) -> str:
        """The folder that a provider keeps everything of its tenants in."""
        return os.path.join(self.root, f"provider-{number}", "data")

    def objects(self, number: int) -> str:
        """The folder that a provider keeps the tenant's objects in."""
        return os.path.join(self.data(number), self.tenant_id.hex(), "objects")

    @property
    def tenant_id(self) -> bytes:
        """The tenant's id."""
        assert self.tenant is not None, "it was founded"
        return self.tenant.tenant

    def used(self, number: int) -> int:
        """Bytes of all objects at a provider."""
        return sum(entry.stat().st_size for entry in os.scandir(self.objects(number)))

    def stored(self, number: int, kinds: Iterable[str] = ("data", "tree")) -> list[str]:
        """Paths of the objects of some kinds at a provider, by name."""
        node = self.node()
        try:
            names = {row.name.hex() for row in node.catalog.objects.all() if row.kind in set(kinds)}
        finally:
            node.close()
        return [
            os.path.join(self.objects(number), name)
            for name in sorted(os.listdir(self.objects(number)))
            if name in names
        ]

    # the tenant

    async def found(self, *, quota: int = 10**9) -> None:
        """Make the tenant and add every provider as its peer."""
        self.tenant = create_tenant(
            self.home,
            self.edge,
            name="björkby",
            country="SE",
            passphrase=PASSPHRASE,
            keeper_only=self.keeper_only,
        )
        for provider in self.opened:
            await self.add_peer(provider, quota=quota)
        keeper = self.keeper()
        remember_printed(keeper, addresses_of(keeper), self.clock.now_ns())
        keeper.close()

    async def add_peer(self, provider: Provider, *, quota: int = 10**9, own: bool = False) -> None:
        """Let the tenant use an invite of this provider."""
        keeper = self.keeper()
        siblings: list[Half] = [self.node()] if not self.keeper_only else []
        try:
            await self.add_peer_by(keeper, provider, siblings, quota=quota, own=own)
        finally:
            for half in (keeper, *siblings):
                half.close()

    async def add_peer_by(
        self,
        keeper: KeeperHome,
        provider: Provider,
        siblings: Sequence[Half] = (),
        *,
        quota: int = 10**9,
        own: bool = False,
    ) -> None:
        """Let a keeper's home use an invite of this provider."""
        code = provider.invite(quota=quota, label="test")
        await add_peer(keeper, list(siblings), self.edge, code, name=None, own=own)

    def keeper(self, home: str | None = None, passphrase: str = PASSPHRASE) -> KeeperHome:
        """Open the keeper's half."""
        return KeeperHome(home or self.home, PosixFs(), lambda _: passphrase)

    def node(self, home: str | None = None, fs: Fs | None = None) -> NodeHome:
        """Open the node's half."""
        return NodeHome(home or self.home, fs or self.fs)

    def node_name(self) -> str:
        """What people call the node."""
        node = self.node()
        try:
            return name_of_key(node.private, node.identity)
        finally:
            node.close()

    def add_dataset(self, name: str, *roots: str, policy: Policy = PROMISE, home: str | None = None) -> None:
        """Add a dataset to the node."""
        node = self.node(home)
        try:
            node.catalog.datasets.add(
                Dataset(
                    name=name,
                    roots=tuple(os.fsencode(root) for root in roots),
                    policy=policy,
                    exclude=(),
                    one_file_system=False,
                    created_ns=self.clock.now_ns(),
                )
            )
        finally:
            node.close()

    def small_dataset(self, name: str = "docs", policy: Policy = PROMISE) -> str:
        """Make a small folder and a dataset of it; return its path."""
        path = small_tree(os.path.join(self.root, "source", name), name)
        self.add_dataset(name, path, policy=policy)
        return path

    def set_policy(self, name: str, policy: Policy) -> None:
        """Change a dataset's policy."""
        node = self.node()
        try:
            node.catalog.datasets.update(dataclasses.replace(node.catalog.datasets.get(name), policy=policy))
        finally:
            node.close()

    # what it does

    async def backup(
        self,
        *names: str,
        tags: Iterable[str] = (),
        home: str | None = None,
        overlap: bool = False,
        source: Source | None = None,
        spool_limit: int | None = None,
        readers: int = 0,
        command: PipedCommand | None = None,
    ) -> BackupReport:
        """Run a backup on the node, a minute later."""
        self.clock.advance(60)
        node = self.node(home)
        try:
            return await backup(
                *(node, self.edge, names),
                tags=list(tags),
                source=source,
                command=command,
                spool_limit=spool_limit,
                overlap=overlap,
                readers=readers,
            )
        finally:
            node.close()

    async def status(self, home: str | None = None, *, keeper: bool = False, offline: bool = False) -> Status:
        """Ask the node, or the keeper, how things stand."""
        half: Half = self.keeper(home) if keeper else self.node(home)
        try:
            return await status(half, self.edge, offline=offline)
        finally:
            half.close()

    async def repair(self, home: str | None = None, *, keeper: bool = False, by_hand: bool = True) -> RepairReport:
        """Repair from the node, or the keeper."""
        half: Half = self.keeper(home) if keeper else self.node(home)
        try:
            return await repair(half, self.edge, by_hand=by_hand)
        finally:
            half.close()

    async def verify(self, home: str | None = None, *, share: float = 1.0) -> VerifyReport:
        """Make the sealed check on the node."""
        node = self.node(home)
        try:
            async with Federation(node, self.edge) as federation:
                return await verify_sealed(node, federation, self.edge, share=share)
        finally:
            node.close()

    async def snapshots(self, home: str | None = None) -> list[OpenSnapshot]:
        """Return the snapshots that the keeper sees, oldest first."""
        keeper = self.keeper(home)
        try:
            async with Federation(keeper, self.edge, ticket=lambda _: keeper.ticket()) as federation:
                library = Library(keeper, federation)
                await library.refresh()
                return await library.snapshots()
        finally:
            keeper.close()

    async def restore(
        self,
        target: str,
        snapshot: str = "latest",
        home: str | None = None,
        *,
        overwrite: Overwrite = "never",
        delete: bool = False,
        dry_run: bool = False,
        writers: int = 0,
    ) -> RestoreReport:
        """Restore a snapshot with the keeper."""
        keeper = self.keeper(home)
        try:
            async with Federation(keeper, self.edge, ticket=lambda _: keeper.ticket()) as federation:
                library = Library(keeper, federation)
                await library.refresh()
                found = await library.find(snapshot)
                return await restore(
                    library,
                    self.edge,
                    found,
                    target,
                    overwrite=overwrite,
                    delete=delete,
                    privileged=os.geteuid() == 0,
                    dry_run=dry_run,
                    writers=writers,
                )
        finally:
            keeper.close()

    async def differences(self, source: str, snapshot: str = "latest", home: str | None = None) -> list[str]:
        """Restore a snapshot of one root folder and say how that differs from the folder as it is now."""
        target = os.path.join(self.root, f"restored-{self.rng.bytes(4).hex()}")
        report = await self.restore(target, snapshot, home)
        found = [*report.lost, *report.damaged, *(f"{path}: {reason}" for path, reason in report.gaps)]
        found += compare(source, os.path.join(target, os.path.basename(source)), Rules(owners=os.geteuid() == 0))
        shutil.rmtree(target)
        return found


def move_data(home: str, data: str) -> None:
    """Tell a provider's home that was copied where its data lies now."""
    path = os.path.join(home, "provider", "home.json")
    with open(path, encoding="utf-8") as file:
        settings = json.load(file)
    settings["data"] = data
    with open(path, "w", encoding="utf-8") as file:
        json.dump(settings, file)


def copy_or_link(source: str, target: str) -> None:
    """Copy a file of a world; a large one that nothing changes has one copy."""
    # A provider's ballast is 16 MiB that nothing changes.
    if os.path.basename(source) == "ballast":
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def write(path: str, data: bytes) -> None:
    """Write a file, and make the folders above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def read(path: str) -> bytes:
    """Return a file's bytes."""
    with open(path, "rb") as file:
        return file.read()


def small_tree(path: str, seed: str = "tree") -> str:
    """Make a folder with a few files, one of them of several chunks; return its path."""
    rng = SeededRng(seed)
    write(os.path.join(path, "letter.txt"), b"Dear reader,\n" * 300)
    write(os.path.join(path, "photos", "one.raw"), rng.bytes(400_000))
    write(os.path.join(path, "photos", "two.raw"), rng.bytes(20_000))
    write(os.path.join(path, "empty"), b"")
    os.symlink("letter.txt", os.path.join(path, "link"))
    return path
