"""What a node relies on from now on: it learns what is gone and what was put together anew, and claims the rest.

New packs that a maintainer made of a node's own are taken over only after every chunk in them was compared with the old
pack that the node itself had checked before it was sent: the same ciphertext under the same sealed secret.
"""

from replicator.catalog.objects import split_ids
from replicator.engine.audit import survey
from replicator.engine.dismissed import dismiss
from replicator.engine.edge import Edge
from replicator.engine.federation import Federation
from replicator.engine.forgetting import Forgotten, learn, without_forgotten
from replicator.engine.node import NodeHome
from replicator.engine.placing import objects_of
from replicator.engine.publish import Published, Publisher
from replicator.engine.shards import Cut, fetch_pack
from replicator.engine.spare import let_go
from replicator.engine.swept import drop_swept
from replicator.engine.sync import fetch_index, knows_index, sync_all, take_index
from replicator.errors import FormatError, IntegrityError, NotFoundError
from replicator.format.forget import MovedPacks
from replicator.format.index import Index
from replicator.format.policy import Policy, policy_id
from replicator.ids import ObjectName, short
from replicator.pack.repack import segments_of


async def learn_what_is_gone(node: NodeHome, federation: Federation, edge: Edge) -> None:
    """Take in what maintenance says, before anything is captured. The caller holds the node's lock."""
    await learn(node, federation)
    compared: set[bytes] = set()
    fresh = False
    for moved in Forgotten.of(node).moved:
        if node.whose(moved.writer) != node.identity:
            continue
        known = knows_index(node, moved.index)
        if known or await _take_over(node, federation, moved):
            compared.update(split_ids(moved.packs))
            fresh |= not known
    dismiss(node, compared)
    drop_swept(node)
    if fresh:
        await survey(node, federation, edge, count=0)  # who holds what was taken over, for the next claim


async def claim_what_is_left(node: NodeHome, edge: Edge) -> list[str]:
    """Claim at every provider what this node relies on, nothing that is gone, and no copy more than was promised.

    Returns what peers owe, in words.

    Raises:
        LockedError: a run works in this home, which does the same at its end.
    """
    with node.lock():
        async with Federation(node, edge) as federation:
            await sync_all(node, federation)
            await learn_what_is_gone(node, federation, edge)
            await survey(node, federation, edge, count=0)
            result = Published()
            publisher = Publisher(node, federation, edge, node.spool())
            await publisher.claim_everywhere(result)
            kept = without_forgotten(node, node.catalog.snapshots.all("published_ns != 0"))
            await let_go(publisher, objects_of(node, kept), result)
            return result.owed


async def _take_over(node: NodeHome, federation: Federation, moved: MovedPacks) -> bool:
    """Compare what a maintainer made of our packs with those, and take it over if all is the same."""
    what = f"packs that were put together anew (index {short(moved.index)})"
    try:
        index, size = await fetch_index(node, federation, ObjectName(moved.index))
        await _compare(node, federation, moved, index)
        take_index(node, ObjectName(moved.index), index, size, moved.writer)
    except NotFoundError as error:
        federation.notices.append(f"{what} are not taken over yet: {error}")
        return False
    except (IntegrityError, FormatError) as error:
        federation.integrity.append(f"{what} are not what they replace: {error}")
        return False
    return True


async def _compare(node: NodeHome, federation: Federation, moved: MovedPacks, index: Index) -> None:
    """Hold new packs against old ones.

    Raises:
        IntegrityError, FormatError: a new one has anything that no old one has.
        NotFoundError: one of them is out of reach.
    """
    keys = node.keys(index.domain)
    own = [row for row in node.catalog.objects.by_names(split_ids(moved.packs)) if row.writer == node.identity]
    before: dict[bytes, set[bytes]] = {}
    policies: dict[bytes, set[bytes]] = {}
    for row in own:
        _, found = segments_of(await federation.fetch(row.name, ()), keys)
        for chunk, digest in found.items():
            before.setdefault(chunk, set()).add(digest)
            policies.setdefault(chunk, set()).add(row.policy)
    promises: dict[bytes, Policy] = {policy_id(policy): policy for policy in index.policies}
    for pack in index.packs:
        cut = Cut.said(pack, promises[pack.policy]) if pack.policy in promises else None
        if cut is None:
            data = await federation.fetch(ObjectName(pack.name), ())
        else:
            data = await fetch_pack(federation, ObjectName(pack.name), pack.size, cut)
        directory, found = segments_of(data, keys)
        if not set(split_ids(pack.ids)) <= found.keys():
            raise IntegrityError(f"pack {short(pack.name)}: an index names chunks in it that it does not hold")
        for chunk, digest in found.items():
            if digest not in before.get(chunk, ()) or not {pack.policy, directory.policy} <= policies[chunk]:
                raise IntegrityError(f"pack {short(pack.name)}: chunk {chunk.hex()[:12]} is in no old pack like this")
