"""``python -m scheduler plan`` as another program runs it."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.__main__ import main
from tests.scheduler.oracle import Json, objections

SPEC = Path(__file__).parents[2] / "docs" / "spec" / "placement.md"
KEYS = {
    "feasible",
    "bound",
    "bottleneck",
    "bounds",
    "placements",
    "moves",
    "refused",
    "after_worst_loss",
    "worst_losses",
    "hanging",
    "queries",
}


def question(**changes: object) -> Json:
    peers = [{"id": f"p{at}", "capacity": 10, "site": f"s{at}", "country": "SE"} for at in range(4)]
    return {
        "peers": peers,
        "policies": [{"name": "p", "copies": 3}],
        "packs": {"count": 13, "size": 1, "policy": "p"},
        **changes,
    }


def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], problem: object) -> tuple[int, str, str]:
    path = tmp_path / "problem.json"
    path.write_text(problem if isinstance(problem, str) else json.dumps(problem), encoding="utf-8")
    code = main(["plan", str(path)])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_plan_has_all_its_keys_and_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(tmp_path, capsys, question())
    plan = json.loads(out)
    assert (code, err) == (0, "")
    assert set(plan) == KEYS
    assert objections(question(), plan) == []
    assert (plan["bound"], plan["feasible"], len(plan["placements"])) == (13, True, 13)


def test_a_refusal_ends_with_5_and_says_what_would_help(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(tmp_path, capsys, question(packs={"count": 14, "size": 1}))
    plan = json.loads(out)
    assert code == 5
    assert [row["pack"] for row in plan["refused"]] == ["13"]
    assert "full" in plan["refused"][0]["why"]
    assert "more capacity at" in plan["refused"][0]["would_help"]


def test_bad_input_ends_with_2_one_line_and_no_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(tmp_path, capsys, question(peers=[{"id": "a", "capacity": -1}]))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "peer 'a': capacity is -1" in err


def test_a_file_that_is_not_there_or_not_text_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(tmp_path / "none.json")]) == 2
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert main(["plan", str(tmp_path / "bytes")]) == 2
    assert capsys.readouterr().out == ""


def test_a_query_is_printed_and_changes_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = question()
    problem["peers"][0]["region"], problem["peers"][1]["region"] = "umea", "Umeå"
    code, out, err = run(tmp_path, capsys, problem)
    assert code == 0
    assert json.loads(out)["queries"][0]["labels"] == ["Umeå", "umea"]
    assert err.startswith("query: region labels 'Umeå', 'umea' differ only in spelling")


def test_the_seed_settles_what_is_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "problem.json"
    path.write_text(json.dumps(question(packs={"count": 6, "size": 1})), encoding="utf-8")
    found = []
    for seed in ("a", "a", "b"):
        main(["plan", str(path), "--seed", seed])
        found.append(capsys.readouterr().out)
    assert found[0] == found[1] != found[2]


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(question()).encode())))
    assert main(["plan", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["bound"] == 13


def test_the_example_of_the_specification_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = re.findall(r"(?m)(?:^    .*\n)+", SPEC.read_text(encoding="utf-8"))[0]
    text = block.replace(", ...]", ', {"id": "b", "capacity": 9}, {"id": "c", "capacity": 50}]')
    code, out, err = run(tmp_path, capsys, text)
    assert (code, err) == (5, "")
    assert json.loads(out)["placements"]["17"][::2] == ["a", "c"]


def test_the_module_runs_by_itself() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "scheduler", "plan", "-"],
        input=json.dumps(question()),
        capture_output=True,
        text=True,
        check=False,
        cwd=SPEC.parents[2],
    )
    assert (ran.returncode, json.loads(ran.stdout)["feasible"]) == (0, True)
