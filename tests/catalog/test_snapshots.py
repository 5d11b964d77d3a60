import dataclasses
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from replicator.catalog.catalog import Catalog
from replicator.catalog.snapshots import Dataset, SnapshotRow
from replicator.errors import FormatError, HomeError, NotFoundError, UsageError
from replicator.format.consistency import Consistency
from replicator.format.policy import policy_id
from replicator.ids import ObjectName
from tests.format.samples import CODED, POLICY

WRITER, OTHER = bytes([1]) * 32, bytes([2]) * 32


def snapshot(number: int, **changes: Any) -> SnapshotRow:
    """Return a numbered snapshot of WRITER."""
    row = SnapshotRow(
        name=ObjectName(blake3(f"snapshot {number}".encode()).digest()),
        writer=WRITER,
        number=number,
        dataset="photos",
        created_ns=1000 * number,
        published_ns=0,
        policy=policy_id(POLICY),
        files=5,
        size=600,
        partial=False,
        indexes=(bytes([7]) * 32, bytes([8]) * 32),
        references=(bytes([9]) * 32,),
        head=b"a signed head",
        gaps=(("/home/åsa/locked", "permission denied"),),
    )
    return dataclasses.replace(row, **changes)


def dataset(name: str = "photos", **changes: Any) -> Dataset:
    """Return a dataset."""
    row = Dataset(
        name=name,
        roots=(b"/home/\xff/photos", b"/srv"),
        policy=POLICY,
        exclude=("*.tmp", "cache/"),
        one_file_system=True,
        created_ns=5,
    )
    return dataclasses.replace(row, **changes)


def test_a_snapshot_is_remembered_as_given(catalog: Catalog) -> None:
    rows = [snapshot(1), snapshot(2, partial=True, indexes=(), references=(), gaps=(), dataset="")]
    for row in rows:
        catalog.snapshots.put(row)
    assert catalog.snapshots.all() == rows


def test_a_snapshot_that_is_known_is_updated(catalog: Catalog) -> None:
    catalog.snapshots.put(snapshot(1))
    catalog.snapshots.put(snapshot(1, dataset="music"))
    assert [row.dataset for row in catalog.snapshots.all()] == ["music"]


def test_publishing_is_recorded(catalog: Catalog) -> None:
    for number in (1, 2):
        catalog.snapshots.put(snapshot(number))
    catalog.snapshots.published(snapshot(1).name, 77)
    assert [row.published_ns for row in catalog.snapshots.all()] == [77, 0]
    assert [row.number for row in catalog.snapshots.all("published_ns = 0")] == [2]


def test_the_newest_of_a_chain_has_the_highest_number(catalog: Catalog) -> None:
    assert catalog.snapshots.newest_of(WRITER) is None
    for row in (snapshot(3), snapshot(5, created_ns=1), snapshot(4)):
        catalog.snapshots.put(row)
    catalog.snapshots.put(snapshot(9, writer=OTHER))
    newest = catalog.snapshots.newest_of(WRITER)
    assert newest is not None
    assert newest.number == 5
    assert [row.number for row in catalog.snapshots.all()] == [5, 3, 4, 9]


def test_datasets_are_kept_with_their_policies(catalog: Catalog) -> None:
    catalog.datasets.add(dataset())
    catalog.datasets.add(dataset("music", policy=CODED, exclude=(), roots=(b"/m",)))
    assert catalog.datasets.all() == [dataset("music", policy=CODED, exclude=(), roots=(b"/m",)), dataset()]
    assert catalog.datasets.get("photos") == dataset()
    assert catalog.datasets.policies() == {policy_id(POLICY): POLICY, policy_id(CODED): CODED}


def test_hooks_are_kept_with_their_dataset(catalog: Catalog) -> None:
    hooked = dataset(
        consistency=Consistency(before="dump", after="clean", limit_s=5, failure="warn", snapshot="btrfs"), roots=()
    )
    catalog.datasets.add(hooked)
    catalog.datasets.add(dataset("plain"))
    assert catalog.datasets.all() == [hooked, dataset("plain")]
    assert catalog.datasets.get("plain").consistency == Consistency()


def test_a_file_of_the_first_version_is_read_and_becomes_one_of_today(catalog: Catalog, tmp_path: Path) -> None:
    policy = b"\x98\x01\x03\x02\xc0\x91\xa5owner\x90\xc2\xce\x00\x27\x8d\x00"
    entry = b"\x96\xa6photos\x91\xc4\x04/srv" + policy + b"\x91\xc4\x05*.tmp\xc3\x05"
    (tmp_path / "datasets.bin").write_bytes(b"\x92\x01\x91" + entry)
    old = catalog.datasets.get("photos")
    assert (old.roots, old.exclude, old.one_file_system, old.created_ns) == ((b"/srv",), ("*.tmp",), True, 5)
    assert (old.policy.copies, old.policy.spread, old.consistency) == (3, ["owner"], Consistency())
    changed = dataclasses.replace(old, consistency=Consistency(before="dump"))
    catalog.datasets.update(changed)
    assert (tmp_path / "datasets.bin").read_bytes()[:2] == b"\x92\x02"
    assert catalog.datasets.all() == [changed]


def test_a_file_of_a_later_version_asks_for_a_newer_release(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "datasets.bin").write_bytes(b"\x92\x03\x90")
    with pytest.raises(HomeError, match="written as version 3, this release reads version 2") as caught:
        catalog.datasets.all()
    assert "newer release" in caught.value.hint


def test_a_name_is_taken_once(catalog: Catalog) -> None:
    catalog.datasets.add(dataset())
    with pytest.raises(UsageError, match="'photos' exists already"):
        catalog.datasets.add(dataset(roots=(b"/other",)))
    assert catalog.datasets.get("photos").roots == dataset().roots


def test_a_dataset_can_change_and_older_policies_stay_known(catalog: Catalog) -> None:
    catalog.datasets.add(dataset())
    catalog.datasets.update(dataset(policy=CODED))
    assert catalog.datasets.get("photos").policy == CODED
    assert set(catalog.datasets.policies()) == {policy_id(POLICY), policy_id(CODED)}


def test_a_policy_that_cannot_be_stored_adds_nothing(catalog: Catalog) -> None:
    impossible = dataclasses.replace(
        dataset(),
        policy=type(POLICY)(
            copies=999, minimum=1, coding=None, spread=[], residency=[], count_own=False, stale_after_s=3600
        ),
    )
    with pytest.raises(FormatError, match="cannot be written"):
        catalog.datasets.add(impossible)
    assert catalog.datasets.all() == []


def test_removing_a_dataset_keeps_its_snapshots(catalog: Catalog) -> None:
    catalog.datasets.add(dataset())
    catalog.snapshots.put(snapshot(1))
    catalog.datasets.remove("photos")
    assert catalog.datasets.all() == []
    assert len(catalog.snapshots.all()) == 1


@pytest.mark.parametrize("act", ["get", "remove", "update"])
def test_a_dataset_that_is_not_there_is_named_with_those_that_are(catalog: Catalog, act: str) -> None:
    with pytest.raises(NotFoundError, match="none yet"):
        catalog.datasets.get("fotos")
    catalog.datasets.add(dataset())
    catalog.datasets.add(dataset("music"))
    with pytest.raises(NotFoundError, match=r"no dataset 'fotos' in this home \(there are: music, photos\)"):
        getattr(catalog.datasets, act)(dataset("fotos") if act == "update" else "fotos")


def test_remembering_a_policy_twice_changes_nothing(catalog: Catalog) -> None:
    assert catalog.datasets.remember(POLICY) == catalog.datasets.remember(POLICY) == policy_id(POLICY)
    assert catalog.datasets.policies() == {policy_id(POLICY): POLICY}
