"""Buckets for tests: in memory behind the real client, with faults at will."""

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from obstore.store import MemoryStore

from replicator.config import BucketAddress
from replicator.provider.databucket import MakeBucket
from replicator.store.bucket import BucketError
from replicator.store.s3 import ObstoreBucket

Fault = Callable[[str, str], None]


def silent(_verb: str, _key: str) -> None:
    """Do not answer."""
    raise BucketError(errno.EREMOTEIO, "503 Slow Down")


@dataclass
class FaultyBucket:
    """A bucket that does what it should, but for what a test sets. ``asked`` are (verb, key) in order.

    ``fault`` is called before each verb and may raise. ``losing``: writes are acknowledged and not done. ``keeping``:
    likewise deletions. ``careless``: conditions are ignored. ``elsewhere``: it says of everything that it is not there,
    as another bucket would. ``versions``: it keeps them. ``blind``: its listings are as they were before the last put.
    """

    inner: ObstoreBucket = field(default_factory=lambda: ObstoreBucket(MemoryStore()))
    asked: list[tuple[str, str]] = field(default_factory=list)
    fault: Fault = lambda _verb, _key: None
    losing: bool = False
    keeping: bool = False
    careless: bool = False
    elsewhere: bool = False
    versions: bool = False
    blind: bool = False
    last: str = ""

    def _ask(self, verb: str, key: str) -> None:
        self.asked.append((verb, key))
        self.fault(verb, key)

    def put(self, key: str, data: bytes, *, fresh: bool) -> bool:
        self._ask("put", key)
        self.last = key
        if self.losing:
            return True
        return self.inner.put(key, data, fresh=fresh and not self.careless)

    def version_of(self, key: str, data: bytes) -> str:
        self._ask("put", key)
        return "3" if self.versions else self.inner.version_of(key, data)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes | None:
        self._ask("get", key)
        return None if self.elsewhere else self.inner.get(key, offset, length)

    def size(self, key: str) -> int | None:
        self._ask("size", key)
        return None if self.elsewhere else self.inner.size(key)

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        return [self.size(key) for key in keys]

    def pages(self, prefix: str, after: str = "") -> Iterator[list[tuple[str, int]]]:
        self._ask("list", prefix)
        if self.elsewhere:
            return
        for page in self.inner.pages(prefix, after):
            yield [one for one in page if not (self.blind and one[0] == self.last)]

    def copy(self, key: str, target: str) -> None:
        self._ask("copy", key)
        self.inner.copy(key, target)

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._ask("delete", key)
        if not self.keeping:
            self.inner.delete(keys)

    def count(self, verb: str) -> int:
        """Return how often something was asked."""
        return sum(asked == verb for asked, _ in self.asked)

    def held(self, prefix: str = "") -> list[str]:
        """Return what is in it."""
        return sorted(key for page in self.inner.pages(prefix) for key, _ in page)

    @property
    def maker(self) -> MakeBucket:
        """What a provider opens its bucket with."""

        def make(_address: BucketAddress) -> FaultyBucket:
            return self

        return make
