"""What of nix/ needs no Nix: metrics out of a real status, and the page of options out of a list."""

import json
import subprocess
import sys
from pathlib import Path

from tests.cli.federation import Federation, Place

NIX = Path(__file__).parents[2] / "nix"


def metrics(half: str, code: int, status: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, NIX / "scripts" / "metrics.py", half, str(code)],
        input=status,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())


def test_a_providers_status_becomes_metrics(tmp_path: Path) -> None:
    place = Place(path=tmp_path)
    Federation.make_provider(place, "alice")  # type: ignore[arg-type] # uses what a place has
    found = metrics("provider", 0, place.ok("provider", "status", "--json", home="alice").text)
    assert found["replicator_provider_capacity_bytes"] == str(10 * 10**9)
    assert found["replicator_provider_mounted"] == "1"
    assert found['replicator_status_exit{half="provider"}'] == "0"


def test_a_nodes_status_becomes_metrics_whatever_people_call_things() -> None:
    dataset = {"name": 'a "b"\\c', "copies": 2, "promised": 3, "newest": "1970-01-01T00:00:07+00:00"}
    peer = {"name": "nova", "contacted": "", "missing": 1, "damaged": 0}
    found = metrics("node", 3, json.dumps({"safe": False, "datasets": [dataset], "peers": [peer]}))
    assert found["replicator_safe"] == "0"
    assert found['replicator_dataset_newest_seconds{dataset="a \\"b\\"\\\\c"}'] == "7"
    assert found['replicator_peer_contacted_seconds{peer="nova"}'] == "0"
    assert found['replicator_peer_missing_objects{peer="nova"}'] == "1"


def test_no_status_is_not_safe() -> None:
    assert metrics("node", 1, "")["replicator_safe"] == "0"


def test_a_page_of_options_has_a_table_for_each_part_and_a_row_for_each_option(tmp_path: Path) -> None:
    options = [
        {"name": "services.replicator.node.b", "type": "a | b", "default": "`1`", "description": "Of\ntwo lines."},
        {"name": "services.replicator.package", "type": "package", "default": None, "description": "The program."},
    ]
    listed, script = tmp_path / "options.json", tmp_path / "options.py"
    listed.write_text(json.dumps(options))
    script.write_text((NIX / "options.py").read_text())
    subprocess.run([sys.executable, script, listed], check=True, capture_output=True)
    page = (tmp_path / "OPTIONS.md").read_text()
    assert "## services.replicator.node\n\n| option | type | default | |\n|---|---|---|---|\n" in page
    assert "| `b` | a \\| b | `1` | Of two lines. |\n" in page
    assert "| `package` | package | required | The program. |\n" in page
