"""run --all and status --all: every tenant's night on one machine, as its operator calls them."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replicator.cli import everyone
from replicator.engine.turns import Came
from tests.cli.federation import Federation

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def hosting(federation: Federation) -> Iterator[Federation]:
    """A folder with the homes of two nodes that work and of one whose charter is damaged."""
    for name in ("anna", "bo"):
        federation.add_node(f"homes/{name}", name)
        folder = federation.path / "data" / name
        folder.mkdir(parents=True)
        (folder / "letter").write_text(f"from {name}\n")
        federation.ok("dataset", "add", name, folder, home=f"homes/{name}")
    homes = federation.path / "homes"
    shutil.copytree(homes / "bo", homes / "cut")
    (homes / "cut" / "node" / "charter.obj").write_bytes(b"rot")
    (homes / "notes").mkdir()
    (homes / "link").symlink_to(federation.path / "keeper")
    yield federation
    shutil.rmtree(homes)
    federation.put_back()


def by_id(document: dict[str, Any]) -> dict[str, Any]:
    return {row["id"]: row for row in document["tenants"]}


def test_all_have_their_night_and_one_that_is_damaged_stops_no_other(hosting: Federation) -> None:
    homes = hosting.path / "homes"
    words = ("run", "--all", "--homes", homes, "--up", "100M", "--spool", "1G")
    found = by_id(hosting.json(*words, code=1))
    assert {name: (row["state"], row["exit"]) for name, row in found.items()} == {
        "anna": ("ended", 0),
        "bo": ("ended", 0),
        "cut": ("ended", 1),
    }
    assert found["anna"]["run"]["datasets"][0]["published"] is True
    assert (found["anna"]["waited_s"], found["anna"]["turns"]) == (-1, 1)
    assert "charter.obj" in found["cut"]["why"]
    shutil.move(homes / "cut", hosting.path / "cut")
    again = hosting.ok(*words)
    assert "2 of 2 tenants have all their copies." in again.out.decode()
    document = hosting.json("status", "--all", "--offline", "--homes", homes)
    assert [row["safe"] for row in document["tenants"]] == [True, True]
    assert (homes / "turns.json").stat().st_mode & 0o077 == 0
    shutil.move(hosting.path / "cut", homes / "cut")
    looked = hosting.json("status", "--all", "--offline", "--homes", homes, code=1)
    assert {name: row["exit"] for name, row in by_id(looked).items()} == {"anna": 0, "bo": 0, "cut": 1}
    assert by_id(looked)["cut"]["problems"]
    assert hosting.run("runs", "list", home="homes/anna").out.count(b"run ") >= 2


def test_one_unit_has_the_nights_of_all(hosting: Federation) -> None:
    homes = hosting.path / "homes"
    spool = hosting.path / "big disk"
    (homes / "anna" / "config.toml").write_text(f'[node]\nspool = "{spool}"\n')
    if (homes / "cut").exists():
        shutil.rmtree(homes / "cut")
    found = hosting.json("service", "install", "--all", "--homes", homes, "--dry-run", "--dir", hosting.path)
    units = {one["id"]: one["text"] for one in found["units"]}
    assert found["enable"] == ["replicator-run-all.timer"]
    night = units["replicator-run-all.service"].splitlines()
    assert f"Environment=REPLICATOR_HOMES={homes}" in night
    assert f'ReadWritePaths={homes} "{spool}"' in night
    assert any(line.startswith("ExecStart=") and line.endswith(" run --all") for line in night)
    assert "AmbientCapabilities=CAP_DAC_READ_SEARCH" in night
    assert "for --all" in hosting.fails(2, "service", "install", "--homes", homes, home="node")


def test_what_cannot_be_meant_is_refused(federation: Federation) -> None:
    empty = federation.path / "empty"
    empty.mkdir(exist_ok=True)
    assert "none was named" in federation.fails(2, "run", "--all")
    assert "no home of a tenant" in federation.fails(1, "run", "--all", "--homes", empty)
    assert "No such file" in federation.fails(1, "status", "--all", "--homes", federation.path / "nowhere")
    assert "for --all" in federation.fails(2, "run", "--homes", empty, home="node")
    assert "for --all" in federation.fails(2, "status", "--homes", empty, home="node")
    assert "for one home" in federation.fails(2, "run", "--all", "--homes", empty, "--spread", "1h")
    assert "too little" in federation.fails(2, "run", "--up", "1k", home="node")
    assert "lets nothing pass" in federation.fails(2, "run", "--spool", "0", home="node")
    assert "not a size" in federation.fails(2, "run", "--up", "fast", home="node")


def test_a_second_pass_beside_one_is_refused(hosting: Federation) -> None:
    import fcntl

    path = Path(hosting.path / "homes" / "turns.lock")
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another `run --all`" in hosting.fails(1, "run", "--all", "--homes", hosting.path / "homes")


def test_a_run_that_hangs_is_ended_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(everyone, "GRACE_S", 0.1)
    ready = tmp_path / "ready"
    program = (
        "import pathlib, signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "reader = subprocess.Popen(['sleep', '3600']); pathlib.Path(sys.argv[1]).touch(); reader.wait()"
    )

    async def hang() -> int:
        child = everyone._Child([sys.executable, "-c", program, str(ready)], dict(os.environ))
        ended = asyncio.ensure_future(child.wait())
        while not ready.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
        child.stop()
        return (await asyncio.wait_for(ended, 120)).code

    assert asyncio.run(hang()) == -9


def test_a_run_that_was_killed_and_is_not_gone_is_waited_for_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(everyone, "GRACE_S", 0.1)
    monkeypatch.setattr(everyone, "LEFT_S", 0.1)
    ready, left = tmp_path / "ready", tmp_path / "left"
    program = (
        "import pathlib, signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "away = subprocess.Popen(['sleep', '3600'], start_new_session=True); "
        "pathlib.Path(sys.argv[2]).write_text(str(away.pid)); pathlib.Path(sys.argv[1]).touch(); away.wait()"
    )

    async def hang() -> Came:
        child = everyone._Child([sys.executable, "-c", program, str(ready), str(left)], dict(os.environ))
        ended = asyncio.ensure_future(child.wait())
        while not ready.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
        child.stop()
        came = await asyncio.wait_for(ended, 120)
        while child._process is not None and child._process.returncode is None:  # noqa: ASYNC110 - it dies elsewhere
            await asyncio.sleep(0.01)
        return came

    try:
        came = asyncio.run(hang())
    finally:
        os.kill(int(left.read_text()), signal.SIGKILL)
    assert came.code == -9
    assert "waited for no longer" in came.said[-1]
