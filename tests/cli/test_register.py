"""The register as people call it: three forms, one file, and the words that go into it."""

import csv
import io
from pathlib import Path

import pytest

from tests.cli.federation import Federation

pytestmark = pytest.mark.process


def test_the_register_in_each_of_its_forms(breakable: Federation, tmp_path: Path) -> None:
    federation = breakable
    federation.ok("provider", "set", "--legal-name", "Bob's Loft AB", "--contact", "bob@example.org", home="bob")
    federation.ok("peer", "set", "alice", "--legal-name", "Alice & Söner", home="keeper")
    rows = federation.json("register", home="keeper")
    assert {row["dataset"] for row in rows} == {"docs", ""}
    names = {row["holder"]: (row["legal_name"], row["contact"]) for row in rows}
    assert (names["alice"], names["bob"]) == (("Alice & Söner", ""), ("Bob's Loft AB", "bob@example.org"))
    text = federation.ok("register", "--csv", home="keeper")
    assert len(list(csv.DictReader(io.StringIO(text.text)))) == len(rows)
    assert "have no legal name or contact" in text.err
    page = tmp_path / "register.html"
    for _ in range(2):
        federation.json("register", "--html", "--output", page, home="keeper")
    assert "Alice &amp; Söner" in page.read_text()
    for options in (("--csv", "--html"), ("--output", page), ("--csv", "--json")):
        federation.fails(2, "register", *options, home="keeper")
    federation.fails(6, "register", home="node")
