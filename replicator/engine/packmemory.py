"""Chunks for whoever reads here and there for a long time: a bounded memory, read-ahead, trouble that may pass.

What is in memory at most, with the default limits:

=====================  ==========================================================================
opened packs           6 of 16 MiB
packs on their way     4, each in its pieces and joined: 128 MiB
chunks                 64 MiB of plaintext, each of at most 4 MiB
=====================  ==========================================================================

Nothing of this is ever written to a disk.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from threading import Lock
from typing import Final

from replicator.clock import Clock
from replicator.engine.browse import ChunkFetcher
from replicator.errors import FormatError, IntegrityError, NotFoundError, ReplicatorError
from replicator.format.pack import CHUNK_DATA, CHUNK_LIST
from replicator.format.snapshot import ChunkRef
from replicator.lru import Lru
from replicator.pack.reader import PackReader, check_length

CHUNK_BYTES: Final = 64 << 20
PACKS: Final = 6
AT_ONCE: Final = 4
"""Packs that are fetched at the same time, each from another provider as far as there are any."""
AHEAD: Final = 3
"""Of these, and of the packs in memory that nobody has read yet, those that are fetched ahead of their reader."""
RETRY_S: Final = 30.0
"""How long a pack that could not be had is not asked for again: who reads on would have it fetched for each read."""
_FAILED: Final = 4096
_STRIPES: Final = 64

Redial = Callable[[], Awaitable[bool]]
"""Tries to reach providers that did not answer; returns whether one does now."""


class StoppedError(ReplicatorError):
    """The memory was closed while somebody waited for a chunk."""


class PackMemory:
    """The packs and chunks of one process, of any number of domains. Made, and closed, on the loop.

    ``redial`` is awaited when nobody has a pack; ``settled`` is called on the loop after each fetch.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        redial: Redial,
        settled: Callable[[], None] = lambda: None,
        chunk_bytes: int = CHUNK_BYTES,
        packs: int = PACKS,
    ) -> None:
        self._clock = clock
        self._redial = redial
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._packs: Lru[int, PackReader] = Lru(packs)
        self._loading: dict[int, asyncio.Future[PackReader]] = {}
        self._unread: set[int] = set()
        self._failed: Lru[int, tuple[float, ReplicatorError]] = Lru(_FAILED)
        self._chunks: Lru[tuple[int, bytes], bytes] = Lru(chunk_bytes)
        self._stripes = [Lock() for _ in range(_STRIPES)]
        self._is_closed = False

    async def close(self) -> None:
        """Let everybody who waits for a pack, now or later, get StoppedError instead."""
        self._is_closed = True
        loads = list(self._loading.values())
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)

    def chunk(self, fetcher: ChunkFetcher, pack: int, kind: int, chunk: bytes) -> bytes:
        """Return a chunk that a pack holds; called from a worker thread only.

        Raises:
            NotFoundError, IntegrityError, FormatError: it cannot be had from this pack, now.
            StoppedError: the memory was closed.
        """
        key = kind, chunk
        data = self._chunks.get(key)
        if data is not None:
            return data
        reader = self._reader(fetcher, pack)
        # Several reads of one chunk come at the same time: it is opened once.
        with self._stripes[hash(key) % _STRIPES]:
            data = self._chunks.get(key)
            if data is None:
                data = reader.chunk(kind, chunk)
                self._chunks.put(key, data, len(data))
        return data

    def kept(self, kind: int, chunk: bytes) -> bytes | None:
        """Return a chunk if it is in memory."""
        return self._chunks.get((kind, chunk))

    def ahead(self, fetcher: ChunkFetcher, packs: Iterable[int]) -> None:
        """Begin to fetch packs that will be needed soon, in this order, as far as there is room; from any thread."""
        wanted = list(packs)
        if wanted and not self._is_closed:
            self._loop.call_soon_threadsafe(self._begin, fetcher, wanted)

    def _begin(self, fetcher: ChunkFetcher, packs: Iterable[int]) -> None:
        # What fell out of memory unread, as its reader went away, is not waited for any more.
        # To look whether it is there is no use of it; and readers on other threads take from the set meanwhile.
        self._unread -= {pack for pack in list(self._unread) if pack not in self._loading and pack not in self._packs}
        for pack in packs:
            if self._is_closed or len(self._unread) >= AHEAD:
                return
            if pack not in self._packs and pack not in self._loading and self._problem(pack) is None:
                self._unread.add(pack)
                self._load(fetcher, pack)

    def _reader(self, fetcher: ChunkFetcher, pack: int) -> PackReader:
        self._unread.discard(pack)
        reader = self._packs.get(pack)
        if reader is not None:
            return reader
        if self._is_closed:
            raise StoppedError("stopped")
        try:
            return asyncio.run_coroutine_threadsafe(self._loaded(fetcher, pack), self._loop).result()
        except CancelledError:
            raise StoppedError("stopped") from None

    async def _loaded(self, fetcher: ChunkFetcher, pack: int) -> PackReader:
        reader = self._packs.get(pack)
        if reader is not None:
            return reader
        problem = self._problem(pack)
        if problem is not None:
            raise problem
        if self._is_closed:
            raise StoppedError("stopped")
        return await asyncio.shield(self._load(fetcher, pack))

    def _problem(self, pack: int) -> ReplicatorError | None:
        failed = self._failed.get(pack)
        return failed[1] if failed is not None and self._clock.monotonic() < failed[0] else None

    def _load(self, fetcher: ChunkFetcher, pack: int) -> "asyncio.Future[PackReader]":
        """Return a load that goes on whoever waits for it; there is one for each pack at a time."""
        load = self._loading.get(pack)
        if load is None:
            load = self._loading[pack] = asyncio.ensure_future(self._open(fetcher, pack))
            load.add_done_callback(lambda done: self._done(pack, done))
        return load

    def _done(self, pack: int, load: "asyncio.Future[PackReader]") -> None:
        del self._loading[pack]
        if not load.cancelled() and load.exception() is None:
            self._packs.put(pack, load.result(), 1)

    async def _open(self, fetcher: ChunkFetcher, pack: int) -> PackReader:
        async with self._gate:
            try:
                try:
                    return await fetcher.open(pack)
                except NotFoundError:
                    if not await self._redial():
                        raise
                    return await fetcher.open(pack)
            except (NotFoundError, IntegrityError, FormatError) as error:
                self._failed.put(pack, (self._clock.monotonic() + RETRY_S, error), 1)
                raise
            finally:
                self._settled()


class Chunks:
    """The chunks of one domain: a :class:`~replicator.snapshot.sink.ChunkSource` for any number of worker threads."""

    def __init__(self, memory: PackMemory, fetcher: ChunkFetcher, told: Callable[[ReplicatorError], None]) -> None:
        self._memory = memory
        self._fetcher = fetcher
        self._told = told

    def get(self, kind: int, ref: ChunkRef) -> bytes:
        """Return a chunk's plaintext, from any pack that holds it whole.

        Raises:
            NotFoundError: no reachable peer has a pack of it.
            IntegrityError, FormatError: no pack holds it as it should.
            StoppedError: the memory was closed.
        """
        data = self._memory.kept(kind, ref.id)
        if data is None:
            data = self._find(kind, ref.id)
        if kind != CHUNK_LIST:  # whose length is that of what it lists
            check_length(ref.id, data, ref.length)
        return data

    def _find(self, kind: int, chunk: bytes) -> bytes:
        problems: list[ReplicatorError] = []
        for pack in self._fetcher.places([chunk])[0]:
            try:
                data = self._memory.chunk(self._fetcher, pack, kind, chunk)
            except (NotFoundError, IntegrityError, FormatError) as error:
                problems.append(error)
            else:
                for problem in problems:
                    self._told(problem)
                return data
        raise problems[0]

    def ahead(self, refs: Sequence[ChunkRef]) -> None:
        """Begin to fetch what these chunks, which will be needed in this order, lie in."""
        wanted = [ref.id for ref in refs if self._memory.kept(CHUNK_DATA, ref.id) is None]
        self._memory.ahead(self._fetcher, dict.fromkeys(packs[0] for packs in self._fetcher.places(wanted)))
