"""``python -m bench.dedup_quality --work FOLDER``: how much of successive versions the cutter finds again.

Writes bench/results/dedup.{json,md}. The corpora are sequences of streams, cut each on its own: releases of Django
(text) and NumPy (mostly binaries) as one uncompressed archive each, downloaded once to the folder; an SQLite file
after each of several edits; a copy of the last NumPy release with small insertions.

Unique/total is the length of the distinct chunks over that of all: lower is better. Shorter chunks always find
more, so every other chunker is run at its own sizes, and ours at the average that gives the same measured average
(total length over number of chunks) on the same corpus. Ours is the mean over several keys.
"""

import argparse
import importlib
import io
import json
import platform
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from blake3 import blake3

from chunker import Chunker, ChunkerParams, Compressor

RESULTS: Final = Path(__file__).parent / "results"
SEED: Final = 1
KEYS: Final = tuple(blake3(b"dedup %d" % number).digest() for number in range(3))
RELEASES: Final = {
    "django": ("4.2", "4.2.30", "5.0", "5.1", "5.2", "5.2.19"),
    "numpy": ("2.3.1", "2.3.5", "2.4.1", "2.4.6"),
}
PLATFORM: Final = ("--python-version", "3.11", "--platform", "manylinux_2_28_x86_64", "--only-binary", ":all:")
NOMINAL: Final = (16 << 10, 64 << 10, 256 << 10, 1 << 20)
EDITS: Final = 5
_TOLERANCE: Final = 0.01  # of the average, within which two chunkers are compared
_STEPS: Final = 12

Streams = Sequence[bytes]
Ends = Callable[[bytes], Sequence[int]]  # where the chunks of a stream end


@dataclass(frozen=True)
class Outcome:
    average: float
    unique: float  # of the total, by length


@dataclass(frozen=True)
class Comparison:
    corpus: str
    chunker: str
    nominal: int
    other: Outcome
    ours: Outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--work", type=Path, required=True, help="where the releases are downloaded to and kept")
    work = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    found: list[Comparison] = []
    sizes: list[dict[str, Any]] = []
    totals: dict[str, dict[str, int]] = {}
    for corpus, streams in corpora(work):
        totals[corpus] = {"streams": len(streams), "bytes": sum(map(len, streams))}
        for nominal in NOMINAL:
            found += [compare(corpus, streams, nominal, *other) for other in others(nominal)]
            sizes.append({"corpus": corpus, "average": nominal, **cost(streams, nominal)})
        print(f"{corpus}: done", file=sys.stderr)
    write(totals, found, sizes)


def corpora(work: Path) -> list[tuple[str, Streams]]:
    django, numpy = (releases(work, package, versions) for package, versions in RELEASES.items())
    return [
        ("django releases", django),
        ("numpy releases", numpy),
        ("SQLite file", database(random.Random(SEED))),
        ("insertions", [numpy[-1], with_insertions(numpy[-1], 512 << 10, random.Random(SEED))]),
    ]


def releases(work: Path, package: str, versions: Sequence[str]) -> Streams:
    """Each version as one archive: its files in the order of their names, each after a line with the name."""
    archives = []
    for version in versions:
        folder = work / f"{package}-{version}"
        if not list(folder.glob("*.whl")):
            options = ["--quiet", "--no-deps", *PLATFORM, "--dest", str(folder)]
            subprocess.run([sys.executable, "-m", "pip", "download", *options, f"{package}=={version}"], check=True)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archives.append(b"".join(name.encode() + b"\n" + archive.read(name) for name in sorted(archive.namelist())))
    return archives


def database(rng: random.Random) -> Streams:
    """The file after filling it, after each of several edits of a few rows in a hundred, and after a VACUUM."""

    def row() -> tuple[str, str, bytes]:
        name = f"{rng.choice('abcdefgh')}{rng.getrandbits(40):x}"
        return name, f"{name} of {rng.randrange(1000)} " * rng.randrange(1, 12), rng.randbytes(rng.randrange(200))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edited.sqlite"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, note TEXT, content BLOB)")

            def insert(count: int) -> None:
                connection.execute("BEGIN")
                rows = (row() for _ in range(count))
                connection.executemany("INSERT INTO item (name, note, content) VALUES (?, ?, ?)", rows)
                connection.execute("COMMIT")

            insert(150_000)
            connection.execute("CREATE INDEX item_name ON item (name)")
            states = [path.read_bytes()]
            for edit in range(EDITS):
                gone, changed = rng.randrange(140_000), rng.randrange(140_000)
                connection.execute("DELETE FROM item WHERE id BETWEEN ? AND ?", (gone, gone + 1500))
                connection.execute(
                    "UPDATE item SET note = note || ? WHERE id BETWEEN ? AND ?",
                    (f"edit {edit}", changed, changed + 1500),
                )
                insert(4000)
                states.append(path.read_bytes())
            connection.execute("VACUUM")
            states.append(path.read_bytes())
    return states


def with_insertions(data: bytes, distance: int, rng: random.Random) -> bytes:
    """A copy with 1 to 200 bytes inserted somewhere in each piece of one length."""
    pieces = []
    for start in range(0, len(data), distance):
        piece = data[start : start + distance]
        at = rng.randrange(len(piece))
        pieces += [piece[:at], rng.randbytes(rng.randrange(1, 201)), piece[at:]]
    return b"".join(pieces)


def others(nominal: int) -> list[tuple[str, Ends]]:
    """The name and the cuts, at a nominal average, of every other chunker that is installed."""

    def fixed(data: bytes) -> Sequence[int]:
        return [*range(nominal, len(data), nominal), len(data)]

    found: list[tuple[str, Ends]] = [("fixed blocks", fixed)]
    pyfastcdc, borg = _optional("pyfastcdc"), _optional("borg.chunker")
    if pyfastcdc is not None:
        gear = pyfastcdc.FastCDC(avg_size=nominal, min_size=nominal // 4, max_size=nominal * 4)
        found.append(("pyfastcdc", lambda data: [chunk.offset + chunk.length for chunk in gear.cut_buf(data)]))
    if borg is not None:
        bits = nominal.bit_length() - 1
        buzhash = borg.get_chunker("buzhash", bits - 2, bits + 2, bits, 4095, seed=0)

        def ends(data: bytes) -> Sequence[int]:
            cuts = [0]
            for chunk in buzhash.chunkify(io.BytesIO(data)):
                cuts.append(cuts[-1] + chunk.meta["size"])
            return cuts[1:]

        found.append(("borg buzhash", ends))
    return found


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def compare(corpus: str, streams: Streams, nominal: int, name: str, ends: Ends) -> Comparison:
    other = outcome(streams, ends)
    return Comparison(corpus, name, nominal, other, ours_at(streams, other.average))


def ours_at(streams: Streams, average: float) -> Outcome:
    """Ours with the nominal average that gives this measured one, found by correcting it in proportion."""
    nominal = average
    for _ in range(_STEPS):
        params = params_for(nominal)
        each = [outcome(streams, ours(key, params)) for key in KEYS]
        mean = Outcome(
            statistics.fmean(one.average for one in each),
            statistics.fmean(one.unique for one in each),
        )
        if abs(mean.average / average - 1) <= _TOLERANCE:
            break
        nominal *= average / mean.average
    return mean


def params_for(average: float) -> ChunkerParams:
    """The proportions of the presets, at another average and within the bounds."""
    middle = max(1 << 14, min(round(average), 3 << 20))
    return ChunkerParams(middle // 4, middle, min(4 * middle, 4 << 20))


def ours(key: bytes, params: ChunkerParams) -> Ends:
    cutter = Chunker.from_params(key, params)
    return lambda data: cutter.cuts(data)[0].tolist()


def chunks_of(streams: Streams, ends: Ends) -> dict[bytes, list[memoryview]]:
    """The chunks under their ids."""
    found: dict[bytes, list[memoryview]] = {}
    for stream in streams:
        view = memoryview(stream)
        for start, end in pairwise([0, *ends(stream)]):
            chunk = view[start:end]
            found.setdefault(blake3(chunk).digest(), []).append(chunk)
    return found


def outcome(streams: Streams, ends: Ends) -> Outcome:
    found = chunks_of(streams, ends)
    total = sum(map(len, streams))
    unique = sum(len(copies[0]) for copies in found.values())
    return Outcome(total / sum(map(len, found.values())), unique / total)


def cost(streams: Streams, average: int) -> dict[str, float]:
    """What one of our sizes stores: distinct bytes, the same compressed, and how many rows an index then has."""
    found = chunks_of(streams, ours(KEYS[0], params_for(average)))
    total = sum(map(len, streams))
    compressor = Compressor()
    return {
        "measured average": total / sum(map(len, found.values())),
        "unique": sum(len(copies[0]) for copies in found.values()) / total,
        "compressed": sum(len(compressor.compress(copies[0])[1]) for copies in found.values()) / total,
        "rows": len(found),
    }


def write(totals: dict[str, dict[str, int]], found: Sequence[Comparison], sizes: Sequence[dict[str, Any]]) -> None:
    """Both files say the same."""
    conditions = {
        "releases": {package: list(versions) for package, versions in RELEASES.items()},
        "seed": SEED,
        "keys": len(KEYS),
        "SQLite": sqlite3.sqlite_version,
        "python": platform.python_version(),
        "others": {name: _version(name) for name in ("pyfastcdc", "borg") if _optional(name)},
        "corpora": totals,
    }
    RESULTS.mkdir(exist_ok=True)
    document = {"conditions": conditions, "comparisons": [asdict(row) for row in found], "sizes": sizes}
    (RESULTS / "dedup.json").write_text(json.dumps(document, indent=1) + "\n")
    lines = ["# Deduplication", "", "Unique/total, lower is better, at equal measured average length.", ""]
    lines += [f"{name}: {value}  " for name, value in conditions.items()]
    lines += [
        "",
        "| corpus | other | measured average | other's | ours | ours / other's |",
        "|---|---|---|---|---|---|",
    ]
    for row in found:
        near = "" if abs(row.ours.average / row.other.average - 1) <= _TOLERANCE else f" (ours {row.ours.average:,.0f})"
        lines.append(
            f"| {row.corpus} | {row.chunker} {row.nominal >> 10}K | {row.other.average:,.0f}{near} "
            f"| {row.other.unique:.3f} | {row.ours.unique:.3f} | {row.ours.unique / row.other.unique:.3f} |"
        )
    lines += ["", "Ours at its sizes, of the total; rows are distinct chunks.", ""]
    lines += ["| corpus | average | measured | unique | unique, zstd 3 | rows |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['corpus']} | {row['average'] >> 10}K | {row['measured average']:,.0f} "
        f"| {row['unique']:.3f} | {row['compressed']:.3f} | {row['rows']:,} |"
        for row in sizes
    ]
    (RESULTS / "dedup.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _version(name: str) -> str:
    module = _optional(name)
    return str(getattr(module, "__version__", "unknown"))


if __name__ == "__main__":
    main()
