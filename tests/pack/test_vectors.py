"""The frozen bytes of tests/vectors/pack.json: a pack and an object of this release open for ever."""

import base64

from replicator.format.container import Kind
from replicator.format.merkle import name_of
from replicator.format.sizes import SMALLEST
from replicator.pack.directory import read_directory
from replicator.pack.keys import DomainKeys
from replicator.pack.reader import PackReader, ReaderKeys
from replicator.pack.sealed import open_object
from tests.vectors import make_vectors

FROZEN = make_vectors.load("pack")
_KEYS = FROZEN["keys"]
KEYS = DomainKeys(
    tenant=bytes.fromhex(_KEYS["tenant"]),
    domain=bytes.fromhex(_KEYS["domain"]),
    restore_key=bytes.fromhex(_KEYS["restore public"]),
    mix=bytes.fromhex(_KEYS["mix"]),
    id_key=bytes.fromhex(_KEYS["id key"]),
    cut_key=bytes(32),
    epoch=_KEYS["epoch"],
    index_keys={int(epoch): bytes.fromhex(key) for epoch, key in _KEYS["index keys"].items()},
)
PACK = base64.b64decode(FROZEN["pack"]["data"])


def test_a_frozen_pack_gives_its_chunks() -> None:
    assert len(PACK) == SMALLEST
    assert name_of(PACK).hex() == FROZEN["pack"]["name"]
    pack = PackReader(PACK, ReaderKeys(keys=KEYS, restore_private=bytes.fromhex(_KEYS["restore private"])))
    assert pack.directory.policy.hex() == FROZEN["policy"]
    assert {one.chunk_id.hex() for one in pack.directory.segments} == {one["id"] for one in FROZEN["chunks"]}
    assert {one.encoding for one in pack.directory.segments} == {0, 1}
    for one in FROZEN["chunks"]:
        plain = pack.chunk(one["kind"], bytes.fromhex(one["id"]))
        assert plain == base64.b64decode(one["plain"])
        assert KEYS.hashers()[one["kind"]](plain).hex() == one["id"]


def test_a_frozen_packs_directory_needs_no_content_key() -> None:
    kind, directory, _ = read_directory(PACK, len(PACK), KEYS)
    assert kind == Kind.DATA_PACK
    assert len(directory.slots) == 1
    assert sorted(one.counter for one in directory.segments) == list(range(len(FROZEN["chunks"])))


def test_a_frozen_object_opens_and_is_sealed_again_the_same_way() -> None:
    frozen = FROZEN["object"]
    body = open_object(base64.b64decode(frozen["data"]), Kind(frozen["kind"]), KEYS)
    assert body.hex() == frozen["body"]
    assert make_vectors.pack_vectors(FROZEN) == FROZEN
