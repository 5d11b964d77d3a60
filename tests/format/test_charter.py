from typing import Any

import msgspec
import pytest

from replicator.errors import UnsupportedVersionError
from replicator.format.charter import (
    EVERY_OP,
    ROLE_OPS,
    DomainPublic,
    Floors,
    PeerPin,
    Right,
    encode_charter,
    encode_charter_private,
    read_charter,
    read_charter_private,
)
from replicator.format.codec import encode
from tests.format.samples import (
    CHARTER,
    CHARTER_1,
    ORDER,
    PRIVATE,
    PRIVATE_1,
    PRIVATE_2,
    PRIVATE_3,
    PRIVATE_4,
    PRIVATE_5,
    PRIVATE_6,
    RIGHT,
    ROOT,
    accepted,
    inside,
    refused,
)

right = inside(RIGHT, lambda part: msgspec.structs.replace(CHARTER, rights=[part]))
floors = inside(ROOT.floors, lambda part: msgspec.structs.replace(ROOT, floors=part))
pin = inside(PRIVATE.peers[0], lambda part: msgspec.structs.replace(PRIVATE, peers=[part]))
legal = inside(PRIVATE.legal[0], lambda part: msgspec.structs.replace(PRIVATE, legal=[part]))
domain = inside(PRIVATE.domains[0], lambda part: msgspec.structs.replace(PRIVATE, domains=[part]))
YEARS = 10 * 366 * 86400
HUGE = 2**62
NOT_PLAIN = ("a\n", "\x1b[2J", "a\x00b", "\x7f", "\x9b", "a\u2028b", "\u202eevil", "\u2066x", "", "x" * 65)


def test_every_role_asks_only_for_ops_there_are_in_sorted_order() -> None:
    for ops in ROLE_OPS.values():
        assert set(ops) <= set(EVERY_OP)
        assert list(ops) == sorted(ops)
    assert list(EVERY_OP) == sorted(EVERY_OP)


def test_only_a_node_may_publish_and_only_a_maintainer_may_mark() -> None:
    assert [role for role, ops in ROLE_OPS.items() if "publish" in ops] == ["node"]
    assert [role for role, ops in ROLE_OPS.items() if "mark" in ops] == ["maintainer"]


@pytest.mark.parametrize(("record", "field"), [(ROOT, "number"), (CHARTER, "number")])
def test_numbers_begin_at_one(record: Any, field: str) -> None:
    for bad in (0, -1, HUGE + 1):
        refused(record, **{field: bad})
    for good in (1, HUGE):
        accepted(record, **{field: good})


@pytest.mark.parametrize(
    ("record", "field", "size"),
    [
        (ROOT, "tenant", 16),
        (ROOT, "previous", 32),
        (ROOT, "root_key", 32),
        (ROOT, "root_seal_key", 32),
        (ROOT, "owner_key", 32),
        (CHARTER, "tenant", 16),
        (CHARTER, "previous", 32),
        (CHARTER, "keybag", 32),
        (ORDER, "holder_key", 32),
    ],
)
def test_ids_keys_and_hashes_have_one_size(record: Any, field: str, size: int) -> None:
    for bad in (b"", bytes(size - 1), bytes(size + 1)):
        refused(record, **{field: bad})
    accepted(record, **{field: bytes(size)})


@pytest.mark.parametrize(
    ("make", "field", "bad", "good"),
    [
        (floors, "lock_s", (-1, YEARS + 1), (0, YEARS)),
        (floors, "grace_s", (-1, YEARS + 1), (0, YEARS)),
        (floors, "delete_budget_percent", (-1, 101), (0, 100)),
        (floors, "minimum_copies", (0, 65), (1, 64)),
        (floors, "residency", ([""], ["SE\n"]), ([], ["NO", "SE"])),
        (right, "role", ("root", "", "Node"), ("keeper", "node", "maintainer", "drill")),
        (right, "ops", (["delete"], ["read", ""]), ([], list(EVERY_OP))),
        (right, "domains", ([bytes(15)], [bytes(17)]), ([], [bytes(16)])),
        (right, "holder_key", (bytes(31), bytes(33)), (bytes(32),)),
        (right, "quota", (-1, HUGE + 1), (0, HUGE)),
        (right, "lock_max_s", (-1, YEARS + 1), (0, YEARS)),
        (pin, "name", NOT_PLAIN, ("bo", "Åsa", "石", "x" * 64)),
        (pin, "site", NOT_PLAIN, ("cellar",)),
        (pin, "country", ("", "S", "SWE", "se", "SE\n", "S1"), ("SE", "NO")),
        (pin, "endpoints", ([""], ["a b:1"], ["a:1\n"], ["é:1"], ["x" * 262]), ([], ["a:1"], ["[::1]:7710"])),
        (legal, "legal_name", ("a\n", "\x1b", "x" * 201), ("", "Bo Ek AB", "x" * 200)),
        (legal, "contact", ("\u202ea",), ("", "+46 1")),
        (legal, "identity", (bytes(31),), (bytes(32),)),
        (domain, "epoch", (0, 2**32), (1, 2**32 - 1)),
        (domain, "name", NOT_PLAIN, ("main",)),
    ],
)
def test_limits(make: Any, field: str, bad: tuple[Any, ...], good: tuple[Any, ...]) -> None:
    for value in bad:
        refused(make(**{field: value}))
    for value in good:
        accepted(make(**{field: value}))


def test_a_tenants_country_is_two_letters() -> None:
    for bad in ("", "Sweden", "se", "SE\n"):
        refused(PRIVATE, country=bad)


def test_a_part_has_no_version_of_its_own() -> None:
    for part in (Floors, Right, PeerPin, DomainPublic):
        assert part.__struct_config__.tag is None


def test_a_private_part_of_every_version_is_read_in_the_newest_ones_terms() -> None:
    assert read_charter_private(encode(PRIVATE)) == PRIVATE
    sixth = msgspec.structs.replace(PRIVATE, formers=[], holders=b"")
    assert read_charter_private(encode(PRIVATE_6)) == sixth
    fifth = msgspec.structs.replace(sixth, standings=[])
    assert read_charter_private(encode(PRIVATE_5)) == fifth
    fourth = msgspec.structs.replace(fifth, erased=[])
    assert read_charter_private(encode(PRIVATE_4)) == fourth
    third = msgspec.structs.replace(fourth, legal=[])
    assert read_charter_private(encode(PRIVATE_3)) == third
    second = msgspec.structs.replace(third, notes=[], handed=[])
    assert read_charter_private(encode(PRIVATE_2)) == second
    assert read_charter_private(encode(PRIVATE_1)) == msgspec.structs.replace(second, checks=None)
    with pytest.raises(UnsupportedVersionError):
        read_charter_private(encode(PRIVATE).replace(b"\x9e\x07", b"\x9e\x08", 1))


def test_a_private_part_is_written_so_that_earlier_releases_read_it_if_they_can() -> None:
    assert encode_charter_private(PRIVATE) == encode(PRIVATE)
    sixth = msgspec.structs.replace(PRIVATE, formers=[], holders=b"")
    assert encode_charter_private(sixth) == encode(PRIVATE_6)
    fifth = msgspec.structs.replace(sixth, standings=[])
    assert encode_charter_private(fifth) == encode(PRIVATE_5)
    assert encode_charter_private(msgspec.structs.replace(fifth, erased=[])) == encode(PRIVATE_4)
    assert encode_charter_private(msgspec.structs.replace(fifth, erased=[], legal=[])) == encode(PRIVATE_3)


def test_a_charter_is_read_in_both_versions_and_written_in_the_first_while_that_says_it_all() -> None:
    assert read_charter(encode(CHARTER)) == CHARTER
    plain = msgspec.structs.replace(CHARTER, change=b"", handovers=[])
    assert read_charter(encode(CHARTER_1)) == read_charter(encode(plain)) == plain
    assert encode_charter(plain) == encode(CHARTER_1)
    for change in ({"change": b"one"}, {"handovers": [b"one"]}):
        charter = msgspec.structs.replace(plain, **change)
        assert read_charter(encode_charter(charter)) == charter


def test_a_charter_of_a_later_release_is_told_from_a_damaged_one() -> None:
    with pytest.raises(UnsupportedVersionError, match="version 9"):
        read_charter(encode(CHARTER).replace(b"\x9b\x02", b"\x9b\x09", 1))


def test_a_chain_of_roots_is_no_longer_than_can_be_checked_at_once() -> None:
    accepted(CHARTER, handovers=[b"one"] * 64)
    refused(CHARTER, handovers=[b"one"] * 65)
