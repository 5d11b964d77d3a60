"""Content checks with a restore key: open chunks, walk trees."""

from replicator.engine.browse import ChunkFetcher, Library, OpenSnapshot, newest_of_each
from replicator.engine.edge import Edge
from replicator.engine.forgetting import without_forgotten
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
    domains = {one.snapshot.domain for one in found}
    fetchers = {domain: ChunkFetcher(library, domain) for domain in domains}
    chosen = sample_of(packs, share, edge)
    edge.progress.stage("verifying", sum(row.size for row in chosen))
    for row in chosen:
        fetcher = fetchers[next(iter(domains))]
        try:
            reader = await fetcher.load(row.id)
            for segment in reader.directory.segments:
                reader.chunk(segment.kind, segment.chunk_id)
                report.chunks += 1
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
