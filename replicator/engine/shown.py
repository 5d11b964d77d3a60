"""What an object shows of itself: its first leaf, proved against its name, tells a pack from a record from a shard.

A name says nothing, and an index only what its writer says: one that was taken over can call anything of its tenant's a
pack of its own, or a shard of one. So what only an index speaks of is looked at before it is marked as that.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Final

from replicator.catalog.objects import split_ids
from replicator.engine.federation import Federation
from replicator.engine.forgetting import LARGEST_FORGET
from replicator.engine.home import Half
from replicator.errors import PeerError, ReplicatorError
from replicator.format.container import BODY_OFFSET, FAMILY, RECORD_MAGIC, Kind
from replicator.format.merkle import proves
from replicator.format.sizes import LARGEST, is_class
from replicator.ids import Identity
from replicator.pack.keys import DomainKeys
from replicator.pack.sealed import open_locator
from replicator.wire.messages import MAX_PROBES, ProveReply, ProveRequest

UNREADABLE, RECORD, SHARD, SNAPSHOT, FORGET = "unreadable", "record", "shard", "snapshot", "forget"
_WORDS: Final = {
    Kind.DATA_PACK: "data",
    Kind.TREE_PACK: "tree",
    Kind.INDEX: "index",
    Kind.REFERENCES: "references",
    Kind.SNAPSHOT: SNAPSHOT,
    Kind.FORGET: FORGET,
}
PACKS: Final = ("data", "tree")
LARGEST_DOUBTED: Final = LARGEST_FORGET
"""Bytes up to which what an index calls a pack might be one of the records that a tenant must not lose: charters,
keybags, Forgets, snapshots whose head may still come. None is larger."""
MOST_LOOKED_AT: Final = 20_000
"""Objects that are looked at in one run to learn whether they are what an index says: 320 MiB of leaves. The rest waits
for the next one."""
_SHOWN: Final = "shown to be packs"


def kind_of(leaf: bytes, size: int, keys: Iterable[DomainKeys]) -> str:
    """Return what an object of ``size`` bytes that begins with ``leaf`` is, as far as these keys tell.

    "record" is a charter or a keybag, "shard" a part of a pack: the first has the pack's own beginning and ends before
    the pack does, and no other begins as a whole object of any format does. "unreadable": no key opens it.
    """
    if leaf.startswith(RECORD_MAGIC):
        return RECORD
    if not leaf.startswith(FAMILY):
        return SHARD
    for one in keys:
        try:
            locator = open_locator(leaf, LARGEST, one)
        except ReplicatorError:
            continue  # another domain's, or of a later release
        word = _WORDS[locator.kind]
        if BODY_OFFSET + locator.body_length + locator.segments_length > size:
            return SHARD if word in PACKS else UNREADABLE
        return word if is_class(size) else UNREADABLE
    return UNREADABLE


async def first_leaves(
    federation: Federation, lying: Mapping[Identity, Collection[bytes]], names: Collection[bytes]
) -> AsyncIterator[tuple[bytes, bytes, int]]:
    """Yield name, first leaf and size of the objects whose first leaf somebody proves; ``lying``: who has which.

    A provider that does not answer is told, and others that have the same objects are asked.
    """
    left = set(names)
    for link in list(federation.links.values()):
        here = sorted(left & set(lying.get(link.identity, ())))
        for at in range(0, len(here), MAX_PROBES):
            part = here[at : at + MAX_PROBES]
            request = ProveRequest(names=b"".join(part), leaves=[0] * len(part))
            try:
                reply = await link.connection.call("prove", request, ProveReply)
            except PeerError as error:
                federation.notices.append(f"what lies there is not looked at: {error}")
                break
            for name, proof in zip(part, reply.proofs, strict=False):
                if proof is not None and proves(name, 0, proof):
                    left.discard(name)
                    yield name, proof.leaf, proof.size


async def shown_as_packs(
    half: Half,
    federation: Federation,
    lying: Mapping[Identity, Collection[bytes]],
    doubted: Mapping[bytes, str],
    *,
    note: bool,
) -> set[bytes]:
    """Return which objects show that they are what an index calls them: packs, or shards; ``doubted`` says which.

    ``note``: remember it, for as long as it is asked.
    """
    known = set(split_ids(half.catalog.meta(_SHOWN) or b"")) & doubted.keys()
    found = set(known)
    keys = [half.keys(domain) for domain in half.domain_ids]
    unknown = sorted(doubted.keys() - known)[:MOST_LOOKED_AT]
    async for name, leaf, size in first_leaves(federation, lying, unknown):
        kind = kind_of(leaf, size, keys)
        if kind == SHARD if doubted[name] == SHARD else kind in PACKS:
            found.add(name)
    if note and (joined := b"".join(sorted(found))) != (half.catalog.meta(_SHOWN) or b""):
        half.catalog.set_meta(_SHOWN, joined)
    return found
