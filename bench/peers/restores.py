"""``python -m bench.peers.restores``: restores of each tool, interleaved, of the tree of small files and of the large.

Every tool backs a corpus up once. Then, round by round: everything into an empty folder, with ``cp -a`` of the same
tree as the limit; one file of it; and for this project a restore over the last one after 1% of the files were changed
there, beside a full one. What was restored is compared with the source once for each tool. A last corpus has a million
names, of which one folder is listed.

Figures are medians over the rounds, ratios are against the fastest other tool of the same session. Each restore goes to
a folder of its own, after a sync that is not measured, so that none pays for the pages of the one before it. They are
removed at the very end, and nothing large should have been removed on that disk for some minutes: ext4 passes one by
one over inodes that were given back within the last minute, or the last six where their blocks are not written yet, and
whoever writes 200,000 files then takes twice as long.
"""

import argparse
import json
import os
import random
import statistics
from pathlib import Path
from typing import Any

from bench.peers import corpora, measure
from bench.peers.__main__ import machine, warm
from bench.peers.report import RESULTS
from bench.peers.tools import Replicator, Tool, available

FIELDS = ("wall_s", "cpu_s", "peak")


def main() -> None:
    """Run and write bench/results/restores.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, required=True, help="a folder on the disk to measure; grows by (3 + 4 × rounds) × size"
    )
    parser.add_argument("--size", type=int, default=4_000, help="MB in each corpus")
    parser.add_argument("--files", type=int, default=100_000, help="files in the tree of small files, at least")
    parser.add_argument("--names", type=int, default=1_000_000, help="files in the tree of which a folder is listed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus", action="append", choices=("small", "large", "names"))
    arguments = parser.parse_args()
    tools = available()
    found: dict[str, Any] = {}
    for corpus in arguments.corpus or ("small", "large", "names"):
        source = corpora.made(arguments.work, corpus, arguments.files, arguments.size * 10**6, arguments.names)
        for tool in tools:
            tool.prepare(arguments.work, source)
            tool.backup()
            print(f"{corpus}: {tool.name} has backed up", flush=True)
        measured = _lists if corpus == "names" else _restores
        found[corpus] = measured(source, arguments.work / "restored", tools, arguments.rounds)
        for tool in tools:
            tool.close()
    document = {
        "machine": machine(),
        "versions": {tool.name: tool.version() for tool in tools},
        "seed": corpora.SEED,
        "megabytes": arguments.size,
        "rounds": arguments.rounds,
        "figures": found,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "restores.json").write_text(json.dumps(document, indent=1) + "\n")
    text = _table(document)
    (RESULTS / "restores.md").write_text(text)
    print(text)


def _restores(source: Path, target: Path, tools: list[Tool], rounds: int) -> dict[str, Any]:
    """Return figures[stage][tool] as lists of runs."""
    figures: dict[str, Any] = {"full": {}, "one file": {}, "1% changed": {}}
    rng = random.Random(corpora.SEED)
    files = sorted(path for path in source.rglob("*") if path.is_file() and not path.is_symlink())
    warm(source)
    for number in range(rounds):
        for tool in tools[number % len(tools) :] + tools[: number % len(tools)]:
            own = _new(target, f"{number}-{tool.name}")
            _note(figures, "full", tool.name, tool.restore(own))
            found = corpora.restored(own, source)
            if number == 0:
                corpora.compare(source, found)
            if isinstance(tool, Replicator):
                corpora.touch_some(found, 0.01, corpora.SEED + number)
                os.sync()
                _note(figures, "1% changed", tool.name, tool.restore_over(own))
                if number == 0:
                    corpora.compare(source, found)
        own = _new(target, f"{number}-cp")
        _note(figures, "full", "cp -a", measure.run(["cp", "-a", str(source), str(own)], os.environ))
        one = rng.choice(files)
        for tool in tools:
            _note(figures, "one file", tool.name, tool.restore_one(_new(target, f"{number}-one-{tool.name}"), one))
    corpora.remove(target)
    return figures


def _lists(source: Path, _target: Path, tools: list[Tool], rounds: int) -> dict[str, Any]:
    figures: dict[str, Any] = {"list one folder": {}}
    folders = sorted(source.iterdir())
    for number in range(rounds):
        for tool in tools:
            run = tool.list(folders[len(folders) // 2 + number])
            if run.output.count("file-") < 1000:
                raise SystemExit(f"{tool.name} did not list the folder:\n{run.output[:500]}")
            _note(figures, "list one folder", tool.name, run)
    return figures


def _note(figures: dict[str, Any], stage: str, name: str, run: measure.Run) -> None:
    figures[stage].setdefault(name, []).append({field: getattr(run, field) for field in FIELDS})
    print(f"{stage:16} {name:11} {run.wall_s:8.2f} s {run.peak / 2**20:6.0f} MiB", flush=True)


def _new(target: Path, name: str) -> Path:
    own = target / name
    own.mkdir(parents=True)
    os.sync()
    return own


def _table(document: dict[str, Any]) -> str:
    versions = ", ".join(document["versions"].values())
    lines = [f"Machine: {document['machine']}. {versions}. Medians of {document['rounds']} rounds.", ""]
    for corpus, figures in document["figures"].items():
        lines += [f"## {corpus}", "", "| stage | tool | wall s | CPU s | peak MiB |", "|---|---|---|---|---|"]
        ratios = []
        for stage, names in figures.items():
            medians = {
                name: {field: statistics.median(run[field] for run in runs) for field in FIELDS}
                for name, runs in names.items()
            }
            for name, row in medians.items():
                cells = f"{row['wall_s']:.2f} | {row['cpu_s']:.2f} | {row['peak'] / 2**20:.0f}"
                lines.append(f"| {stage} | {name} | {cells} |")
            others = [row["wall_s"] for name, row in medians.items() if name not in ("replicator", "cp -a")]
            if others:
                ratios.append(f"- {stage}: {medians['replicator']['wall_s'] / min(others):.2f} × the faster other tool")
        if "1% changed" in figures:
            part, whole = (
                statistics.median(run["wall_s"] for run in figures[stage]["replicator"])
                for stage in ("1% changed", "full")
            )
            ratios.append(f"- over a restore of which 1% was changed: {part / whole:.2f} × a full one")
        lines += ["", *ratios, ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
