"""Lists that come row by row: text at once, JSON only when it is whole. What a restore says beside its result."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import pytest

from replicator.cli import exits
from replicator.cli.base import Session
from replicator.cli.browse import take_restore
from replicator.cli.output import Alarm, Output, fields, table
from replicator.cli.progress import LineProgress
from replicator.engine.browse import OpenSnapshot
from replicator.engine.restore import RestoreReport
from replicator.errors import NotFoundError
from replicator.snapshot.metadata import OWNER


def rows(count: int, *, fail: bool = False) -> Iterator[int]:
    yield from range(count)
    if fail:
        raise NotFoundError("the rest is lost")


def say(output: Output, found: Iterator[int]) -> None:
    output.rows(found, lambda row: {"id": str(row)}, lambda row: f"row {row}", "HEADER")


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 1000])
def test_rows_are_printed_whole(count: int, capfd: pytest.CaptureFixture[str]) -> None:
    say(Output(as_json=False), rows(count))
    assert capfd.readouterr().out.splitlines() == ["HEADER", *(f"row {row}" for row in range(count))]
    say(Output(as_json=True), rows(count))
    assert json.loads(capfd.readouterr().out) == [{"id": str(row)} for row in range(count)]


def test_what_came_before_an_error_is_text_and_json_is_the_error_alone(capfd: pytest.CaptureFixture[str]) -> None:
    for as_json in (False, True):
        output = Output(as_json=as_json)
        with pytest.raises(NotFoundError) as caught:
            say(output, rows(300, fail=True))
        output.error(caught.value, 1)
        out = capfd.readouterr().out
        if as_json:
            assert json.loads(out)["error"]["message"] == "the rest is lost"
        else:
            assert out.splitlines()[-1] == "row 299"
            assert len(out.splitlines()) == 301


def test_text_is_not_held_until_the_last_row(capfd: pytest.CaptureFixture[str]) -> None:
    seen = []

    def slow() -> Iterator[int]:
        for row in rows(600):
            if row == 599:
                seen.append(len(capfd.readouterr().out.splitlines()))
            yield row

    say(Output(as_json=False), slow())
    assert seen == [512]


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"unset_reasons": Counter({OWNER: 12})}, exits.DONE, ["12 owners not set: not root"]),
        (
            {"unset_reasons": Counter({OWNER: 1}), "gaps": [("a", "lost")], "reasons": Counter({"lost": 1})},
            exits.GAPS,
            ["a: lost", "1 owner not set: not root"],
        ),
        (
            {"gaps": [("a", "lost")] * 20, "reasons": Counter({"lost": 30_000})},
            exits.GAPS,
            [*["a: lost"] * 20, "... and 29980 more"],
        ),
    ],
)
def test_what_a_user_may_not_set_is_said_and_is_no_gap(
    changes: dict[str, Any], code: int, said: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    session = Session()
    take_restore(session, RestoreReport(snapshot=cast("OpenSnapshot", None), **changes))
    assert session.code == code
    assert capfd.readouterr().err.splitlines() == said


HOSTILE = "a\x1b]0;title\x07b\x9b2Jc\rd\x7fe\u202ef\u2028g"
HARMLESS = r"a\x1b]0;title\x07b\u009b2Jc\x0dd\x7fe\u202ef\u2028g"


def test_control_characters_of_others_are_written_out_wherever_they_come(capfd: pytest.CaptureFixture[str]) -> None:
    """Tags, hosts and the answers of peers are other machines' words."""
    output = Output(as_json=False)
    output.result({}, [HOSTILE])
    output.rows(iter([HOSTILE]), lambda row: row, lambda row: row, HOSTILE)
    output.notice(HOSTILE)
    output.error(NotFoundError(HOSTILE, hint=HOSTILE), 1)
    LineProgress().note(HOSTILE)
    out, err = capfd.readouterr()
    assert out.splitlines() == [HARMLESS] * 3
    assert err.splitlines() == [HARMLESS, f"replicator: {HARMLESS}", f"  {HARMLESS}", HARMLESS]


def test_a_cell_of_a_table_is_one_line() -> None:
    assert table(("TAGS",), [("one\ntwo\tthree\x1b[2J",)]) == ["TAGS", r"one\x0atwo\x09three\x1b[2J"]


def test_fields_are_words_for_people_each_on_its_line() -> None:
    document = {"name": "one\ntwo", "falls_with_it": [], "paths": ["a", "b"], "own": False, "until": None, "used": 0}
    assert fields(document) == [
        r"name           one\x0atwo",
        "falls with it  -",
        "paths          a, b",
        "own            no",
        "until          -",
        "used           0",
    ]


def test_json_shows_a_terminal_no_control_characters_and_reads_as_what_was_meant(
    capfd: pytest.CaptureFixture[str],
) -> None:
    Output(as_json=True).result({"tag": HOSTILE + "\n\t"})
    out = capfd.readouterr().out
    assert json.loads(out) == {"tag": HOSTILE + "\n\t"}
    assert not set(out) & set("\x1b\x07\x9b\r\x7f\u202e\u2028")
    output = Output(as_json=True)
    output.rows(iter([HOSTILE]), lambda row: row, str, "")
    out = capfd.readouterr().out
    assert json.loads(out) == [HOSTILE]
    assert "\x9b" not in out


def test_an_alarm_is_red_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said = []
    for terminal, colourless in ((False, ""), (True, ""), (True, "1")):
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal)
        monkeypatch.setenv("NO_COLOR", colourless)
        Output(as_json=False).result({}, [Alarm("NO LOCK"), "all is well"])
        said.append(capfd.readouterr().out)
    assert said[0] == said[2] == "NO LOCK\nall is well\n"
    assert said[1] == "\x1b[1;31mNO LOCK\x1b[0m\nall is well\n"
