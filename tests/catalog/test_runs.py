"""The book of runs: what is kept of each, and that it stays small."""

import json

from replicator.catalog.catalog import Catalog
from replicator.catalog.runs import KEPT, LARGEST, LONGEST, bounded


def test_a_run_is_there_from_its_beginning_and_whole_at_its_end(catalog: Catalog) -> None:
    number = catalog.log.begin("backup", 5)
    [run] = catalog.log.newest(10)
    assert (run.kind, run.started_ns, run.ended_ns, run.code) == ("backup", 5, 0, -1)
    assert catalog.log.last() == [], "it has not ended"
    catalog.log.end(number, now_ns=9, code=3, document={"gaps": [{"id": "a"}]})
    [run] = catalog.log.last()
    assert (run.id, run.code, run.document) == (number, 3, {"gaps": [{"id": "a"}]})
    assert catalog.log.get(number) == run
    assert catalog.log.get(number + 1) is None


def test_the_last_of_each_kind_and_its_last_success_are_known(catalog: Catalog) -> None:
    for kind, code in (("backup", 0), ("repair", 3), ("backup", 5), ("repair", 4)):
        number = catalog.log.begin(kind, 1)
        catalog.log.end(number, now_ns=number * 10, code=code, document={})
    assert [(run.kind, run.code) for run in catalog.log.last()] == [("backup", 5), ("repair", 4)]
    assert catalog.log.successes((0, 3)) == {"backup": 10, "repair": 20}
    assert [run.id for run in catalog.log.newest(2)] == [4, 3]


def test_why_a_run_failed_is_what_its_error_said(catalog: Catalog) -> None:
    number = catalog.log.begin("backup", 1)
    catalog.log.end(number, now_ns=2, code=1, document={"error": {"message": "the disk is full"}})
    assert catalog.log.last()[0].why == "the disk is full"


def test_runs_that_were_none_are_dropped_and_other_rows_are_left_alone(catalog: Catalog) -> None:
    catalog.record_run("audit", started_ns=1, ended_ns=2, exit_code=0, summary={"peers": {}})
    number = catalog.log.begin("drill", 1)
    catalog.log.drop(number)
    assert catalog.log.newest(10) == []
    assert catalog.log.get(1) is None, "an audit's row is no run"
    assert len(catalog.runs("audit")) == 1


def test_only_the_last_runs_are_kept(catalog: Catalog) -> None:
    catalog.record_run("audit", started_ns=1, ended_ns=2, exit_code=0, summary={})
    with catalog.database.transaction("many") as connection:
        connection.executemany(
            "INSERT INTO runs (kind, started_ns, ended_ns, exit, summary) VALUES ('command backup', ?, 1, 0, '{}')",
            [(at,) for at in range(KEPT + 20)],
        )
    newest = catalog.log.begin("backup", 1)
    kept = catalog.log.newest(KEPT * 2)
    assert (len(kept), kept[0].id) == (KEPT, newest)
    assert len(catalog.runs("audit")) == 1


def test_a_long_list_is_cut_and_says_how_much_is_missing() -> None:
    document = json.loads(bounded({"gaps": [{"id": str(at)} for at in range(LONGEST + 7)], "n": 1}))
    assert len(document["gaps"]) == LONGEST + 1
    assert document["gaps"][-1] == {"id": "left out", "left_out": 7}
    assert document["n"] == 1


def test_no_document_grows_beyond_its_bound_whatever_is_in_it() -> None:
    deep = [[["x" * 5000] * 300] * 300] * 300  # 27 million of them, and three lists
    text = bounded({"a": deep, "b": {str(at): "y" * 900 for at in range(5000)}, "n": 1})
    assert len(text.encode()) <= LARGEST * 1.5
    document = json.loads(text)
    assert document["n"] == 1, "what is short comes before what is long"
    assert document["a"][-1]["left_out"] >= 299


def test_names_that_are_no_text_are_kept(catalog: Catalog) -> None:
    number = catalog.log.begin("backup", 1)
    catalog.log.end(number, now_ns=2, code=0, document={"path": b"\xff".decode("utf-8", "surrogateescape"), "b": b"\1"})
    run = catalog.log.get(number)
    assert run is not None
    assert run.document == {"path": "\udcff", "b": "01"}
