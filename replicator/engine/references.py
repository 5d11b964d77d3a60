"""Which chunks a snapshot needs, as a chain of changes that a maintainer can fold without a content key."""

from blake3 import blake3

from replicator.crypto.derive import hkdf
from replicator.crypto.sign import Context
from replicator.engine.edge import Edge
from replicator.engine.node import NodeHome
from replicator.engine.spool import Spool
from replicator.errors import FormatError
from replicator.format.codec import encode
from replicator.format.container import Kind
from replicator.format.index import References
from replicator.format.merkle import name_of
from replicator.fs import write_atomic
from replicator.ids import ObjectName
from replicator.pack.keys import DomainKeys
from replicator.pack.sealed import seal_object

ID_SIZE = 32
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
    return [joined[at : at + ID_SIZE] for at in range(0, len(joined), ID_SIZE)]


def fold(chain: list[References]) -> set[bytes]:
    """Return the set that a chain of references describes, first object first."""
    ids: set[bytes] = set()
    for change in chain:
        ids.difference_update(split_ids(change.dropped))
        ids.update(split_ids(change.added))
    return ids


def write_references(
    node: NodeHome, edge: Edge, spool: Spool, keys: DomainKeys, dataset: str, ids: set[bytes], now: int
) -> tuple[bytes, ...]:
    """Spool the references of a new snapshot; return its whole chain.

    The chain of the dataset's last snapshot goes on if it is short and the change is small beside the whole;
    else a new one begins. What the last snapshot needed is remembered in a cache file.
    """
    rows = node.catalog.snapshots.all("writer = ? AND dataset = ?", (node.identity, dataset))
    base = rows[-1].references if rows else ()
    cache_key = hkdf(keys.id_key, label=b"references cache")
    cache_name = hkdf(cache_key, label=b"cache file", context=dataset.encode(), length=8).hex()
    cache = node.cache_file(f"refs-{cache_name}.ids")
    before = _remembered(node, cache, base[-1] if base else b"")
    chain = list(base) if before is not None else []
    old = before or set()
    added, dropped = ids - old, old - ids
    if chain and (len(chain) >= LONGEST_CHAIN or (len(added) + len(dropped)) * 2 > len(ids)):
        chain, added, dropped = [], ids, set()
    if added or dropped or not chain:
        chain += _write_change(node, edge, spool, keys, chain[-1] if chain else b"", added, dropped, now)
    body = b"".join((chain[-1], *sorted(ids)))
    write_atomic(node.fs, cache, blake3(body).digest() + body)
    return tuple(chain)


def _remembered(node: NodeHome, cache: str, last: bytes) -> set[bytes] | None:
    if not last or node.fs.size(cache) is None:
        return None
    data = node.fs.read(cache)
    body = data[ID_SIZE:]
    # A rotten bit in here would go into every later change of the chain.
    if blake3(body).digest() != data[:ID_SIZE] or body[:ID_SIZE] != last or len(body) % ID_SIZE:
        return None
    return set(split_ids(body[ID_SIZE:]))


def _write_change(
    node: NodeHome,
    edge: Edge,
    spool: Spool,
    keys: DomainKeys,
    base: bytes,
    added: set[bytes],
    dropped: set[bytes],
    now: int,
) -> list[bytes]:
    names: list[bytes] = []
    todo = [(True, chunk) for chunk in sorted(added)] + [(False, chunk) for chunk in sorted(dropped)]
    for start in range(0, max(len(todo), 1), MOST_IDS):
        part = todo[start : start + MOST_IDS]
        record = References(
            tenant=node.tenant,
            domain=keys.domain,
            writer=node.identity,
            base=base,
            added=b"".join(chunk for is_added, chunk in part if is_added),
            dropped=b"".join(chunk for is_added, chunk in part if not is_added),
        )
        data = seal_object(Kind.REFERENCES, node.signing.sign(Context.REFERENCES, encode(record)), keys, edge.rng)
        base = name_of(data)
        spool.put(ObjectName(base), data)
        node.catalog.objects.add(
            name=base, writer=node.identity, kind="references", size=len(data), spooled=True, created_ns=now
        )
        names.append(base)
    return names
