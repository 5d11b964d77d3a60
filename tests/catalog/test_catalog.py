from replicator.catalog.catalog import Catalog


def test_small_values_are_kept_and_replaced(catalog: Catalog) -> None:
    assert catalog.meta("key") is None
    catalog.set_meta("key", b"\x00one")
    catalog.set_meta("key", b"\xfftwo")
    assert catalog.meta("key") == b"\xfftwo"


def test_runs_are_remembered_by_kind_oldest_first(catalog: Catalog) -> None:
    assert catalog.runs("backup") == []
    catalog.record_run("backup", started_ns=1, ended_ns=2, exit_code=5, summary={"sent": 0})
    catalog.record_run("backup", started_ns=3, ended_ns=4, exit_code=0, summary={"sent": 7, "notes": ["å"]})
    catalog.record_run("verify", started_ns=5, ended_ns=6, exit_code=4, summary={})
    assert catalog.runs("backup") == [
        {"started_ns": 1, "ended_ns": 2, "exit": 5, "sent": 0},
        {"started_ns": 3, "ended_ns": 4, "exit": 0, "sent": 7, "notes": ["å"]},
    ]
    assert catalog.runs("verify") == [{"started_ns": 5, "ended_ns": 6, "exit": 4}]
