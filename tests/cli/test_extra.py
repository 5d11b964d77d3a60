"""Extra copies as people call for them."""

import pytest

from tests.cli.federation import Federation

pytestmark = pytest.mark.process


def test_a_folder_is_added_written_shown_tidied_and_let_go_of(breakable: Federation) -> None:
    place = breakable.path / "usb"
    place.mkdir()
    made = breakable.json("extra", "add", "usb", place, home="node")
    assert (made["id"], made["place"], made["written"]) == ("usb", str(place), "")
    [done] = breakable.json("extra", "write", home="node")
    assert (done["error"], done["unreadable"]) == (None, 0)
    assert done["written"] == done["objects"] > 0
    night = breakable.json("run", home="node")
    [again] = night["extras"]
    assert (again["id"], again["error"], again["unreadable"]) == ("usb", None, 0)
    assert again["objects"] == done["objects"] + again["written"], "only what the place lacked"
    status = breakable.json("status", home="node")
    assert status["extras"][0]["objects"] == night["extras"][0]["objects"]
    assert "counted as no copy" in breakable.ok("status", "--offline", home="node").out.decode()
    assert breakable.json("extra", "tidy", "usb", "--dry-run", home="node")["gone"] == []
    (place / ".replicator-extra").unlink()
    assert "not the disk" in breakable.run("extra", "write", "usb", home="node").err
    assert breakable.run("extra", "write", "usb", home="node").code == 3
    assert breakable.json("extra", "remove", "usb", home="node")["id"] == "usb"
    assert breakable.json("extra", "list", home="node") == []
    assert "there is no extra copy" in breakable.fails(2, "extra", "write", home="node")
    assert len(list(place.iterdir())) == 1, "what was written stays"


def test_what_cannot_be_meant_is_refused(federation: Federation) -> None:
    place = federation.path / "a folder"
    place.mkdir(exist_ok=True)
    assert "no folder" in federation.fails(1, "extra", "add", "usb", federation.path / "nowhere", home="node")
    assert "lies within dataset" in federation.fails(2, "extra", "add", "usb", federation.path / "docs", home="node")
    assert "are for a bucket" in federation.fails(2, "extra", "add", "usb", place, "--s3-region", "eu", home="node")
    assert "no bucket" in federation.fails(2, "extra", "add", "usb", "s3://a b", home="node")
    assert "no keys for it" in federation.fails(6, "extra", "add", "usb", "s3://attic/mine", home="node")
    assert "there is no extra copy" in federation.fails(2, "extra", "write", home="node")
    assert "no extra copy 'usb'" in federation.fails(1, "extra", "tidy", "usb", home="node")
    federation.fails(6, "extra", "list", home="keeper")
