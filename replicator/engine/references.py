"""Which chunks a snapshot needs, as a chain of changes that a maintainer can fold without a content key."""

from collections.abc import Iterable, Iterator

from replicator.catalog import objects
from replicator.crypto.derive import hkdf
from replicator.crypto.sign import Context
from replicator.engine.edge import Edge
from replicator.engine.idfile import ID_SIZE, IdFile, changes, remembered
from replicator.engine.node import NodeHome
from replicator.engine.spool import Spool
from replicator.errors import FormatError
from replicator.format.codec import encode
from replicator.format.container import Kind
from replicator.format.index import References
from replicator.format.merkle import name_of
from replicator.ids import ObjectName
from replicator.pack.keys import DomainKeys
from replicator.pack.sealed import seal_object

MOST_IDS = 400_000
"""Ids in one references object; 12.8 MB of the 16 MiB it may have."""
LONGEST_CHAIN = 32


def split_ids(joined: bytes) -> list[bytes]:
    """Return the ids in a run of them.

    Raises:
        FormatError: not a whole number of ids.
    """
    if len(joined) % ID_SIZE:
        raise FormatError("references: not a whole number of ids")
    return objects.split_ids(joined)


def fold(chain: list[References]) -> set[bytes]:
    """Return the set that a chain of references describes, first object first."""
    ids: set[bytes] = set()
    for change in chain:
        ids.difference_update(split_ids(change.dropped))
        ids.update(split_ids(change.added))
    return ids


def write_references(
    node: NodeHome, edge: Edge, spool: Spool, keys: DomainKeys, dataset: str, ids: IdFile, now: int
) -> tuple[bytes, ...]:
    """Spool the references of a new snapshot; return its whole chain. The file of ``ids`` becomes the cache.

    The chain of the dataset's last snapshot goes on if it is short and the change is small beside the whole;
    else a new one begins. What the last snapshot needed is remembered in a cache file, and the catalog remembers of
    which snapshot it is and its hash: a rotten bit in it would go into every later change of the chain.
    """
    rows = node.catalog.snapshots.all("writer = ? AND dataset = ?", (node.identity, dataset))
    base = rows[-1].references if rows else ()
    cache_key = hkdf(keys.id_key, label=b"references cache")
    cache_name = hkdf(cache_key, label=b"cache file", context=dataset.encode(), length=8).hex()
    cache = node.cache_file(f"refs-{cache_name}.ids")
    known = node.catalog.meta(f"references {cache_name}") or b""
    old = remembered(node.fs, cache, known[ID_SIZE:]) if base and known[:ID_SIZE] == base[-1] else None
    chain = list(base) if old is not None else []
    count = 0
    if old is not None:
        count = sum(len(added) + len(dropped) for added, dropped in changes(old, ids)) // ID_SIZE
        if len(chain) >= LONGEST_CHAIN or count * 2 > ids.count:
            chain, old = [], None
    if count or not chain:
        chain += _write_change(node, edge, spool, keys, chain[-1] if chain else b"", changes(old, ids), now)
    node.fs.replace(ids.path, cache)
    node.fs.fsync_dir(node.cache_path)
    node.catalog.set_meta(f"references {cache_name}", chain[-1] + ids.digest)
    return tuple(chain)


def _write_change(
    node: NodeHome,
    edge: Edge,
    spool: Spool,
    keys: DomainKeys,
    base: bytes,
    change: Iterable[tuple[bytes, bytes]],
    now: int,
) -> list[bytes]:
    """Spool a change as few objects as it takes, at least one."""
    names: list[bytes] = []
    for added, dropped in _bounded(change):
        record = References(
            tenant=node.tenant, domain=keys.domain, writer=node.identity, base=base, added=added, dropped=dropped
        )
        data = seal_object(Kind.REFERENCES, node.signing.sign(Context.REFERENCES, encode(record)), keys, edge.rng)
        base = name_of(data)
        spool.put(ObjectName(base), data)
        node.catalog.objects.add(
            name=base, writer=node.identity, kind="references", size=len(data), spooled=True, created_ns=now
        )
        names.append(base)
    return names


def _bounded(change: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the same change in parts of at most :data:`MOST_IDS` ids, one empty part if it is none."""
    most = MOST_IDS * ID_SIZE
    added, dropped = bytearray(), bytearray()
    any_yet = False
    for more_added, more_dropped in change:
        added += more_added
        dropped += more_dropped
        while len(added) + len(dropped) > most:
            taken_added = bytes(added[:most])
            taken_dropped = bytes(dropped[: most - len(taken_added)])
            yield taken_added, taken_dropped
            any_yet = True
            del added[: len(taken_added)], dropped[: len(taken_dropped)]
    if added or dropped or not any_yet:
        yield bytes(added), bytes(dropped)
