"""``python -m bench.prune_report --work FOLDER``: planning a prune and repacking, to bench/results/prune.{json,md}.

The plan is made over 10^5 packs with 10^7 chunks in a catalog on disk, and references to most of them in a chain with
changes, by a process of its own, so that its memory is its own. Repacking takes packs of 16 MiB of which three chunks
in five are needed from a folder, and writes and syncs new ones; beside it, in turns, ``cp`` copies the same packs and
they are synced. The page cache is warm for both. ``--small`` is a hundredth, in seconds.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from replicator.catalog.catalog import Catalog
from replicator.engine.pruneplan import Change, Kept, PackFacts, StoredIds, plan_prune
from replicator.format.container import Kind
from replicator.format.merkle import name_of
from replicator.format.pack import CHUNK_DATA
from replicator.fs import PosixFs
from replicator.pack.packer import SealedPack, seal_pack
from replicator.pack.repack import Repacker
from tests.fakes import SeededRng
from tests.pack.support import HASHERS, KEYS, POLICY

RESULTS: Final = Path(__file__).parent / "results"
SEED: Final = 20261128
CHUNKS_A_PACK: Final = 115
IDS_IN_REFERENCES: Final = 400_000
SNAPSHOTS: Final = 20
CHUNK: Final = 256 << 10
LIVE: Final = 0.6
WRITER, DOMAIN = b"w" * 32, b"d" * 16
_ID = np.dtype("S32")


def make_catalog(path: Path, packs: int) -> None:
    """Write a catalog of packs with random chunk ids, a thousand packs to an index."""
    rng = np.random.default_rng(SEED)
    catalog = Catalog(str(path), PosixFs())
    with catalog.database.transaction("packs") as connection:
        for number in range(1, packs + 1):
            connection.execute(
                "INSERT INTO objects (id, name, writer, kind, size, policy, index_id, spooled, created_ns, lost) "
                "VALUES (?, ?, ?, 'data', ?, ?, ?, 0, 0, 0)",
                (number, rng.bytes(32), WRITER, 16 << 20, POLICY, packs + 1 + number // 1000),
            )
            connection.execute("INSERT INTO pack_ids VALUES (?, ?)", (number, rng.bytes(32 * CHUNKS_A_PACK)))
    catalog.close()


def make_references(catalog: Catalog, path: Path, packs: int) -> tuple[list[Kept], dict[bytes, Change]]:
    """Write references to nine chunks in ten of nine packs in ten; each later change drops and adds some."""
    rng = np.random.default_rng(SEED + 1)
    joined = b"".join(ids for number, ids in catalog.objects.all_packs() if number <= packs * 9 // 10)
    ids = np.frombuffer(joined, _ID)
    ids = np.sort(ids[rng.random(len(ids)) < 0.9])
    parts = [(ids[at : at + IDS_IN_REFERENCES], ids[:0]) for at in range(0, len(ids), IDS_IN_REFERENCES)]
    first = len(parts)
    few = max(1, len(ids) // 200)
    for number in range(SNAPSHOTS - 1):
        chosen = ids[rng.random(len(ids)) < 1 / 200][:few]
        parts.append((chosen, ids[:0]) if number % 2 else (ids[:0], chosen))
    changes: dict[bytes, Change] = {}
    names: list[bytes] = []
    with path.open("wb") as file:
        for added, dropped in parts:
            stored = []
            for run in (added, dropped):
                stored.append(StoredIds(PosixFs(), str(path), file.tell(), run.nbytes))
                file.write(run.tobytes())
            name = rng.bytes(32)
            changes[name] = Change(
                name=name,
                writer=WRITER,
                domain=DOMAIN,
                base=names[-1] if names else b"",
                added=stored[0],
                dropped=stored[1],
            )
            names.append(name)
    indexes = tuple({b"%032d" % (packs + 1 + number // 1000) for number in range(1, packs + 1)})
    kept = [
        Kept(name=rng.bytes(32), writer=WRITER, domain=DOMAIN, indexes=indexes, references=tuple(names[:end]))
        for end in range(first, len(names) + 1)
    ]
    return kept, changes


def planned(folder: Path, packs: int) -> dict[str, Any]:
    """Make the plan in this process; return what it cost."""
    catalog = Catalog(str(folder / "catalog.db"), PosixFs())
    with (folder / "references.json").open() as file:
        told = json.load(file)
    stored = str(folder / "references")
    changes = {
        bytes.fromhex(one["name"]): Change(
            name=bytes.fromhex(one["name"]),
            writer=WRITER,
            domain=DOMAIN,
            base=bytes.fromhex(one["base"]),
            added=StoredIds(PosixFs(), stored, *one["added"]),
            dropped=StoredIds(PosixFs(), stored, *one["dropped"]),
        )
        for one in told["changes"]
    }
    names = list(changes)
    indexes = tuple(bytes.fromhex(one) for one in told["indexes"])
    kept = [
        Kept(name=b"%032d" % end, writer=WRITER, domain=DOMAIN, indexes=indexes, references=tuple(names[:end]))
        for end in told["ends"]
    ]
    started = time.monotonic()
    facts = [
        PackFacts(
            number=row.id,
            name=row.name,
            index=b"%032d" % (row.index_id or 0),
            writer=row.writer,
            domain=DOMAIN,
            kind=row.kind,
            policy=row.policy,
            size=row.size,
        )
        for row in catalog.objects.all("kind = 'data'")
    ]
    plan = plan_prune(kept, changes, facts, catalog.objects.all_packs, [])
    seconds = time.monotonic() - started
    assert not plan.gaps, plan.gaps
    assert len(plan.dead) == packs - packs * 9 // 10
    catalog.close()
    return {
        "packs": plan.packs,
        "chunks": plan.chunks,
        "references": sum(len(one.added) + len(one.dropped) for one in changes.values()) // _ID.itemsize,
        "needed": plan.needed,
        "snapshots": len(kept),
        "seconds": round(seconds, 2),
        "peak_mib": _peak_kib() >> 10,
    }


def _peak_kib() -> int:
    """Return this process's peak; what getrusage says is inherited from who started it."""
    [line] = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM:")]
    return int(line.split()[1])


def plan_figures(folder: Path, packs: int) -> dict[str, Any]:
    """Make what a plan needs, then plan in a new process; return what that cost."""
    make_catalog(folder / "catalog.db", packs)
    catalog = Catalog(str(folder / "catalog.db"), PosixFs())
    kept, changes = make_references(catalog, folder / "references", packs)
    catalog.close()
    document = {
        "changes": [
            {
                "name": one.name.hex(),
                "base": one.base.hex(),
                "added": [one.added.offset, one.added.size],
                "dropped": [one.dropped.offset, one.dropped.size],
            }
            for one in changes.values()
            if isinstance(one.added, StoredIds) and isinstance(one.dropped, StoredIds)
        ],
        "indexes": [name.hex() for name in kept[0].indexes],
        "ends": [len(one.references) for one in kept],
    }
    (folder / "references.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "bench.prune_report", "--work", str(folder), "--plan", str(packs)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


def make_packs(folder: Path, count: int) -> list[tuple[Path, list[bytes]]]:
    """Write full packs of chunks that do not compress; return them with their ids."""
    rng = SeededRng(f"prune report {SEED}")
    found = []
    for number in range(count):
        plains = [rng.bytes(CHUNK) for _ in range(62)]
        chunks: list[tuple[bytes, int, int, int, bytes]] = [
            (HASHERS[CHUNK_DATA](plain), CHUNK_DATA, 0, len(plain), plain) for plain in plains
        ]
        pack = seal_pack(chunks, Kind.DATA_PACK, POLICY, KEYS, rng, HASHERS)
        path = folder / f"{number:04}"
        path.write_bytes(pack.data)
        found.append((path, [chunk[0] for chunk in chunks]))
    return found


def repack_figures(folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Repack and copy in turns; return bytes a second of old packs for both."""
    (folder / "old").mkdir()
    packs = make_packs(folder / "old", count)
    size = sum(path.stat().st_size for path, _ in packs)
    choice = np.random.default_rng(SEED + 2)
    live = [{one for one in ids if choice.random() < LIVE} for _, ids in packs]
    repacking, copying, naming = [], [], []
    for _ in range(rounds):
        naming.append(_timed(folder / "new", lambda: _name(packs)))
        copying.append(_timed(folder / "new", lambda: _copy(folder / "old", folder / "new")))
        repacking.append(_timed(folder / "new", lambda: _repack(packs, live, folder / "new")))
    ratios = [copy / own for copy, own in zip(copying, repacking, strict=True)]
    return {
        "packs": count,
        "bytes": size,
        "live": LIVE,
        "repack_s": round(statistics.median(repacking), 2),
        "copy_s": round(statistics.median(copying), 2),
        "name_s": round(statistics.median(naming), 2),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": sorted(round(one, 2) for one in ratios),
    }


def _timed(target: Path, work: Callable[[], None]) -> float:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    os.sync()
    started = time.monotonic()
    work()
    return time.monotonic() - started


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-r", "--reflink=never", f"{source}/.", str(target)], check=True)
    for path in target.iterdir():
        _sync(path)


def _repack(packs: list[tuple[Path, list[bytes]]], live: list[set[bytes]], target: Path) -> None:
    """Repack as maintenance does: while one pack is worked on the next one comes; what is made is written beside it.

    All is synced at the end, as what was copied is.
    """
    with ThreadPoolExecutor(1) as writer, ThreadPoolExecutor(1) as reader:
        written: list[Future[int]] = []

        def emit(pack: SealedPack) -> None:
            written.append(writer.submit((target / pack.name.hex()).write_bytes, pack.data))

        repacker = Repacker(Kind.DATA_PACK, POLICY, KEYS, SeededRng("repacked"), emit)
        paths = [path for path, _ in packs]
        coming = reader.submit(paths[0].read_bytes)
        for following, wanted in zip([*paths[1:], None], live, strict=True):
            data = coming.result()
            if following is not None:
                coming = reader.submit(following.read_bytes)
            repacker.add(data, wanted)
        repacker.flush()
        for one in written:
            one.result()
    for path in target.iterdir():
        _sync(path)


def _name(packs: list[tuple[Path, list[bytes]]]) -> None:
    for path, _ in packs:
        name_of(path.read_bytes())


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def lines(document: dict[str, Any]) -> Iterator[str]:
    """Yield the report for people."""
    plan, repack, conditions = document["plan"], document["repack"], document["conditions"]
    yield "# Pruning: what it costs"
    yield ""
    yield f"By `python -m bench.prune_report`, {conditions['date']}, on {conditions['machine']}, Python "
    yield f"{conditions['python']}; load {conditions['load']} at the start. Seed {SEED}."
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| plan over | {plan['packs']} packs, {plan['chunks']} chunks, {plan['references']} references |"
    yield f"| snapshots | {plan['snapshots']} |"
    yield f"| time | {plan['seconds']} s (demanded: 60) |"
    yield f"| peak memory of the process | {plan['peak_mib']} MiB (demanded: 512) |"
    yield f"| repacked | {repack['packs']} packs, {repack['bytes'] / 1e6:.0f} MB, {repack['live']:.0%} needed |"
    yield f"| time | {repack['repack_s']} s, {repack['bytes'] / 1e6 / repack['repack_s']:.0f} MB/s |"
    copied = repack["bytes"] / 1e6 / repack["copy_s"]
    yield f"| `cp` and sync of the same packs | {repack['copy_s']} s, {copied:.0f} MB/s |"
    named = repack["bytes"] / 1e6 / repack["name_s"]
    yield f"| checking their names, as all that is fetched is | {repack['name_s']} s, {named:.0f} MB/s |"
    least, most = repack["ratios"][0], repack["ratios"][-1]
    rounds = len(repack["ratios"])
    yield f"| speed, of `cp`'s | {repack['ratio']}; {least} to {most} in {rounds} rounds (demanded: 0.5) |"


def measure(work: Path, *, packs: int, repacked: int, rounds: int) -> dict[str, Any]:
    """Return all figures, taken in a folder of their own below ``work``."""
    load = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        (Path(folder) / "plan").mkdir()
        (Path(folder) / "repack").mkdir()
        plan = plan_figures(Path(folder) / "plan", packs)
        repack = repack_figures(Path(folder) / "repack", repacked, rounds)
    conditions = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "load": load,
    }
    return {"conditions": conditions, "plan": plan, "repack": repack}


def main() -> None:
    """Measure and write the results; with ``--plan`` only make the plan, as the process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--small", action="store_true", help="a hundredth; results are printed and not kept")
    parser.add_argument("--plan", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plan is not None:
        print(json.dumps(planned(arguments.work, arguments.plan)))
        return
    if arguments.small:
        print(json.dumps(measure(arguments.work, packs=1000, repacked=4, rounds=1), indent=1))
        return
    document = measure(arguments.work, packs=100_000, repacked=48, rounds=5)
    (RESULTS / "prune.json").write_text(json.dumps(document, indent=1) + "\n")
    (RESULTS / "prune.md").write_text("\n".join(lines(document)) + "\n")
    print("\n".join(lines(document)))


if __name__ == "__main__":
    main()
