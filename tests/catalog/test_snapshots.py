import dataclasses
import os
from pathlib import Path
from typing import Any

import msgspec
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
        keep_caches=True,
        exclude_if_present=(".nobackup", os.fsdecode(b"\xff")),
        exclude_larger_than=4 * 10**9,
        created_ns=5,
    )
    return dataclasses.replace(row, **changes)


def test_the_newest_is_the_one_with_the_highest_number_whatever_its_time(catalog: Catalog) -> None:
    for row in (snapshot(1), snapshot(2, created_ns=9000), snapshot(3, created_ns=2000), snapshot(4, head=b"")):
        catalog.snapshots.put(row)
    catalog.snapshots.put(snapshot(5, writer=OTHER))
    newest = catalog.snapshots.newest("writer = ? AND head != x''", (WRITER,))
    assert newest == snapshot(3, created_ns=2000)
    assert catalog.snapshots.newest("writer = ?", (bytes(32),)) is None


def test_a_snapshot_is_remembered_as_given(catalog: Catalog) -> None:
    rows = [
        snapshot(1),
        snapshot(2, tags=("before the move", "b"), partial=True, indexes=(), references=(), gaps=(), dataset=""),
    ]
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


def test_datasets_are_kept_with_their_policies(catalog: Catalog) -> None:
    catalog.datasets.add(dataset())
    catalog.datasets.add(dataset("music", policy=CODED, exclude=(), roots=(b"/m",)))
    assert catalog.datasets.all() == [dataset("music", policy=CODED, exclude=(), roots=(b"/m",)), dataset()]
    assert catalog.datasets.get("photos") == dataset()
    assert catalog.datasets.policies() == {policy_id(POLICY): POLICY, policy_id(CODED): CODED}


def stored(catalog: Catalog) -> Path:
    """Return where datasets are kept."""
    return Path(catalog.database.path).parent / "datasets.bin"


def test_datasets_of_version_1_are_read_and_kept_as_they_are(catalog: Catalog) -> None:
    policy = msgspec.to_builtins(POLICY)
    old = [
        ["music", [b"/m"], policy, [], False, 4],
        ["photos", [b"/home/\xff/photos", b"/srv"], policy, [b"*.tmp", b"a/*/b", b"/srv/x", b"!\xff"], True, 5],
    ]
    stored(catalog).write_bytes(msgspec.msgpack.encode([1, old]))
    music = dataset(
        "music",
        roots=(b"/m",),
        exclude=(),
        one_file_system=False,
        exclude_if_present=(),
        exclude_larger_than=None,
        created_ns=4,
    )
    photos = dataset(
        exclude=("*.tmp", "a/*/**/b", "/srv/x", os.fsdecode(b"\\!\xff")),
        exclude_if_present=(),
        exclude_larger_than=None,
    )
    assert catalog.datasets.all() == [music, photos]
    catalog.datasets.update(photos)
    assert msgspec.msgpack.decode(stored(catalog).read_bytes())[0] == 2
    assert catalog.datasets.all() == [music, photos]


def test_a_repository_beside_is_kept_with_its_dataset_and_older_files_are_read(catalog: Catalog) -> None:
    def version() -> int:
        found: int = msgspec.msgpack.decode(stored(catalog).read_bytes())[0]
        return found

    plain, domain = dataset("a"), dataset("b", domain=bytes(range(16)))
    beside = dataset("c", also_borg="/srv/borg")
    for one, expected in ((plain, 2), (domain, 3), (beside, 4)):
        catalog.datasets.add(one)
        assert version() == expected
        assert catalog.datasets.get(one.name) == one
    catalog.datasets.remove("c")
    assert (version(), catalog.datasets.all()) == (3, [plain, domain])


def test_hooks_are_kept_with_their_dataset(catalog: Catalog) -> None:
    hooked = dataset(
        consistency=Consistency(before="dump", after="clean", limit_s=5, failure="warn", snapshot="btrfs"), roots=()
    )
    catalog.datasets.add(hooked)
    catalog.datasets.add(dataset("plain"))
    assert catalog.datasets.all() == [hooked, dataset("plain")]
    assert catalog.datasets.get("plain").consistency == Consistency()


def test_datasets_of_a_later_release_are_not_called_damaged(catalog: Catalog) -> None:
    catalog.datasets.add(dataset())
    data = stored(catalog).read_bytes()
    stored(catalog).write_bytes(data[:1] + b"\x05" + data[2:])
    with pytest.raises(HomeError, match=r"datasets\.bin: .* version 5, this release reads version 4") as caught:
        catalog.datasets.all()
    assert "newer release" in caught.value.hint
    assert "damaged" not in caught.value.message


def test_datasets_that_are_damaged_are_not_called_newer(catalog: Catalog) -> None:
    catalog.datasets.add(dataset())
    stored(catalog).write_bytes(stored(catalog).read_bytes()[:-1])
    with pytest.raises(HomeError, match=r"datasets\.bin: damaged"):
        catalog.datasets.all()


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
