from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from rich.pretty import pretty_repr

from replicator.format.codec import encode
from replicator.format.keybag import (
    DomainKeyFile,
    encode_member_keys,
    read_member_keys,
    read_node_grant,
    read_node_request,
)
from tests.format.samples import (
    DOMAIN_FILE,
    GRANT,
    GRANT_1,
    INDEX_DOMAIN,
    INDEX_DOMAINS,
    KEYBAG,
    MEMBER,
    MEMBER_KEYS,
    MEMBER_KEYS_1,
    MEMBER_KEYS_2,
    REQUEST,
    REQUEST_1,
    SECRETS,
    WRAPPED,
    WRITER,
    accepted,
    inside,
    refused,
)

SECRET = [
    *(KEYBAG, DOMAIN_FILE, GRANT, GRANT_1, MEMBER, SECRETS, WRITER, SECRETS.index_keys[0]),
    *(INDEX_DOMAIN, INDEX_DOMAINS, MEMBER_KEYS),
]
secrets = inside(SECRETS, lambda part: DomainKeyFile(secrets=part))


def keys_in(value: Any) -> Iterator[bytes]:
    """Yield every byte string of a key's length in a record."""
    if isinstance(value, bytes) and len(value) == 32:
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from keys_in(item)
    elif isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield from keys_in(getattr(value, field))


@pytest.mark.parametrize("record", SECRET, ids=lambda record: type(record).__name__)
def test_a_record_with_secrets_shows_none_of_them(record: msgspec.Struct) -> None:
    found = list(keys_in(record))
    assert found
    for shown in (
        repr(record),
        f"{record}",
        f"{[record]}",
        f"{(record,)!r}",
        pretty_repr(record),
        pretty_repr([record]),
    ):
        assert type(record).__name__ in shown
        for key in found:
            assert key.hex()[:8] not in shown
            assert repr(key)[2:10] not in shown


def test_what_refuses_a_bad_key_does_not_show_it() -> None:
    bad = b"very secret key!"
    with pytest.raises(Exception, match="cannot be written") as caught:
        encode(msgspec.structs.replace(MEMBER, member_key=bad))
    assert "very secret" not in str(caught.value)


@pytest.mark.parametrize("field", ["restore_private", "mix", "id_key", "cut_key"])
def test_keys_have_32_bytes(field: str) -> None:
    for bad in (b"", bytes(31), bytes(33)):
        refused(secrets(**{field: bad}))
    accepted(secrets(**{field: bytes(32)}))


@pytest.mark.parametrize(
    ("record", "field", "bad", "good"),
    [
        (KEYBAG, "owner_seed", (bytes(31),), (bytes(32),)),
        (KEYBAG, "maintenance_seed", (bytes(33),), (bytes(32),)),
        (KEYBAG, "member_key", (b"",), (bytes(32),)),
        (MEMBER, "root_key", (bytes(31),), (bytes(32),)),
        (MEMBER, "ticket", (), (b"", b"x")),
        (REQUEST, "key", (bytes(31),), (bytes(32),)),
        (REQUEST, "seal_key", (bytes(31),), (bytes(32),)),
        (REQUEST, "name", ("", "\x1b[2J", "x" * 65), ("laptop",)),
        (WRAPPED, "memory_kib", (65535, 4194305), (65536, 4194304)),
        (WRAPPED, "passes", (2, 17), (3, 16)),
        (WRAPPED, "lanes", (0, 17), (1, 16)),
        (WRAPPED, "salt", (bytes(15), bytes(17)), (bytes(16),)),
        (WRAPPED, "commitment", (bytes(31),), (bytes(32),)),
    ],
)
def test_limits(record: Any, field: str, bad: tuple[Any, ...], good: tuple[Any, ...]) -> None:
    for value in bad:
        refused(record, **{field: value})
    for value in good:
        accepted(record, **{field: value})


@pytest.mark.parametrize("epoch", [0, -1, 2**32])
def test_epochs_begin_at_one_and_fit_the_header(epoch: int) -> None:
    refused(secrets(index_keys=[msgspec.structs.replace(SECRETS.index_keys[0], epoch=epoch)]))


def test_what_an_earlier_release_asked_for_and_granted_is_a_nodes() -> None:
    assert read_node_request(encode(REQUEST)) == REQUEST
    assert read_node_request(encode(REQUEST_1)) == msgspec.structs.replace(REQUEST, role="node")
    assert read_node_grant(encode(GRANT)) == GRANT
    nodes = msgspec.structs.replace(GRANT, role="node", indexing=[], reading=[])
    assert read_node_grant(encode(GRANT_1)) == nodes


def test_nobody_asks_to_be_a_keeper() -> None:
    refused(REQUEST, role="keeper")
    refused(GRANT, role="keeper")


def test_handed_keys_of_every_version_are_read_and_written_in_the_oldest_that_says_it_all() -> None:
    second = msgspec.structs.replace(MEMBER_KEYS, restores=[])
    first = msgspec.structs.replace(second, writing=[])
    for keys, stored in ((MEMBER_KEYS, MEMBER_KEYS), (second, MEMBER_KEYS_2), (first, MEMBER_KEYS_1)):
        assert encode_member_keys(keys) == encode(stored)
        assert read_member_keys(encode(stored)) == keys
