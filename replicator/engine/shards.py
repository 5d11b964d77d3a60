"""Getting packs that are cut into shards, and shards that are missing: any k of k+m will do."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from replicator.errors import IntegrityError, NotFoundError
from replicator.format.container import Kind
from replicator.format.index import IndexedPack
from replicator.format.merkle import name_of
from replicator.format.policy import Policy, coding_of
from replicator.ids import ObjectName, short
from replicator.pack.shards import join, rebuild

if TYPE_CHECKING:
    from replicator.catalog.objects import Shards
    from replicator.engine.federation import Federation


@dataclass(frozen=True, slots=True)
class Cut:
    """What a pack is cut into: the names of its shards, data first, of which any ``needed`` suffice."""

    needed: int
    names: tuple[ObjectName, ...]

    @property
    def coding(self) -> tuple[int, int]:
        """Data and parity shards."""
        return self.needed, len(self.names) - self.needed

    @classmethod
    def of(cls, shards: "Shards") -> "Cut":
        """Return what the catalog knows."""
        return cls(shards.needed, tuple(row.name for row in shards.rows))

    @classmethod
    def said(cls, pack: IndexedPack, policy: Policy) -> "Cut | None":
        """Return what an index says, None of a pack that is whole.

        Raises:
            IntegrityError: that is not what packs of this size are cut into under this policy.
        """
        coding = coding_of(policy, pack.size) if pack.kind == Kind.DATA_PACK else None
        wanted = 0 if coding is None else sum(coding)
        shards = set(pack.shards)
        if len(pack.shards) != wanted or len(shards) != wanted or pack.name in shards:
            raise IntegrityError(
                f"pack {short(pack.name)}: an index names {len(shards)} shards of it, its policy makes {wanted}"
            )
        return None if coding is None else cls(coding[0], tuple(map(ObjectName, pack.shards)))


def reading_order(needed: int, lying: Collection[int], count: int) -> list[int]:
    """Return the numbers of shards in the order to ask for them, to have any ``needed`` of ``count``.

    Those that somebody who answers is believed to have (``lying``) first, and of them data, which needs no decoding.
    """
    return sorted(range(count), key=lambda number: (number not in lying, number >= needed, number))


async def fetch_pack(federation: "Federation", name: ObjectName, size: int, cut: Cut) -> bytes:
    """Return a pack from any of its shards; decoded only where data shards are out of reach.

    Raises:
        NotFoundError: too few shards are within reach, or they are not those of the pack, which is told as integrity.
    """
    found = await fetch_shards(federation, name, cut)
    try:
        data = await asyncio.to_thread(join, found, cut.coding, size)
    except IntegrityError as error:
        data, problem = b"", error
    else:
        problem = IntegrityError("they make another one")
    if name_of(data) == name:
        return data
    text = f"pack {short(name)}: the shards that its index names are not its own: {problem.message}"
    if text not in federation.integrity:
        federation.integrity.append(text)
    raise NotFoundError(text)


async def fetch_shards(
    federation: "Federation", name: ObjectName, cut: Cut, *, here: Callable[[ObjectName], bytes | None] | None = None
) -> dict[int, bytes]:
    """Return any ``needed`` shards of a pack by number, all asked for at once; ``here`` gives what is on this machine.

    Raises:
        NotFoundError: fewer are within reach.
    """
    found: dict[int, bytes] = {}
    if here is not None:
        for number, shard in enumerate(cut.names):
            data = here(shard) if len(found) < cut.needed else None
            if data is not None:
                found[number] = data
    objects = federation.half.catalog.objects
    rows = {row.name: row.id for row in objects.by_names(cut.names)}
    holders = [
        [one.peer for one in objects.holdings_of(rows[shard]) if one.state == "held" and one.peer in federation.links]
        if shard in rows
        else []
        for shard in cut.names
    ]
    lying = {number for number, peers in enumerate(holders) if peers}
    left = iter([one for one in reading_order(cut.needed, lying, len(cut.names)) if one not in found])
    reasons: list[str] = []

    async def get(number: int) -> None:
        try:
            found[number] = await federation.fetch_stored(cut.names[number], holders[number])
        except NotFoundError as error:
            reasons.append(error.message)

    while len(found) < cut.needed:
        batch = _some(left, cut.needed - len(found))
        if not batch:
            raise NotFoundError(
                f"pack {short(name)}: {len(found)} of the {cut.needed} shards that it takes are within reach "
                f"({'; '.join(reasons)})",
                hint="when more peers answer, try again; `status` says which do not",
            )
        await asyncio.gather(*map(get, batch))
    return found


async def make_shards(
    name: ObjectName, cut: Cut, found: dict[int, bytes], missing: Collection[int]
) -> dict[int, bytes]:
    """Return missing shards of a pack, by number, made of others; no key is needed.

    Raises:
        NotFoundError: what was made is not what the index names, which then contradicts itself.
    """
    made = await asyncio.to_thread(rebuild, found, cut.coding, missing)
    wrong = [number for number, data in made.items() if name_of(data) != cut.names[number]]
    if wrong:
        raise NotFoundError(f"pack {short(name)}: shard {wrong[0]} cannot be made again: its index names another")
    return made


def _some(numbers: Iterator[int], count: int) -> Sequence[int]:
    return list(islice(numbers, count))
