"""Evidence about chains on the command line, and how new a snapshot is said to be."""

import base64
import json
import shutil

from tests.cli.federation import Federation


def test_a_finding_is_listed_shown_checked_by_anybody_and_acknowledged(breakable: Federation) -> None:
    assert breakable.json("findings", "list", home="node") == []
    aside = breakable.path / "aside"
    shutil.copytree(breakable.path / "node", aside)
    breakable.ok("backup", home="node")
    shutil.rmtree(breakable.path / "node")
    shutil.copytree(aside, breakable.path / "node")
    assert "did not" in breakable.ok("backup", home="node").err

    [row] = breakable.json("findings", "list", home="node")
    assert (row["kind"], row["acknowledged"]) == ("continued", "")
    assert row["id"] in breakable.ok("findings", "list", home="node").text
    assert breakable.json("findings", "list", home="keeper") == []
    shown = breakable.ok("findings", "show", row["id"][:6], "--json", home="node")
    text = breakable.ok("findings", "show", row["id"], home="node").text
    assert "To do: fine if its home was put back" in text
    assert "not acknowledged" in text

    exported = breakable.path / "evidence.json"
    exported.write_bytes(shown.out)
    nowhere = breakable.path / "no-home"
    checked = breakable.json("findings", "check", exported, home=nowhere)
    assert (checked["holds"], checked["kind"], checked["number"]) == (True, "continued", row["number"])
    assert breakable.ok("findings", "check", "-", stdin=shown.text).text.startswith("It holds: continued")
    document = json.loads(shown.out)
    signed = bytearray(base64.b64decode(document["signed"]))
    signed[-1] ^= 1
    exported.write_text(json.dumps(document | {"signed": base64.b64encode(signed).decode()}))
    assert "signature does not hold" in breakable.fails(4, "findings", "check", exported)
    exported.write_text("{}")
    assert "no finding" in breakable.fails(2, "findings", "check", exported)
    assert "No such file" in breakable.fails(1, "findings", "check", breakable.path / "missing")

    [one] = breakable.json("status", home="node")["findings"]
    assert one["id"] == row["id"]
    breakable.ok("findings", "acknowledge", row["id"], "--note", "the disk was changed", home="node")
    [after] = breakable.json("findings", "list", home="node")
    assert (after["note"], after["statements"]) == ("the disk was changed", row["statements"])
    assert after["acknowledged"]
    assert breakable.json("status", home="node")["findings"] == []
    assert "no finding" in breakable.fails(1, "findings", "show", "0000", home="node")


def test_snapshots_restore_and_status_say_how_old_and_who_has_seen_it(federation: Federation) -> None:
    for home in ("node", "keeper"):
        row = federation.json("snapshots", home=home)[-1]
        assert row["newest"] is True
        assert row["age_s"] >= 0
        assert {one["name"] for one in row["witnesses"]} == {"alice", "bob", "carol", "dave", "erin"}
        assert row["warnings"] == []
        assert "seen by alice (" in federation.ok("snapshots", home=home).text
        [dataset] = [one for one in federation.json("status", home=home)["datasets"] if one["newest"]]
        assert len(dataset["witnesses"]) == 5
        assert "seen by alice (" in federation.ok("status", home=home).text
    target = federation.path / "fresh"
    report = federation.json("restore", "latest", "--target", target, "--dry-run", home="keeper")
    assert {one["answers"] for one in report["witnesses"]} == {True}
    assert (report["age_s"] >= 0, report["warnings"]) == (True, [])
    said = federation.ok("restore", "latest", "--target", target, "--dry-run", home="keeper").text
    assert "old, seen by alice (" in said
