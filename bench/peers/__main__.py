"""``python -m bench.peers``: whole backups of each corpus with each tool, in turn, and what becomes of them.

Every round prepares empty repositories. Then, stage by stage and tool by tool: a first backup, one of what has not
changed, one after 1% of the files were changed, a full restore and one of a single file into empty folders, the
removal of the oldest of the three snapshots, and a check that reads and decrypts everything. What the first round
restores is compared with the source. Figures are medians over the rounds, ratios are against the fastest other tool of
the same session. The page cache is warm: each corpus is read once before the first round; and a sync that is not
measured stands before each run, so that none pays for the pages of the one before it.

What was restored is removed at the end of a corpus, and the tree of small files is the last: ext4 passes one by one
over inodes that were given back in the last minutes (see ``bench.peers.restores``).
"""

import argparse
import json
import os
import platform
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.peers import corpora, measure
from bench.peers.report import OURS, RESULTS, STAGES, write
from bench.peers.tools import Tool, available

CORPORA = ("large", "random", "small")


def main() -> None:
    """Run and write bench/results/peers.{json,md,svg}; :mod:`bench.peers.report` does the last two and the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a folder on the disk to measure; grows by 20 × size")
    parser.add_argument("--size", type=int, default=4_000, help="MB in each corpus")
    parser.add_argument("--files", type=int, default=100_000, help="files in the tree of small files, at least")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus", action="append", choices=CORPORA)
    parser.add_argument("--tool", action="append", help="only this one, beside replicator; else all on PATH")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to write them (a trial: elsewhere)")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    sizes: dict[str, Any] = {}
    tools = [tool for tool in available() if not arguments.tool or tool.name in (OURS, *arguments.tool)]
    for corpus in arguments.corpus or CORPORA:
        source = corpora.made(arguments.work, corpus, arguments.files, arguments.size * 10**6)
        sizes[corpus] = measure.stored(str(source))
        found[corpus] = measure_corpus(source, arguments.work, tools, arguments.rounds)
    document = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",  # noqa: TID251 - the day of a measurement is the wall's
        "machine": machine(),
        "python": platform.python_version(),
        "versions": {tool.name: tool.version() for tool in tools},
        "settings": {tool.name: tool.settings for tool in tools},
        "seed": corpora.SEED,
        "rounds": arguments.rounds,
        "corpora": sizes,
        "figures": found,
    }
    arguments.results.mkdir(exist_ok=True)
    (arguments.results / "peers.json").write_text(json.dumps(document, indent=1) + "\n")
    write(arguments.results)


def measure_corpus(source: Path, work: Path, tools: list[Tool], rounds: int) -> dict[str, Any]:
    """Return figures[tool][stage] as a list over the rounds."""
    warm(source)
    restored = work / "restored"
    figures: dict[str, Any] = {tool.name: {stage: [] for stage in STAGES} for tool in tools}
    rng = random.Random(corpora.SEED)
    for number in range(rounds):
        # Later rounds begin with another tool, so that none always meets the disk in one state.
        order = tools[number % len(tools) :] + tools[: number % len(tools)]
        for tool in order:
            tool.prepare(work, source)
        one = rng.choice(sorted(path for path in source.rglob("*") if path.is_file() and not path.is_symlink()))
        for stage in STAGES:
            if stage == "touched":
                corpora.touch_some(source, 0.01, corpora.SEED + number)
                time.sleep(3)  # so that no tool finds files younger than its clock's grain
            for tool in order:
                target = restored / f"{number}-{stage}-{tool.name}"
                target.mkdir(parents=True)
                os.sync()
                run = run_stage(tool, stage, target, one)
                figures[tool.name][stage].append(
                    {"wall_s": run.wall_s, "cpu_s": run.cpu_s, "peak": run.whole, "stored": tool.size()}
                )
                print(f"{source.name} {number} {stage:10} {tool.name:11} {run.wall_s:8.2f} s", flush=True)
                if number == 0 and stage == "restore":
                    corpora.compare(source, corpora.restored(target, source))
        for tool in tools:
            tool.close()
    corpora.remove(restored)
    return figures


def run_stage(tool: Tool, stage: str, target: Path, one: Path) -> measure.Run:
    """Let a tool do what a stage is; ``one`` is the file that comes back alone."""
    match stage:
        case "restore":
            return tool.restore(target)
        case "one":
            return tool.restore_one(target, one)
        case "prune":
            return tool.prune()
        case "check":
            return tool.check()
        case _:
            return tool.backup()


def warm(source: Path) -> None:
    """Read everything once."""
    for path in source.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 22):
                    pass


def machine() -> str:
    """Return what figures were measured on."""
    return f"{os.cpu_count()} cores, {platform.machine()}, {_model()}, Linux {platform.release()}"


def _model() -> str:
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "unknown processor"


if __name__ == "__main__":
    main()
