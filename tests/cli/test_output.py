"""Lists that come row by row: text at once, JSON only when it is whole."""

import json
from collections.abc import Iterator

import pytest

from replicator.cli.output import Output
from replicator.errors import NotFoundError


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
