"""The text format: what Prometheus' own parser takes, and a listener that answers one path."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from replicator.fs import PosixFs
from replicator.notify.listener import metrics_listener
from replicator.notify.metrics import CONTENT_TYPE, Gauge, exposition, write_textfile


def test_gauges_of_one_name_stand_together_with_their_meaning_once() -> None:
    text = exposition(
        [
            Gauge(name="b", meaning="Two\\lines\nof it.", value=1.5, labels={"peer": 'a"b\\c\nd', "x": "y"}),
            Gauge(name="a", meaning="One.", value=3.0),
            Gauge(name="b", meaning="Two.", value=2, labels={"peer": "bob", "x": "y"}),
        ]
    )
    assert text == (
        "# HELP replicator_a One.\n# TYPE replicator_a gauge\nreplicator_a 3\n"
        "# HELP replicator_b Two\\\\lines\\nof it.\n# TYPE replicator_b gauge\n"
        'replicator_b{peer="a\\"b\\\\c\\nd",x="y"} 1.5\nreplicator_b{peer="bob",x="y"} 2\n'
    )


def test_a_text_file_is_whole_or_as_before_and_others_read_it(tmp_path: Path) -> None:
    path = tmp_path / "node.prom"
    write_textfile(PosixFs(), str(path), "replicator_a 1\n")
    write_textfile(PosixFs(), str(path), "replicator_a 2\n")
    assert path.read_text() == "replicator_a 2\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in tmp_path.iterdir()] == ["node.prom"]
    with pytest.raises(OSError, match="No such file"):
        write_textfile(PosixFs(), str(tmp_path / "gone" / "node.prom"), "")


async def test_a_listener_answers_metrics_and_nothing_else() -> None:
    async def text() -> str:
        return "replicator_a 1\n"

    async with metrics_listener("127.0.0.1:0", text) as where, aiohttp.ClientSession() as session:
        async with session.get(f"http://{where}/metrics") as answer:
            assert (answer.status, await answer.text()) == (200, "replicator_a 1\n")
            assert answer.headers["Content-Type"] == CONTENT_TYPE
        async with session.get(f"http://{where}/") as answer:
            assert answer.status == 404
        async with session.post(f"http://{where}/metrics", data=b"x") as answer:
            assert answer.status == 405


def test_a_link_that_is_put_in_the_files_place_makes_nothing_else_readable(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)

    class Swapped(PosixFs):
        swap: Callable[[str, str], None]

        def replace(self, source: str, target: str) -> None:
            super().replace(source, target)
            os.unlink(target)
            Swapped.swap(os.fspath(secret), target)

    Swapped.swap = os.symlink
    with pytest.raises(OSError, match="symbolic"):
        write_textfile(Swapped(), str(tmp_path / "node.prom"), "")
    Swapped.swap = os.link
    write_textfile(Swapped(), str(tmp_path / "node.prom"), "")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
