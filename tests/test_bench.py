"""What is said of measurements is what was measured."""

import json
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.peers.chart import Bar, Group, Panel, chart
from bench.peers.report import README, RESULTS, heading, losses, markdown, panels, quote, quoted

SVG = "{http://www.w3.org/2000/svg}"


def measured(**walls: tuple[float, float]) -> dict[str, Any]:
    """Return a document in which each tool took so long for a first backup and for dropping a snapshot."""

    def runs(wall: float, peak: int) -> list[dict[str, Any]]:
        return [{"wall_s": wall * part, "cpu_s": wall, "peak": peak, "stored": [10**9, 7]} for part in (1, 9, 0.1)]

    stages = ("first", "touched", "prune")
    return {
        "date": "2026-01-02",
        "machine": "1 core",
        "versions": {tool: f"{tool} 1.2.3, with go1.2" for tool in walls},
        "settings": {tool: [["--fast", "why not"]] for tool in walls},
        "seed": 1,
        "rounds": 3,
        "corpora": {"small": [2 * 10**9, 1500]},
        "figures": {
            "small": {
                tool: {stage: runs(wall, 2**20) for stage, wall in zip(stages, (one, one, other), strict=True)}
                for tool, (one, other) in walls.items()
            }
        },
    }


def test_what_is_written_of_the_peers_follows_from_what_was_measured() -> None:
    document = json.loads((RESULTS / "peers.json").read_text())
    assert quoted(README.read_text(), document) == README.read_text()
    assert (RESULTS / "peers.md").read_text() == markdown(document)
    assert (RESULTS / "peers.svg").read_text() == chart(heading(document), panels(document))


def test_who_was_faster_is_named_with_medians_and_the_worst_first() -> None:
    document = measured(replicator=(3, 4), borg=(2.9, 2), restic=(2, 8))
    assert losses(document) == [
        "oldest snapshot dropped of a tree of small files, 2.00 × borg",
        "first backup of a tree of small files, 1.50 × restic",
        "1% changed of a tree of small files, 1.50 × restic",
    ]
    said = quote(document)
    assert "| | replicator 1.2.3 | borg 1.2.3 | restic 1.2.3 |" in said
    assert "| first backup | 3.0 | 2.9 | 2.0 |" in said
    assert "providers delete that weeks later" in said
    assert losses(measured(replicator=(3, 4), borg=(2.9, 3.9))) == []
    assert "No other was faster" in quote(measured(replicator=(3, 4), borg=(3, 4)))


def test_a_text_without_its_marks_is_not_written() -> None:
    with pytest.raises(SystemExit, match="nothing stands between"):
        quoted("# A text", measured(replicator=(1, 1), borg=(1, 1)))


def test_a_chart_has_a_bar_for_each_figure_and_the_longest_for_the_greatest() -> None:
    group = Group("a < b, s", [Bar("one", 4, "{:.2f}"), Bar("other", 1, "{:.2f}"), Bar("none", 0, "{:.2f}")])
    drawn = chart("of & all", [Panel("left", [group]), Panel("right", [group])])
    root = ElementTree.fromstring(drawn)  # noqa: S314 - our own
    words = [one.text for one in root.iter(f"{SVG}text")]
    assert words[:4] == ["of & all", "left", "a < b, s", "one"]
    assert words.count("4.00") == 2
    lengths = [float(one.attrib["width"]) for one in root.iter(f"{SVG}rect") if one.attrib["width"] != "100%"]
    assert lengths[:3] == [lengths[0], pytest.approx(lengths[0] / 4, abs=0.1), 0]
    assert len(lengths) == 6
    tools = measured(replicator=(3, 4), borg=(2, 2))
    [panel] = panels(tools)
    assert [group.title for group in panel.groups][-2:] == ["stored by three backups, MB", "memory at most, MiB"]
    assert [bar.value for bar in panel.groups[0].bars] == [3, 2]
