"""The bucket that objects lie in instead of a folder: can what it says be relied on, and is it the one we left?

    PREFIX.replicator-store     the id of the store, as in a folder; put once, never over another's
    PREFIX.generation           the counter that is compared with the database's

A bucket is shared with whoever has keys for it, another machine that was cloned from this one among them. Whoever
starts on it counts the generation up, and whoever ran before sees that within :data:`FRESH_S` and serves no more.
"""

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from replicator.clock import Clock
from replicator.config import BucketAddress
from replicator.errors import HomeError, SpaceError
from replicator.fs import Fs
from replicator.ids import TenantId
from replicator.provider.datadir import GENERATION, SENTINEL, TRIAL, TRIAL_SIZE, Presence
from replicator.rng import Rng
from replicator.store.bucket import Anchored, Bucket, BucketError, BucketObjectStore, delete_surely

log = logging.getLogger(__name__)

FRESH_S: Final = 30.0
"""How long what the bucket said of our store, or that it said nothing, is relied on: every request asks."""
PATIENCE_S: Final = 5.0
"""How long it is waited for, from when it was asked; whoever comes later is told at once that it is silent."""
UNBOUNDED: Final = 1 << 60
"""Free bytes of what has no end that anybody could ask for."""


class VersionedBucket(Bucket, Protocol):
    """A bucket that says what it calls a version of an object."""

    def version_of(self, key: str, data: bytes) -> str:
        """Store, and return what the bucket calls this version of it; empty if it keeps no versions."""
        ...


MakeBucket = Callable[[BucketAddress], VersionedBucket]


class DataBucket:
    """A :class:`~replicator.provider.datadir.Data` in a bucket. ``incoming`` is a folder for what is on its way in."""

    def __init__(
        self, bucket: VersionedBucket, address: BucketAddress, store: bytes, *, fs: Fs, incoming: str, clock: Clock
    ) -> None:
        self.path = str(address)
        self._bucket = bucket
        self._prefix = address.prefix
        self._content = store.hex().encode() + b"\n"
        self._fs = fs
        self._incoming = incoming
        self._clock = clock
        self._known = threading.Lock()
        self._asking: threading.Thread | None = None
        self._began_s = 0.0
        self._ours = False
        self._silent = True
        self._heard_s: float | None = None
        self._counted: int | None = None

    def create(self) -> None:
        """Make the bucket a store.

        Raises:
            HomeError: somebody else did, meanwhile.
        """
        with reaching(self.path):
            self.set_generation(0)
            sentinel = self._prefix + SENTINEL
            if not self._bucket.put(sentinel, self._content, fresh=True):
                delete_surely(self._bucket, [sentinel])  # left by an init that was stopped
                if not self._bucket.put(sentinel, self._content, fresh=True):
                    raise HomeError(
                        f"{self.path}: somebody else makes a provider there now", hint="choose another prefix"
                    )

    def in_use(self) -> bool:
        """Return whether any provider has ever started there."""
        return self._bucket.get(self._prefix + SENTINEL) is not None and self.generation() != 0

    def mounted(self) -> bool:
        """Return whether it answers, and our store lies there, as of less than half a minute ago."""
        return self.presence() == "there"

    def presence(self) -> Presence:
        """Return what it says of our store, as of less than half a minute ago.

        One that takes a question and says nothing would hold up whoever asks, for a minute each: so a thread asks it,
        one at a time, and is waited for a little.
        """
        with self._known:
            now_s = self._clock.monotonic()
            if self._asking is None:
                if self._heard_s is not None and 0 <= now_s - self._heard_s < FRESH_S:
                    return self._said()
                asking = threading.Thread(target=self._ask, name="bucket")
                asking.start()  # before it is noted: where no thread can be had, whoever comes next tries again
                self._asking, self._began_s = asking, now_s
            asking, left_s = self._asking, PATIENCE_S - (now_s - self._began_s)
        asking.join(max(0.0, left_s))
        with self._known:
            return "silent" if self._asking is asking else self._said()

    def _said(self) -> Presence:
        return "silent" if self._silent else "there" if self._ours else "away"

    def _ask(self) -> None:
        """Ask whether our store lies there, and remember what is said. While nothing is, that is as it was."""
        ours, silent = self._ours, True
        try:
            ours = self._bucket.get(self._prefix + SENTINEL) == self._content and self._is_last()
            silent = False
        except BucketError as error:
            log.warning("the bucket with the objects does not answer: %s", error.strerror)
        finally:
            with self._known:
                self._ours, self._silent, self._heard_s, self._asking = ours, silent, self._clock.monotonic(), None

    def _is_last(self) -> bool:
        """Return whether nobody else has started on this store since we did."""
        if self._counted is None or self._counted == self.generation():
            return True
        log.error("another daemon has started on this bucket, with a copy of this home: end one of the two")
        return False

    def generation(self) -> int:
        """Return the counter in the bucket."""
        try:
            return int(self._bucket.get(self._prefix + GENERATION) or b"-1")
        except ValueError:
            return -1

    def set_generation(self, number: int) -> None:
        """Store the counter, and look whether it is there."""
        self._bucket.put(self._prefix + GENERATION, b"%d\n" % number, fresh=False)
        if self.generation() != number:
            raise BucketError(errno.EREMOTEIO, "the counter that was written is not there")
        self._counted = number

    def free_bytes(self) -> int:
        """Return more than there will ever be: what limits a bucket is the capacity that is offered."""
        return UNBOUNDED

    def remove(self, tenant: TenantId) -> None:
        """Remove everything of a tenant; no error if nothing is there."""
        bucket = self._anchored()
        for page in list(bucket.pages(f"{self._prefix}{tenant.hex()}/")):
            delete_surely(bucket, [key for key, _ in page])
        folder = self._folder(tenant)
        for name, _ in self._fs.list_files(folder):
            with contextlib.suppress(FileNotFoundError):
                self._fs.unlink(os.path.join(folder, name))
        with contextlib.suppress(FileNotFoundError):
            self._fs.rmdir(folder)

    def tenant(self, tenant: TenantId) -> BucketObjectStore:
        """Return the store of one tenant."""
        return BucketObjectStore(self._anchored(), f"{self._prefix}{tenant.hex()}/", self._fs, self._folder(tenant))

    def _anchored(self) -> Anchored:
        return Anchored(self._bucket, self._prefix + SENTINEL, self._content)

    def _folder(self, tenant: TenantId) -> str:
        return os.path.join(self._incoming, tenant.hex())

    def try_out(self, rng: Rng) -> int:
        """Write and read back as many bytes as are returned, after the probe of :meth:`probe`."""
        self.probe(rng)
        key, data = self._prefix + TRIAL, rng.bytes(TRIAL_SIZE)
        with reaching(self.path):
            self._bucket.put(key, data, fresh=False)
            found = self._bucket.get(key)
            delete_surely(self._bucket, [key])
        if found != data:
            raise HomeError(f"{self.path}: the bucket gave back other bytes than were written", hint="use another one")
        return TRIAL_SIZE

    def probe(self, rng: Rng) -> None:
        """Show that the bucket does what this provider relies on.

        Raises:
            HomeError: it does not answer, or says what is not so.
        """
        key = f"{self._prefix}{TRIAL}-{rng.bytes(8).hex()}"
        first, second = rng.bytes(1 << 12), rng.bytes(1 << 12)
        with reaching(self.path):
            try:
                self._probe(key, first, second)
            finally:
                with contextlib.suppress(BucketError):
                    self._bucket.delete([key])

    def _probe(self, key: str, first: bytes, second: bytes) -> None:
        bucket = self._bucket
        if not bucket.put(key, first, fresh=True):
            raise self._unfit("it says that something is there already under a name that was just made up")
        if bucket.get(key) != first:
            raise self._unfit("what was just written is not there")
        if bucket.put(key, second, fresh=True) or bucket.get(key) != first:
            raise self._unfit(
                "it writes over what is there although it was told not to (If-None-Match: *)",
                "use a server that keeps conditional writes: Amazon S3, Ceph, Garage, SeaweedFS, OpenStack Swift",
            )
        if bucket.get(key, 100, 1000) != first[100:1100] or bucket.size(key) != len(first):
            raise self._unfit("it gives back other bytes than were asked for (Range)")
        listed = [one for page in bucket.pages(self._prefix, key[:-1]) for one in page]
        if (key, len(first)) not in listed:
            raise self._unfit("its listing lacks what was just written")
        if bucket.version_of(key, first):
            raise self._unfit(
                "it keeps versions, so that nothing in it is ever deleted, not even by a tenant's order to erase",
                "suspend its versioning, or use another bucket",
            )
        bucket.copy(key, f"{key}-copy")
        copied = bucket.get(f"{key}-copy")
        bucket.delete([key, f"{key}-copy"])
        if copied != first:
            raise self._unfit("a copy in it is not what it is a copy of")
        if bucket.get(key) is not None or bucket.size(key) is not None:
            raise self._unfit("what was deleted is still there")

    def _unfit(self, what: str, hint: str = "use another server") -> HomeError:
        return HomeError(f"{self.path} cannot keep objects: {what}", hint=hint)


@contextlib.contextmanager
def reaching(where: str) -> Iterator[None]:
    """Say of a bucket, to people, that it cannot be reached.

    Raises:
        HomeError: instead of BucketError and SpaceError.
    """
    try:
        yield
    except BucketError as error:
        said = f" ({error.detail})" if error.detail else ""
        hint = (
            "its keys may have to read, write, list and delete there"
            if error.errno == errno.EACCES
            else "look at --s3-endpoint, --s3-region and the name of the bucket; the bucket has to be there"
        )
        raise HomeError(f"{where}: {error.strerror}{said}", hint=hint) from error
    except SpaceError as error:
        raise HomeError(f"{where}: {error.message}", hint=error.hint) from error
