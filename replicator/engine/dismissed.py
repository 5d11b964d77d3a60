"""What nobody waits for any more: objects of forgotten snapshots, and packs that no snapshot needs.

Maintenance says which snapshots and packs these are (:class:`~replicator.format.forget.Forget`). A node does not just
believe it of what its own newer snapshots may rely on: it dismisses a pack of its own once, when what was said covers
its whole chain and those of its former keys, and remembers that. From then on no snapshot of its relies on the pack,
and it is in no claim.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from replicator.catalog.objects import split_ids
from replicator.engine.forgetting import Forgotten
from replicator.engine.home import Half
from replicator.engine.ownchain import chain_end

if TYPE_CHECKING:
    from replicator.engine.node import NodeHome

_DISMISSED = "dismissed packs"


def dismissed(half: Half) -> set[int]:
    """Return the row ids of objects that nobody waits for: gone is what becomes of them, not lost."""
    forgotten = Forgotten.of(half)
    if not forgotten.signed and not forgotten.moved:
        return set()
    objects = half.catalog.objects
    snapshots = half.catalog.snapshots.all()
    kept = [row for row in snapshots if not forgotten.hides(row)]
    named = {one.index for one in forgotten.moved}
    for row in kept:
        named.update((row.name, *row.indexes, *row.references))
    hidden = {row.name for row in snapshots if forgotten.hides(row)}
    records = objects.all("kind IN ('index', 'references', 'snapshot') AND NOT spooled")
    found = {row.id for row in records if row.name not in named and (row.kind != "snapshot" or row.name in hidden)}
    listings = objects.listings()
    found |= objects.of_index_rows(found) - listings.keys()
    named_by = {row.id: row.index_id for row in objects.rows_of(listings)}
    found |= {pack for pack, others in listings.items() if {named_by[pack], *others} - {None} <= found}
    own = half.identity if half.role == "node" else b""
    remembered = dismissed_packs(half)
    for pack in objects.by_names(forgotten.gone | forgotten.replaced | remembered):
        if pack.writer != own or pack.name in remembered:
            found.add(pack.id)
    return found | objects.shards_only_of(found)


def dismissed_packs(half: Half) -> set[bytes]:
    """Return the names of a node's own packs that it has dismissed."""
    return set(split_ids(half.catalog.meta(_DISMISSED) or b""))


def dismiss(node: "NodeHome", compared: Collection[bytes]) -> None:
    """Bring what a node has dismissed in line with what maintenance says now; call it before anything is captured.

    ``compared`` are old packs of its own whose chunks it has found, byte for byte, in new ones that it knows.
    """
    forgotten = Forgotten.of(node)
    before = dismissed_packs(node)
    said = forgotten.gone | (forgotten.replaced & (set(compared) | before))
    after = said if _covered(node, forgotten) else before & said
    if after != before:
        node.catalog.set_meta(_DISMISSED, b"".join(sorted(after)))


def _covered(node: "NodeHome", forgotten: Forgotten) -> bool:
    """Return whether maintenance had read all that this node wrote, also under keys that it had before."""
    end = chain_end(node)
    if end is None or end.number > forgotten.view.get(node.identity, 0):
        return False
    ended = node.catalog.snapshots.all("published_ns != 0")  # of a key that is gone nothing more is published
    return all(row.number <= forgotten.view.get(row.writer, 0) for row in ended if row.writer in node.formers)
