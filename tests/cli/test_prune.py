"""prune and retention, as a person or a script calls them."""

import json

import pytest

from tests.cli.federation import Federation
from tests.cli.test_forget import snapshots

pytestmark = pytest.mark.process


def test_pruning_is_planned_shown_and_done_as_nodes_hear_of_it(breakable: Federation) -> None:
    federation = breakable
    folder = federation.path / "pruned"
    folder.mkdir()
    federation.ok("dataset", "add", "pruned", folder, "--spread", "owner,region", home="node")
    for night in range(2):
        (folder / "noise.bin").write_bytes(bytes((i * i + i // (11 + night)) % 251 for i in range(300_000)))
        federation.ok("backup", "pruned", home="node")
    before = snapshots(federation)

    asked = ("forget", "--keep-last", "1", "--prune")
    planned = federation.json(*asked, "--dry-run", home="keeper")
    assert [row["keep"] for row in planned["snapshots"]] == [True, False, True]
    dead = planned["prune"]["dead"]
    assert {"data", "snapshot"} <= {one["kind"] for one in dead}
    assert snapshots(federation) == before
    assert all(one["marked"] == 0 < one["objects"] and one["first"] for one in planned["prune"]["providers"])

    said = federation.ok(*asked, home="keeper").text
    assert "objects are needed by nothing" in said
    assert "after its next run" in said  # the node relies on them until it has heard
    federation.ok("backup", home="node")
    done = federation.json("prune", home="keeper")
    assert {one["id"] for one in dead} <= {one["id"] for one in done["dead"]}
    assert all(one["marked"] == one["objects"] > 0 == one["claimed"] for one in done["providers"])
    assert all(one["first"] <= one["last"] for one in done["providers"])
    shown = federation.json("status", home="node")["deletions"]
    assert len(shown) == len(done["providers"])
    assert federation.json("status", home="keeper")["safe"]
    restored = federation.path / "back"
    federation.ok("restore", "latest", "--target", restored, home="keeper")


def test_who_has_no_maintenance_key_is_told_where_there_is_one(federation: Federation) -> None:
    assert "keeper" in federation.fails(6, "prune", home="node")
    assert "keeper" in federation.fails(6, "dataset", "set", "docs", "--keep-last", "5", home="node")
    assert "look at `replicator prune`" in federation.fails(2, "compact", home="keeper")
    assert "no node 'nobody'" in federation.fails(1, "prune", "--retire", "nobody", home="keeper")


def test_how_long_snapshots_stay_is_the_keepers_word(breakable: Federation) -> None:
    federation = breakable
    federation.ok("backup", home="node")
    before = snapshots(federation)
    assert "nothing to forget" in federation.ok("forget", home="keeper").text  # the usual rules keep as many
    said = federation.json("dataset", "set", "docs", "--keep-last", "1", "--keep-tag", "yearly", home="keeper")
    assert said["keep"] == "last 1, tag yearly"
    assert [row["id"] for row in federation.json("forget", home="keeper") if row["keep"]] == before[-1:]
    federation.ok("dataset", "set", "docs", "--keep-usual", home="keeper")
    assert federation.json("dataset", "set", "docs", "--keep-usual", home="keeper")["keep"] == (
        "last 3, daily 14, weekly 8, monthly 12"
    )
    path = federation.path / "keeper" / "keeper" / "retention.json"
    path.write_text(json.dumps({"format": 1, "datasets": {"docs": {"last": -1, "tags": []}}}))
    assert "damaged" in federation.fails(1, "forget", home="keeper")


def test_a_keepers_night_forgets_and_prunes_if_it_has_the_passphrase(federation: Federation) -> None:
    document = federation.json("run", home="keeper")
    assert document["forgotten"] == []
    assert document["prune"]["gaps"] == []
    without = federation.run("run", "--json", home="keeper", env={"REPLICATOR_PASSPHRASE_FILE": None})
    assert without.code == 0
    assert any("passphrase" in one for one in without.json()["due"])
    assert any("on the keeper" in one for one in federation.json("run", home="node")["due"])


def test_what_was_forgotten_is_listed_though_pruning_fails_then(breakable: Federation) -> None:
    federation = breakable
    federation.ok("backup", home="node")
    before = snapshots(federation)
    half = federation.path / "keeper" / "node"
    half.mkdir()
    (half / "home.json").write_text("not one")
    result = federation.run("forget", "--keep-last", "1", "--prune", "--json", home="keeper")
    assert result.code == 1
    document = result.json()
    assert {row["id"] for row in document["snapshots"] if row["done"]} == set(before[:-1])
    assert "damaged" in document["prune"]["error"]["message"]
    assert snapshots(federation) == before[-1:]
    result = federation.run("forget", "--keep-last", "1", "--prune", home="keeper")
    assert result.code == 1
    assert "Pruning failed." in result.text
    assert "pruning failed: " in result.err
