"""forget, as a person or a script calls it."""

import pytest

from tests.cli.federation import Federation

pytestmark = pytest.mark.process


def snapshots(federation: Federation, *options: str) -> list[str]:
    return [row["id"] for row in federation.json("snapshots", *options, home="keeper")]


def test_rules_are_shown_carried_out_and_taken_back(breakable: Federation) -> None:
    federation = breakable
    federation.ok("backup", home="node")
    federation.ok("backup", home="node")
    before = snapshots(federation)
    assert len(before) > 2

    planned = federation.json("forget", "--keep-last", "1", "--dry-run", home="keeper")
    assert [row["id"] for row in planned if row["keep"]] == [before[-1]]
    assert planned[-1]["reasons"] == ["last", "newest"]
    assert not any(row["done"] for row in planned)
    assert snapshots(federation) == before

    said = federation.ok("forget", "docs", "--keep-last", "1", home="keeper").text
    assert f"{len(before) - 1} snapshots forgotten" in said
    assert "last, newest" in said
    assert snapshots(federation) == before[-1:]
    assert snapshots(federation, "--forgotten") == before[:-1]

    federation.ok("status", home="node")
    assert [row["id"] for row in federation.json("snapshots", home="node")] == [before[-1]]
    gone = before[:-1]
    assert [row["id"] for row in federation.json("snapshots", "--forgotten", home="node")] == gone

    taken = federation.json("forget", "--undo", *gone, home="keeper")
    assert [(row["id"], row["done"]) for row in taken] == [(one, True) for one in gone]
    assert snapshots(federation) == before
    assert "nothing to forget" in federation.ok("forget", "--keep-last", "99", home="keeper").text


def test_what_cannot_be_meant_is_a_matter_of_usage(federation: Federation) -> None:
    assert "not with rules" in federation.fails(2, "forget", "--even-last", home="keeper")
    assert "do one of them" in federation.fails(2, "forget", "latest", "--undo", "--prune", home="keeper")
    assert "not with rules" in federation.fails(2, "forget", "--keep-last", "1", "--undo", home="keeper")
    assert "not possible" in federation.fails(2, "forget", "--keep-daily=-1", home="keeper")
    assert "not a duration" in federation.fails(2, "forget", "--keep-within", "soon", home="keeper")
    assert "no snapshot" in federation.fails(1, "forget", "nope", home="keeper")


def test_a_node_cannot_forget(federation: Federation) -> None:
    assert "keeper" in federation.fails(6, "forget", "--keep-last", "1", home="node")
