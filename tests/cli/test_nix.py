"""What of nix/ needs no Nix: the page of options out of a list."""

import json
import subprocess
import sys
from pathlib import Path

NIX = Path(__file__).parents[2] / "nix"


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
