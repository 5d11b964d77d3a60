"""Buckets of a real server, OpenStack Swift: what all stores are held to, and a provider's whole line."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicator.config import BucketAddress, parse_bucket
from replicator.errors import HomeError
from replicator.format.merkle import name_of
from replicator.fs import PosixFs
from replicator.ids import ObjectName
from replicator.provider.databucket import DataBucket
from replicator.store.base import ObjectStore
from replicator.store.bucket import Anchored, BucketObjectStore
from replicator.store.s3 import ObstoreBucket, open_s3
from tests import swift
from tests.fakes import FakeClock, SeededRng
from tests.provider.stand import Stand
from tests.provider.tenant import House, data_object, put
from tests.store.contract import Contract, Spoil

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.skipif(swift.programs() is None, reason="Swift is not installed: `make swift`"),
]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = swift.programs()
    assert folder is not None
    with swift.serving(folder, tmp_path_factory.mktemp("swift")) as found:
        yield found


@pytest.fixture
def address(endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> BucketAddress:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", swift.USER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", swift.KEY)
    return parse_bucket(f"s3://attic/{tmp_path.name}", endpoint=endpoint)


@pytest.fixture
def bucket(address: BucketAddress) -> ObstoreBucket:
    return open_s3(address)


class TestSwift(Contract):
    @pytest.fixture
    def store(self, bucket: ObstoreBucket, address: BucketAddress, tmp_path: Path) -> ObjectStore:
        anchor = f"{address.prefix}anchor"
        bucket.put(anchor, b"ours", fresh=True)
        anchored = Anchored(bucket, anchor, b"ours")
        made = BucketObjectStore(anchored, address.prefix, PosixFs(), os.path.join(tmp_path, "incoming"))
        made.prepare()
        return made

    @pytest.fixture
    def spoil(self, bucket: ObstoreBucket, address: BucketAddress) -> Spoil:
        def spoil(name: ObjectName, data: bytes) -> None:
            bucket.put(f"{address.prefix}objects/{name.hex()}", data, fresh=False)

        return spoil


def test_the_probe_finds_all_that_is_relied_on(bucket: ObstoreBucket, address: BucketAddress, tmp_path: Path) -> None:
    data = DataBucket(bucket, address, bytes(16), fs=PosixFs(), incoming=str(tmp_path), clock=FakeClock())
    assert data.try_out(SeededRng("swift")) == 16 << 20
    assert list(bucket.pages(address.prefix)) in ([], [[]])


def test_a_provider_keeps_serves_restarts_and_erases(address: BucketAddress, tmp_path: Path) -> None:
    def make(_address: BucketAddress) -> ObstoreBucket:
        return open_s3(address)

    stand = Stand(str(tmp_path), house=House(str(tmp_path), bucket=str(address), make_bucket=make))
    data = data_object(1)
    put(stand.node, data)
    stand.restart()
    assert stand.node.get(ObjectName(name_of(data))) == data
    assert stand.service.erase(stand.tenant.erase_order())
    assert {key for page in make(address).pages(address.prefix) for key, _ in page} == {
        f"{address.prefix}.generation",
        f"{address.prefix}.replicator-store",
    }
    stand.provider.close()


def test_wrong_keys_are_named_as_what_they_are(
    address: BucketAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")

    def make(_address: BucketAddress) -> ObstoreBucket:
        return open_s3(address)

    with pytest.raises(HomeError, match=r"Permission denied \(SignatureDoesNotMatch"):
        House(str(tmp_path), bucket=str(address), make_bucket=make).init()
