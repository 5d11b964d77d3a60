"""Extra copies: a plain folder or a bucket with all that the published snapshots need, and nobody who guards it.

    PLACE/.replicator-extra      an id that was put there when the place was added, and whose: without it the disk is
                                 not mounted; where it is another node's, that one writes and tidies there, and no other
    PLACE/<tenant>/objects/      objects under their names, as a provider's data folder has them

Whoever can write there can spoil or delete it, this node first of all; nothing is audited, locked or receipted. So it
counts for no promise, whatever it holds. It is sealed like every other copy. Of a pack that is cut, as many shards lie
there as it takes. HOME/node/extra.json says which places there are and how they stand.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final

from replicator.clock import DAY_S, NS
from replicator.config import BucketAddress, is_bucket, parse_bucket
from replicator.engine.edge import Edge
from replicator.engine.home import Half
from replicator.engine.node import NodeHome
from replicator.errors import HomeError, NotFoundError, UsageError
from replicator.fs import write_atomic
from replicator.store.base import STORE_MARK, ObjectStore
from replicator.store.bucket import Anchored, Bucket, BucketError, BucketObjectStore
from replicator.store.folder import FolderObjectStore
from replicator.store.s3 import open_s3

FILE: Final = "extra.json"
MARK: Final = ".replicator-extra"
MARK_SIZE: Final = 16
WHOSE: Final = 16
"""Digits of the node's identity in its mark."""
OVERDUE_S: Final = 7 * DAY_S
"""A disk that is mounted now and then is no trouble for so long."""

MakeBucket = Callable[[BucketAddress], Bucket]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """A place, and how it stands. ``mark`` is its id; times in ns, 0 for never."""

    name: str
    place: str
    mark: str
    endpoint: str = ""
    region: str = ""
    credentials: str = ""
    written_ns: int = 0
    objects: int = 0
    failed_ns: int = 0
    error: str = ""


def overdue(extra: Extra, now_ns: int) -> str:
    """Return in words that a place is behind, empty if it is not."""
    if extra.written_ns and now_ns - extra.written_ns <= OVERDUE_S * NS:
        return ""
    age = f"{(now_ns - extra.written_ns) // (DAY_S * NS)} days old" if extra.written_ns else "not whole yet"
    why = f": {extra.error}" if extra.error else ""
    return f"extra copy '{extra.name}' in {extra.place} is {age}{why}"


def extras(half: Half) -> list[Extra]:
    """Return the places of a node.

    Raises:
        HomeError: the file that says so is damaged.
    """
    path = half.file(FILE)
    if half.role != "node" or half.fs.size(path) is None:
        return []
    try:
        return [Extra(**one) for one in json.loads(half.fs.read(path))]
    except (ValueError, TypeError) as error:
        raise HomeError(f"{path}: damaged ({error})", hint="remove it, and add the places again") from error


def keep_extras(node: NodeHome, found: Iterable[Extra]) -> None:
    text = json.dumps([asdict(one) for one in sorted(found, key=lambda one: one.name)], indent=1)
    write_atomic(node.fs, node.file(FILE), text.encode() + b"\n")


def find_extra(half: Half, name: str) -> Extra:
    """Return a place by its name.

    Raises:
        NotFoundError: there is none.
    """
    for one in extras(half):
        if one.name == name:
            return one
    known = ", ".join(one.name for one in extras(half)) or "none yet"
    raise NotFoundError(f"no extra copy '{name}' (there are: {known})")


def add_extra(node: NodeHome, edge: Edge, extra: Extra, make_bucket: MakeBucket = open_s3) -> Extra:
    """Take a place: put the mark there, and remember it.

    Raises:
        UsageError: its name or place is taken, by another node too; it is a provider's, or it lies within what is
            backed up.
        HomeError: the folder is not there, or the bucket does not answer.
    """
    known = extras(node)
    if any(one.name == extra.name or one.place == extra.place for one in known):
        raise UsageError(f"extra copy '{extra.name}' in {extra.place}: taken already", hint="`replicator extra list`")
    must_lie_outside(node, extra)
    whose = node.identity.hex()[:WHOSE]
    mark = f"{edge.rng.bytes(MARK_SIZE).hex()} {whose}"
    if is_bucket(extra.place):
        address = _address(extra)
        with naming(extra):
            bucket = make_bucket(address)
            _must_be_no_store(extra, bucket.size(address.prefix + STORE_MARK))
            there = bucket.get(address.prefix + MARK)
            _must_be_free(extra, there, whose, known)
            if not bucket.put(address.prefix + MARK, mark.encode(), fresh=there is None):
                raise _taken(extra)
    else:
        if not os.path.isdir(extra.place):
            raise HomeError(f"{extra.place}: no folder", hint="mount the disk, and make the folder first")
        _must_be_no_store(extra, node.fs.size(os.path.join(extra.place, STORE_MARK)))
        path = os.path.join(extra.place, MARK)
        _must_be_free(extra, None if node.fs.size(path) is None else node.fs.read(path), whose, known)
        write_atomic(node.fs, path, mark.encode())
    made = replace(extra, mark=mark)
    keep_extras(node, [*known, made])
    return made


def _must_be_no_store(extra: Extra, size: int | None) -> None:
    """Refuse where a provider's objects lie, given the size of its mark: objects that it has receipted go by `tidy`."""
    if size is not None:
        raise UsageError(
            f"{extra.place} is where a provider keeps what it has promised to keep",
            hint="choose a place of its own for an extra copy",
        )


def _must_be_free(extra: Extra, there: bytes | None, whose: str, known: Iterable[Extra]) -> None:
    """Refuse where a node writes already, given the mark in the place: of two that do, each would tidy the other's."""
    if there is None:
        return
    text = there.decode("ascii", "replace")
    same = next((one for one in known if one.mark == text), None)
    if same is not None:
        raise UsageError(f"{extra.place} is extra copy '{same.name}' already", hint="`replicator extra list`")
    if text.partition(" ")[2] != whose:  # what this node left there itself is taken up again
        raise _taken(extra)


def _taken(extra: Extra) -> UsageError:
    return UsageError(
        f"{extra.place}: another node writes its extra copy there",
        hint=f"choose a place for this one alone, as {extra.place.rstrip('/')}/{extra.name}. If that node is no more, "
        f"delete {MARK} there; the next `extra tidy` then deletes what only that node needed",
    )


def remove_extra(node: NodeHome, name: str) -> Extra:
    """Forget a place; what lies there stays.

    Raises:
        NotFoundError: there is none of that name.
    """
    gone = find_extra(node, name)
    keep_extras(node, [one for one in extras(node) if one.name != name])
    return gone


def open_extra(node: NodeHome, extra: Extra, make_bucket: MakeBucket = open_s3) -> ObjectStore:
    """Return the objects of this tenant in a place.

    Raises:
        HomeError: it is not there: not mounted, or another one.
    """
    if is_bucket(extra.place):
        address = _address(extra)
        bucket = Anchored(make_bucket(address), address.prefix + MARK, extra.mark.encode())
        prefix = f"{address.prefix}{node.tenant.hex()}/"
        return BucketObjectStore(bucket, prefix, node.fs, node.cache_file("extra", extra.name))
    try:
        there = node.fs.read(os.path.join(extra.place, MARK), 0, 64).decode("ascii", "replace")
    except OSError:
        there = ""
    if there != extra.mark:
        raise HomeError(
            f"{extra.place}: not the disk of extra copy '{extra.name}'", hint="mount it; nothing was written"
        )
    folder = os.path.join(extra.place, node.tenant.hex())
    parts = {part: os.path.join(folder, part) for part in ("incoming", "quarantine")}
    return FolderObjectStore(node.fs, folder=os.path.join(folder, "objects"), **parts)


def must_lie_outside(node: NodeHome, extra: Extra) -> None:
    """Refuse a folder that is backed up: each night would store what the night before wrote there.

    Raises:
        UsageError: it is.
    """
    if is_bucket(extra.place):
        return
    place = os.path.realpath(extra.place)
    for dataset in node.catalog.datasets.all():
        for root in dataset.roots:
            top = os.path.realpath(os.fsdecode(root))
            if os.path.commonpath([place, top]) == top:
                raise UsageError(
                    f"extra copy '{extra.name}' in {extra.place} lies within dataset '{dataset.name}'",
                    hint="choose a folder that is not backed up",
                )


def _address(extra: Extra) -> BucketAddress:
    return parse_bucket(extra.place, endpoint=extra.endpoint, region=extra.region, credentials=extra.credentials)


@contextlib.contextmanager
def naming(extra: Extra) -> Iterator[None]:
    """Say of which place it is that a bucket does not answer.

    Raises:
        HomeError: it does not.
    """
    try:
        yield
    except BucketError as error:
        said = f" ({error.detail})" if error.detail else ""
        raise HomeError(
            f"{extra.place}: {error.strerror}{said}", hint="look at its server, its address and keys"
        ) from error
