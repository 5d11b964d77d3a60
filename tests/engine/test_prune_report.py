"""The report on pruning runs, and its figures are of what it says it measures."""

import tempfile
from pathlib import Path

from bench.prune_report import CHUNKS_A_PACK, lines, measure


def test_a_small_report_plans_and_repacks(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tmp_path) as work:
        document = measure(Path(work), packs=40, repacked=1, rounds=1)
        assert list(Path(work).iterdir()) == []
    assert (document["plan"]["packs"], document["plan"]["chunks"]) == (40, 40 * CHUNKS_A_PACK)
    assert 0 < document["plan"]["needed"] < document["plan"]["references"] <= document["plan"]["chunks"]
    assert document["repack"]["bytes"] == 16 << 20
    assert any("demanded: 0.5" in line for line in lines(document))
