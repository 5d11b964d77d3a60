"""Content checks with a restore key: open chunks, walk trees."""

from collections.abc import Iterable, Sequence

from replicator.catalog.objects import ObjectRow
from replicator.engine.browse import ChunkFetcher, Library, OpenSnapshot, newest_of_each
from replicator.engine.edge import Edge
from replicator.engine.forgetting import without_forgotten
from replicator.engine.keeper import ReaderHome
from replicator.engine.placing import PACK_KINDS, objects_of
from replicator.engine.verify import VerifyReport, sample_of, verify_sealed
from replicator.errors import FormatError, IntegrityError, NotFoundError
from replicator.ids import short
from replicator.snapshot.chunklist import batches
from replicator.snapshot.tree import TreeReader


async def verify_content(library: Library, edge: Edge, *, share: float) -> VerifyReport:
    """Do all that a sealed check does; open every chunk of a share of the packs and walk the newest trees."""
    keeper = library.keeper
    library = library.uncached()  # what lies here proves nothing about what lies there
    report = await verify_sealed(keeper, library.federation, edge, share=0.0)
    report.level = "content"
    found = await library.snapshots()
    packs = [
        row
        for row in objects_of(keeper, without_forgotten(keeper, keeper.catalog.snapshots.all()))
        if row.kind in PACK_KINDS
    ]
    fetchers = {domain: ChunkFetcher(library, domain) for domain in keeper.living_ids}
    domains = _domains_of_packs(keeper, found)
    if keeper.private.erased or {one.id for one in keeper.private.domains} - fetchers.keys():
        # Of no snapshot that opens here: it may be of a domain that this home cannot read.
        packs = [row for row in packs if row.id in domains]
    chosen = sample_of(packs, share, edge)
    edge.progress.stage("verifying", sum(row.size for row in chosen))
    for row in chosen:
        tried = [fetchers[domains[row.id]]] if row.id in domains else list(fetchers.values())
        try:
            report.chunks += await _open_all(tried, row)
        except NotFoundError as error:
            report.absent.append(str(error))
            continue
        except (IntegrityError, FormatError) as error:
            report.problems.append(f"{row.kind} pack {short(row.name)}: {error}")
            continue
        report.fetched += 1
        report.fetched_bytes += row.size
        edge.progress.advance(row.size)
    for snapshot in newest_of_each(found):
        await _walk(fetchers[snapshot.snapshot.domain], snapshot, report)
    return report


def _domains_of_packs(keeper: ReaderHome, found: Iterable[OpenSnapshot]) -> dict[int, bytes]:
    """Return the domain of each pack, by its row: that of the snapshots which name its index."""
    named = {name: one.snapshot.domain for one in found for name in one.snapshot.indexes}
    objects = keeper.catalog.objects
    indexes = {row.id: named[row.name] for row in objects.all("kind = 'index'") if row.name in named}
    return {row.id: indexes[row.index_id] for row in objects.all() if row.index_id in indexes}


async def _open_all(fetchers: Sequence[ChunkFetcher], row: ObjectRow) -> int:
    """Open every chunk of a pack with the keys of the first domain that does; return how many there are.

    Raises:
        IntegrityError, FormatError: none does.
    """
    for fetcher in fetchers:
        try:
            reader = await fetcher.load(row.id)
            for segment in reader.directory.segments:
                reader.chunk(segment.kind, segment.chunk_id)
        except (IntegrityError, FormatError):
            if fetcher is fetchers[-1]:
                raise
        else:
            return len(reader.directory.segments)
    return 0


async def _walk(fetcher: ChunkFetcher, snapshot: OpenSnapshot, report: VerifyReport) -> None:
    def work(reader: TreeReader) -> None:
        for _, entry in reader.walk(snapshot.details.tree):
            if entry.kind == "file" and entry.content is not None:
                for refs in batches(entry.content, fetcher):
                    fetcher.place([ref.id for ref in refs])

    try:
        await fetcher.in_thread(work)
    except NotFoundError as error:
        report.absent.append(f"snapshot {short(snapshot.row.name)}: {error}")
    except (IntegrityError, FormatError) as error:
        report.problems.append(f"snapshot {short(snapshot.row.name)}: {error}")
