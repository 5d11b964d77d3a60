"""An archive of a snapshot: where it goes, what tar makes of it, and what is said when it is not whole."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.federation import PROGRAM, Federation
from tests.compare import compare

pytestmark = pytest.mark.process


def test_a_file_appears_when_it_is_whole_and_is_never_replaced(federation: Federation, tmp_path: Path) -> None:
    archive, out = tmp_path / "docs.tar", tmp_path / "out"
    document = federation.json("export", "latest:docs", "--output", archive, home="keeper")
    assert (document["output"], document["archive_bytes"]) == (str(archive), archive.stat().st_size)
    assert (document["dataset"], document["files"]) == ("docs", 5)
    assert (archive.stat().st_mode & 0o777, os.listdir(tmp_path)) == (0o600, ["docs.tar"])
    out.mkdir()
    subprocess.run(["tar", "--xattrs", "--acls", "-xpf", archive], cwd=out, check=True)
    assert compare(federation.path / "docs", out / "docs") == []
    before = archive.read_bytes()
    assert "exists" in federation.fails(1, "export", "latest", "--output", archive, home="keeper")
    assert archive.read_bytes() == before
    (tmp_path / "nowhere.tar").symlink_to(tmp_path / "gone")
    dangling = federation.fails(1, "export", "latest", "--output", tmp_path / "nowhere.tar", home="keeper")
    assert "nowhere.tar exists" in dangling
    assert "no archive" not in federation.fails(1, "export", "latest", "--output", tmp_path / "no" / "x", home="keeper")


def test_a_pipe_gets_the_archive_and_standard_error_what_is_said(federation: Federation, tmp_path: Path) -> None:
    done = federation.ok("export", "latest", "docs/letters", home="keeper")
    assert done.said[-1].startswith("Exported 2 files (")
    listed = subprocess.run(["tar", "-t"], input=done.out, capture_output=True, check=True).stdout
    assert listed.decode().splitlines()[:2] == ["docs/", "docs/letters/"]
    assert "name a file with --output" in federation.fails(2, "export", "latest", "--json", home="keeper")
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE)
    federation.ok("export", "latest", "docs/letters", "--output", tmp_path / "pipe", home="keeper")
    assert reader.communicate()[0] == done.out


def test_who_stops_reading_ends_it_with_a_failure(federation: Federation) -> None:
    writer = subprocess.Popen(
        [*PROGRAM, "--home", federation.path / "keeper", "export", "latest"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=federation.environment(),
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    with writer.stderr as said:
        assert (said.read(), writer.wait()) == (b"", 1)


def test_without_the_packs_nothing_passes_for_an_archive(breakable: Federation, tmp_path: Path) -> None:
    federation = breakable
    federation.ok("ls", "latest", "--recursive", home="keeper")  # so that folders are known and files are not
    federation.stop()
    for target in ("-", str(tmp_path / "file")):
        done = federation.run("export", "latest", "--output", target, home="keeper")
        assert done.code == 1
        assert done.said[0].startswith("the archive is not whole and has no end")
        tar = subprocess.run(["tar", "-t"], input=done.out, capture_output=True, check=False)
        assert done.out == b"" or tar.returncode != 0
    assert os.listdir(tmp_path) == []
