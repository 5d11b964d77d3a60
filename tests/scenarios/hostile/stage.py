"""A federation of one provider, a writer that means ill, a keeper that reads, and a neighbour that nobody may touch."""

import dataclasses
import os
import stat
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from replicator.engine.browse import ChunkFetcher, Library, OpenSnapshot
from replicator.engine.diff import diff
from replicator.engine.drill import drill
from replicator.engine.federation import Federation
from replicator.engine.inspect import verify_content
from replicator.engine.restore import RestoreReport, restore
from replicator.engine.search import search
from replicator.errors import ReplicatorError
from replicator.format.pack import CHUNK_DATA
from replicator.ids import ObjectName
from replicator.snapshot.chunklist import EMPTY, leaves
from replicator.snapshot.glob import Glob
from replicator.snapshot.plan import PREFIX, Overwrite
from replicator.snapshot.search import Criteria
from replicator.snapshot.tree import TreeReader
from replicator.wire.messages import Signed
from tests.scenarios.hostile.specwriter import Chain, Keys, Night, Writer
from tests.scenarios.world import World
from tests.snapshot.support import open_fds


@dataclass
class Stage:
    """Where one case is played."""

    world: World
    keys: Keys
    privileged: bool
    chain: Chain = field(default_factory=Chain)
    before: list[Any] = field(default_factory=list)

    @property
    def outside(self) -> str:
        """The neighbour of the target."""
        return os.path.join(self.world.root, "outside")

    @property
    def target(self) -> str:
        """Where everything is restored to."""
        return os.path.join(self.world.root, "target")

    def writer(self) -> Writer:
        """Return a writer of the next run."""
        return Writer(self.keys, random=Random(self.chain.number + 1))

    async def publish(self, night: Night, home: str | None = None) -> None:
        """Store what a run left at the providers and let them witness the head, as the node of a home."""
        self.world.clock.advance(60)
        node = self.world.node(home)
        try:
            async with Federation(node, self.world.edge) as federation:
                for link in federation.links.values():
                    for name, data in night.objects.items():
                        await link.connection.put(ObjectName(name), data)
                    await link.connection.call("head", Signed(statement=night.head), Signed)
        finally:
            node.close()

    async def write(self, writer: Writer, tree: list[Any], **details: Any) -> None:
        """Finish a run and publish it."""
        await self.publish(writer.finish(tree, self.chain, self.world.clock.now_ns() + 1, **details))

    @asynccontextmanager
    async def library(self) -> AsyncIterator[Library]:
        """Open what a keeper sees."""
        keeper = self.world.keeper()
        try:
            async with Federation(keeper, self.world.edge, ticket=lambda _: keeper.ticket()) as federation:
                library = Library(keeper, federation)
                await library.refresh()
                yield library
        finally:
            keeper.close()

    async def restore(
        self, library: Library, found: OpenSnapshot, *, overwrite: Overwrite = "never", delete: bool = False
    ) -> RestoreReport:
        """Restore to the target with the rights of the case."""
        return await restore(
            library,
            self.world.edge,
            found,
            self.target,
            overwrite=overwrite,
            delete=delete,
            privileged=self.privileged,
        )

    async def look(self, library: Library, found: OpenSnapshot) -> list[ReplicatorError]:
        """Do everything else that reads a snapshot; return what was raised, which must be errors of the project."""
        raised: list[ReplicatorError] = []
        fetcher = ChunkFetcher(library, found.snapshot.domain)
        scratch = os.path.join(self.world.root, "scratch")
        os.makedirs(scratch, exist_ok=True)

        def walk(reader: TreeReader) -> None:
            for number, (path, _) in enumerate(reader.walk(found.details.tree)):
                if number < 20:
                    reader.lookup(found.details.tree, path)

        def cat(reader: TreeReader) -> None:
            for _, entry in reader.walk(found.details.tree, lost=lambda *_: None):
                if entry.content is not None and entry.kind == "file":
                    for ref in leaves(entry.content, fetcher):
                        fetcher.get(CHUNK_DATA, ref)

        nothing = dataclasses.replace(found, details=msgspec.structs.replace(found.details, tree=EMPTY))
        everything = Criteria(pattern=Glob.parse("*"))
        for action in (
            lambda: fetcher.in_thread(walk),
            lambda: fetcher.in_thread(cat),
            lambda: search(library, self.world.edge, [found], everything),
            lambda: diff(library, nothing, found, "", lambda _: None),
            lambda: verify_content(library, self.world.edge, share=1.0),
            lambda: drill(library, self.world.edge, found, scratch=scratch),
        ):
            try:
                await action()
            except ReplicatorError as error:
                raised.append(error)
        assert os.listdir(scratch) == []
        return raised

    # the oracle

    def begin(self) -> None:
        """Make the neighbour and take note of it."""
        os.makedirs(os.path.join(self.outside, "folder"))
        for name in ("secret", "folder/file"):
            with open(os.path.join(self.outside, name), "wb") as file:
                file.write(name.encode())
        os.symlink("secret", os.path.join(self.outside, "link"))
        os.mkfifo(os.path.join(self.outside, "fifo"))
        os.mkdir(self.target, 0o755)
        for name in ("folder/file", "folder", "secret", ""):
            os.utime(os.path.join(self.outside, name), ns=(5, 5))
        self.before = [open_fds(), *self._state()]

    def check(self) -> None:
        """Nothing outside was touched; no descriptor and no unfinished file is left; nothing new can do harm."""
        assert [open_fds(), *self._state()] == self.before
        for folder, folders, files in os.walk(self.target):
            for name in (*folders, *files):
                assert not os.fsencode(name).startswith(PREFIX), f"{name} is unfinished"
                status = os.lstat(os.path.join(folder, name))
                if not self.privileged:
                    assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID), f"{name} has another's rights"
                    assert not stat.S_ISCHR(status.st_mode), f"{name} is a device"
                    assert not stat.S_ISBLK(status.st_mode), f"{name} is a device"
                    attributes = os.listxattr(os.path.join(folder, name), follow_symlinks=False)
                    guarded = [one for one in attributes if one.startswith(("security.", "trusted."))]
                    assert guarded == [], f"{name} has {guarded}"
                if stat.S_ISDIR(status.st_mode):
                    os.chmod(os.path.join(folder, name), stat.S_IRWXU)  # to be looked into next, whatever its mode was

    def _state(self) -> Iterable[Any]:
        for folder, folders, files in sorted(os.walk(self.outside)):
            for name in sorted(["", *folders, *files]):
                path = os.path.join(folder, name)
                status = os.lstat(path)
                content = b""
                if stat.S_ISREG(status.st_mode):
                    with open(path, "rb") as file:
                        content = file.read()
                numbers = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_mtime_ns)
                yield path, numbers, status.st_ino, content, os.listxattr(path, follow_symlinks=False)
        # The world's own folder has what it had: nothing was made beside the target.
        yield [name for name in sorted(os.listdir(self.world.root)) if name not in {"target", "scratch", "provider-0"}]


def keys_of(world: World, home: str | None = None) -> Keys:
    """Return the keys of the world's node, or of another one, as raw bytes."""
    node = world.node(home)
    try:
        found = node.keys()
        return Keys(
            tenant=found.tenant,
            domain=found.domain,
            restore_key=found.restore_key,
            mix=found.mix,
            id_key=found.id_key,
            index_key=found.index_keys[found.epoch],
            epoch=found.epoch,
            seed=node.signing.seed(),
        )
    finally:
        node.close()
