"""``python -m bench.peers.report``: what bench/results/peers.json says, as Markdown, as a chart and in the README.

All but :func:`main` and :func:`write` are functions of the document that ``python -m bench.peers`` writes. A figure is
the median over the rounds; what was stored is that of the last round, after the stage.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.peers.chart import Bar, Group, Panel, chart

RESULTS: Final = Path(__file__).parents[1] / "results"
README: Final = Path(__file__).parents[2] / "README.md"
BEGIN: Final = "<!-- made by python -m bench.peers.report -->"
END: Final = "<!-- end of what it makes -->"

STAGES: Final[Mapping[str, str]] = {
    "first": "first backup",
    "unchanged": "nothing changed",
    "touched": "1% changed",
    "restore": "all of it back",
    "one": "one file back",
    "prune": "oldest snapshot dropped",
    "check": "all read and checked",
}
FIELDS: Final = ("wall_s", "cpu_s", "peak")
OURS: Final = "replicator"
NOISE: Final = 1.05
"""Ratios below that are none: runs on a quiet machine differ by so much (bench/README.md)."""

CORPORA: Final = {
    "small": "a tree of small files",
    "large": "binaries, a database and a disk image",
    "random": "incompressible files",
}
PRUNED: Final = "dropping a snapshot only marks what it alone needs: providers delete that weeks later"

Document = Mapping[str, Any]
Figures = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]


def main() -> None:
    """Write all that follows from bench/results/peers.json."""
    write(RESULTS)
    document = json.loads((RESULTS / "peers.json").read_text())
    README.write_text(quoted(README.read_text(), document))


def write(results: Path) -> None:
    """Write the Markdown and the chart beside a document."""
    document = json.loads((results / "peers.json").read_text())
    (results / "peers.md").write_text(markdown(document))
    (results / "peers.svg").write_text(chart(heading(document), panels(document)))


def median(figures: Figures, tool: str, stage: str, field: str) -> float:
    """Return a figure of a tool."""
    return float(statistics.median(run[field] for run in figures[tool][stage]))


def peak(figures: Figures, tool: str) -> float:
    """Return the most memory that a tool took in any stage."""
    return max(median(figures, tool, stage, "peak") for stage in stages(figures))


def stored(figures: Figures, tool: str, stage: str) -> tuple[int, int]:
    """Return bytes and files in a tool's store after a stage."""
    size, files = figures[tool][stage][-1]["stored"]
    return size, files


def stages(figures: Figures) -> list[str]:
    """Return the stages that were measured."""
    return [stage for stage in STAGES if all(tools.get(stage) for tools in figures.values())]


def heading(document: Document) -> str:
    """Return when, where and with what it was measured."""
    versions = ", ".join(version_of(document, tool) for tool in document["versions"])
    return f"{document['date']}, {document['machine']}: {versions}; medians of {document['rounds']} rounds"


def version_of(document: Document, tool: str) -> str:
    """Return a tool's name and version, without what it was compiled with."""
    words = document["versions"][tool].replace(",", " ").split()
    return f"{tool} {next(word for word in words if word[0].isdigit())}"


def corpus_of(document: Document, corpus: str) -> str:
    """Return in words what was backed up."""
    size, files = document["corpora"][corpus]
    return f"{CORPORA[corpus]} ({files:,} files, {size / 1e9:.1f} GB)"


def markdown(document: Document) -> str:
    """Return all medians and ratios, and the settings."""
    lines = [f"{heading(document)}. Seed {document['seed']}. How it is measured: [bench](../README.md).", ""]
    lines += ["![chart](peers.svg)", ""]
    for corpus, figures in document["figures"].items():
        lines += [f"## {corpus}: {corpus_of(document, corpus)}", ""]
        lines += ["| stage | tool | wall s | CPU s | peak MiB | stored MB | files |", "|---|---|---|---|---|---|---|"]
        for stage in stages(figures):
            for tool in figures:
                wall, cpu, peak = (median(figures, tool, stage, field) for field in FIELDS)
                size, files = stored(figures, tool, stage)
                lines.append(
                    f"| {STAGES[stage]} | {tool} | {wall:.2f} | {cpu:.2f} | {peak / 2**20:.0f} | {size / 1e6:.1f} | "
                    f"{files} |"
                )
        lines += ["", *ratios(figures), ""]
    lines += ["## Settings", "", "| tool | setting | why |", "|---|---|---|"]
    for tool, settings in document["settings"].items():
        lines += [f"| {tool} | `{what}` | {why} |" for what, why in settings]
    return "\n".join([*lines, ""])


def ratios(figures: Figures) -> list[str]:
    """Return this program against the best other tool, field by field."""
    others = [tool for tool in figures if tool != OURS]
    if not others:
        return ["No other tool was on PATH."]
    lines = []
    for stage in stages(figures):
        parts = [f"{field} {ratio(figures, stage, field)[0]:.2f} ×" for field in FIELDS]
        smallest = min(stored(figures, tool, stage)[0] for tool in others)
        part = stored(figures, OURS, stage)[0] / smallest
        lines.append(f"- {STAGES[stage]}: {', '.join(parts)}, stored {part:.3f} × of the best other tool")
    return lines


def ratio(figures: Figures, stage: str, field: str) -> tuple[float, str]:
    """Return this program's figure over the best other tool's, and which that is."""
    best = min((tool for tool in figures if tool != OURS), key=lambda tool: median(figures, tool, stage, field))
    return median(figures, OURS, stage, field) / median(figures, best, stage, field), best


def losses(document: Document) -> list[str]:
    """Return, in words, where another tool was faster, and by how much; the worst first."""
    found = []
    for corpus, figures in document["figures"].items():
        for stage in stages(figures):
            times, best = ratio(figures, stage, "wall_s")
            if times > NOISE:
                found.append((times, f"{STAGES[stage]} of {CORPORA[corpus]}, {times:.2f} × {best}"))
    return [said for _, said in sorted(found, reverse=True)]


def quote(document: Document) -> str:
    """Return what the README says: one table, and where another tool is better."""
    corpus = "small" if "small" in document["figures"] else next(iter(document["figures"]))
    figures = document["figures"][corpus]
    tools = list(figures)
    about = (
        f"Seconds for {corpus_of(document, corpus)} on {document['date']}, medians of {document['rounds']} rounds in "
        f"turn on one disk ({document['machine']}); all encrypt, and compress with zstd 3. {OURS} talks to a provider "
        "over TLS on loopback, whose processor time and memory count."
    )
    lines = [
        about,
        "",
        "| | " + " | ".join(version_of(document, tool) for tool in tools) + " |",
        "|---" * (len(tools) + 1) + "|",
    ]
    for stage in stages(figures):
        times = [f"{median(figures, tool, stage, 'wall_s'):.1f}" for tool in tools]
        lines.append(f"| {STAGES[stage]} | {' | '.join(times)} |")
    peaks = [peak(figures, tool) for tool in tools]
    lines.append("| memory at most, MiB | " + " | ".join(f"{one / 2**20:.0f}" for one in peaks) + " |")
    sizes = [stored(figures, tool, "touched") for tool in tools]
    lines.append("| stored by three backups, MB | " + " | ".join(f"{size / 1e6:.0f}" for size, _ in sizes) + " |")
    lines.append("| files in the store | " + " | ".join(str(files) for _, files in sizes) + " |")
    said = losses(document)
    worse = f"Another was faster at: {'; '.join(said)}." if said else "No other was faster at anything measured."
    most = "It takes the most memory; " if peaks[tools.index(OURS)] == max(peaks) else "And "
    lines += ["", f"{worse} {most}{PRUNED}." if "prune" in stages(figures) else f"{worse} {most.rstrip('; ')}."]
    lines += ["", "![Seconds, stored bytes and memory of each tool](bench/results/peers.svg)"]
    lines += ["", "[All figures, and every setting with its reason](bench/results/peers.md)."]
    return "\n".join(lines)


def quoted(text: str, document: Document) -> str:
    """Return a text with what is between the two marks made anew.

    Raises:
        SystemExit: it has no such marks.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"nothing stands between {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{quote(document)}\n\n{END}{after}"


def panels(document: Document) -> list[Panel]:
    """Return what the chart shows of each corpus."""
    found = []
    for corpus, figures in document["figures"].items():
        tools, shown = list(figures), stages(figures)
        groups = [
            Group(
                f"{STAGES[stage]}, s", [Bar(tool, median(figures, tool, stage, "wall_s"), "{:.2f}") for tool in tools]
            )
            for stage in shown
        ]
        sizes = [Bar(tool, stored(figures, tool, "touched")[0] / 1e6, "{:.0f}") for tool in tools]
        peaks = [
            Bar(tool, max(median(figures, tool, one, "peak") for one in shown) / 2**20, "{:.0f}") for tool in tools
        ]
        groups += [Group("stored by three backups, MB", sizes), Group("memory at most, MiB", peaks)]
        found.append(Panel(corpus_of(document, corpus), groups))
    return found


if __name__ == "__main__":
    main()
