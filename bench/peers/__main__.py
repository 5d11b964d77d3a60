"""``python -m bench.peers``: first, unchanged and touched backups of each corpus with each tool, a check and a prune.

The check reads and decrypts everything; the prune is of the first of the three snapshots. Every round prepares empty
repositories and runs the tools in turn on the same data; figures are medians over the rounds, ratios are against the
fastest other tool of the same session. The page cache is warm: each corpus is read once before the first round.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

from bench.peers import corpora
from bench.peers.tools import Tool, available

BACKUPS = ("first", "unchanged", "touched")
STAGES = (*BACKUPS, "check", "prune")
FIELDS = ("wall_s", "cpu_s", "peak")
RESULTS = Path(__file__).parent.parent / "results"


def main() -> None:
    """Run and write bench/results/peers.{json,md}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a folder on the disk to measure; grows by 3 × size")
    parser.add_argument("--size", type=int, default=4_000, help="MB in each corpus")
    parser.add_argument("--files", type=int, default=100_000, help="files in the tree of small files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus", action="append", choices=("small", "large", "random"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    size = arguments.size * 10**6
    found: dict[str, Any] = {}
    tools = available()
    versions = {tool.name: tool.version() for tool in tools}
    for corpus in arguments.corpus or ("small", "large", "random"):
        source = corpora.made(arguments.work, corpus, arguments.files, size)
        found[corpus] = measure_corpus(source, arguments.work, tools, arguments.rounds)
    write(found, versions, arguments)


def measure_corpus(source: Path, work: Path, tools: list[Tool], rounds: int) -> dict[str, Any]:
    """Return figures[tool][stage][field] as lists over the rounds, and what was stored."""
    warm(source)
    figures: dict[str, Any] = {tool.name: {stage: [] for stage in STAGES} for tool in tools}
    for number in range(rounds):
        # Later rounds begin with another tool, so that none always meets the disk in one state.
        order = tools[number % len(tools) :] + tools[: number % len(tools)]
        for tool in order:
            tool.prepare(work, source)
        for stage in STAGES:
            if stage == "touched":
                corpora.touch_some(source, 0.01, corpora.SEED + number)
                time.sleep(3)  # so that no tool finds files younger than its clock's grain
            for tool in order:
                result = tool.backup() if stage in BACKUPS else tool.check() if stage == "check" else tool.prune()
                figures[tool.name][stage].append(
                    {field: getattr(result, field) for field in FIELDS} | {"stored": tool.size()}
                )
                print(f"{source.name} {number} {stage:10} {tool.name:11} {result.wall_s:8.2f} s", flush=True)
        for tool in tools:
            tool.close()
    return figures


def warm(source: Path) -> None:
    """Read everything once."""
    for path in source.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 22):
                    pass


def write(found: dict[str, Any], versions: dict[str, str], arguments: argparse.Namespace) -> None:
    """Write the JSON with every run and the Markdown with medians and ratios."""
    RESULTS.mkdir(exist_ok=True)
    document = {
        "machine": machine(),
        "python": platform.python_version(),
        "versions": versions,
        "seed": corpora.SEED,
        "megabytes": arguments.size,
        "files": arguments.files,
        "rounds": arguments.rounds,
        "figures": found,
    }
    (RESULTS / "peers.json").write_text(json.dumps(document, indent=1) + "\n")
    lines = [f"Machine: {machine()}. {', '.join(versions.values())}. Medians of {arguments.rounds} rounds.", ""]
    for corpus, figures in found.items():
        lines += [f"## {corpus}", "", "| stage | tool | wall s | CPU s | peak MiB | stored MB | files |"]
        lines.append("|---|---|---|---|---|---|---|")
        for stage in STAGES:
            for name, stages in figures.items():
                runs = stages[stage]
                wall, cpu, peak = (statistics.median(run[field] for run in runs) for field in FIELDS)
                stored, files = runs[-1]["stored"]
                lines.append(
                    f"| {stage} | {name} | {wall:.2f} | {cpu:.2f} | {peak / 2**20:.0f} | {stored / 1e6:.1f} | {files} |"
                )
        lines += ["", *ratios(figures), ""]
    (RESULTS / "peers.md").write_text("\n".join(lines))
    print("\n".join(lines))


def ratios(figures: dict[str, Any]) -> list[str]:
    """Return replicator against the best other tool, field by field."""
    others = [name for name in figures if name != "replicator"]
    if not others:
        return ["No other tool was on PATH."]
    lines = []
    for stage in STAGES:
        parts = []
        for field in FIELDS:
            ours = statistics.median(run[field] for run in figures["replicator"][stage])
            best = min(statistics.median(run[field] for run in figures[name][stage]) for name in others)
            parts.append(f"{field} {ours / best:.2f} ×")
        stored = figures["replicator"][stage][-1]["stored"][0]
        smallest = min(figures[name][stage][-1]["stored"][0] for name in others)
        lines.append(f"- {stage}: {', '.join(parts)}, stored {stored / smallest:.3f} × of the best other tool")
    return lines


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
