import msgspec
import pytest

from chunker import ChunkHasher
from replicator.crypto.derive import chunk_id_key
from replicator.errors import KeyMissingError
from replicator.pack.keys import as_writer, writer_keys
from replicator.pack.reader import ReaderKeys
from tests.format.samples import SECRETS
from tests.pack.support import KEYS, RESTORE


def test_a_writer_gets_everything_but_the_private_restore_key() -> None:
    writer = as_writer(SECRETS, b"p" * 32)
    assert writer.restore_key == b"p" * 32
    for field in ("id", "name", "mix", "id_key", "cut_key", "index_keys"):
        assert getattr(writer, field) == getattr(SECRETS, field)
    fields = {getattr(writer, name) for name in writer.__struct_fields__ if name != "index_keys"}
    assert SECRETS.restore_private not in fields


def test_a_writer_writes_under_the_newest_epoch_and_reads_all() -> None:
    old, new = SECRETS.index_keys
    for order in ([old, new], [new, old]):
        keys = writer_keys(b"t" * 16, as_writer(msgspec.structs.replace(SECRETS, index_keys=order), b"p" * 32))
        assert keys.epoch == 300
        assert keys.index_key(1) == old.key
        assert keys.index_key(300) == new.key
        assert (keys.tenant, keys.domain) == (b"t" * 16, SECRETS.id)


def test_an_epoch_that_this_home_was_never_given_is_named() -> None:
    with pytest.raises(KeyMissingError, match="epoch 7"):
        KEYS.index_key(7)


def test_each_kind_of_chunk_has_ids_of_its_own() -> None:
    hashers = KEYS.hashers()
    ids = {kind: hasher(b"the same bytes") for kind, hasher in hashers.items()}
    assert sorted(ids) == [1, 2, 3]
    assert len(set(ids.values())) == 3
    assert ids[2] == ChunkHasher(chunk_id_key(KEYS.id_key, 2))(b"the same bytes")


def test_keys_are_not_shown() -> None:
    secret = [KEYS.mix, KEYS.id_key, KEYS.cut_key, *KEYS.index_keys.values(), RESTORE]
    for shown in (repr(KEYS), repr(ReaderKeys(keys=KEYS, restore_private=RESTORE))):
        for key in secret:
            assert repr(key)[2:12] not in shown
            assert key.hex()[:8] not in shown
