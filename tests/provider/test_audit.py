"""Inventory, proofs and checks answer from the disk, whatever the rows say."""

import os
import shutil

import pytest

from replicator.format.merkle import LEAF_SIZE, leaf_count, name_of, proves
from replicator.ids import ObjectName
from replicator.wire.messages import (
    MAX_CHECKS,
    MAX_PROBES,
    CheckReply,
    CheckRequest,
    Inventory,
    InventoryRequest,
    ProveReply,
    ProveRequest,
)
from tests.provider.stand import Stand, refusal
from tests.provider.tenant import MIB, SMALL, data_object, put
from tests.provider.test_session import break_file

A, B, C = (data_object(seed) for seed in (1, 2, 3))
NA, NB, NC = (name_of(data) for data in (A, B, C))


def _inventory(stand: Stand, after: bytes = b"", limit: int = 1000) -> Inventory:
    answer = stand.call("inventory", InventoryRequest(after=after, limit=limit))
    assert isinstance(answer, Inventory)
    return answer


def _names(run: bytes) -> list[bytes]:
    return [run[at : at + 32] for at in range(0, len(run), 32)]


def _check(stand: Stand, *names: ObjectName) -> list[str]:
    answer = stand.call("check", CheckRequest(names=b"".join(names)))
    assert isinstance(answer, CheckReply)
    return list(answer.states)


def _prove(stand: Stand, names: list[ObjectName], leaves: list[int]) -> ProveReply:
    answer = stand.call("prove", ProveRequest(names=b"".join(names), leaves=leaves))
    assert isinstance(answer, ProveReply)
    return answer


def _settled(stand: Stand) -> set[bytes]:
    return set(_names(_inventory(stand).names))


def test_an_inventory_lists_what_lies_there_by_name_with_sizes(stand: Stand) -> None:
    before = _settled(stand)
    large = data_object(4, 2 * MIB)
    put(stand.node, A)
    put(stand.node, large)
    found = _inventory(stand)
    names = _names(found.names)
    assert names == sorted(before | {NA, name_of(large)})
    assert dict(zip(names, found.sizes, strict=True))[name_of(large)] == 2 * MIB
    assert (found.missing, found.damaged, found.more) == (b"", b"", False)
    assert found.incarnation == stand.service.incarnation


@pytest.mark.parametrize(
    ("kind", "inventory", "state"),
    [
        ("gone", "missing", "missing"),
        ("cut", "damaged", "damaged"),
        ("a folder", "missing", "missing"),
        ("swapped", "names", "damaged"),
        ("rotten", "names", "damaged"),
    ],
)
def test_a_broken_object_is_seen_by_inventory_or_by_check_and_then_by_all(
    stand: Stand, kind: str, inventory: str, state: str
) -> None:
    """A changed byte costs a read to find: inventory sees sizes, check and prove see contents."""
    put(stand.node, A)
    break_file(stand.house.file(stand.tenant, NA), kind)
    assert NA in _names(getattr(_inventory(stand), inventory))
    leaf = leaf_count(SMALL) - 1
    assert _prove(stand, [NA], [leaf]).proofs == [None]
    assert _check(stand, NA) == [state]
    after = _inventory(stand)
    assert NA in _names(getattr(after, state))
    assert NA not in _names(after.names)
    put(stand.node, A)
    assert _check(stand, NA) == ["good"]
    assert NA in _names(_inventory(stand).names)


def test_a_whole_folder_that_vanished_is_missing_and_can_be_filled_again(stand: Stand) -> None:
    put(stand.node, A)
    before = _settled(stand)
    shutil.rmtree(os.path.join(stand.house.data, stand.tenant.id.hex()))
    assert set(_names(_inventory(stand).missing)) == before
    put(stand.node, A)
    assert _names(_inventory(stand).names) == [NA]


def test_files_that_are_no_objects_are_passed_over(stand: Stand) -> None:
    before = _settled(stand)
    folder = stand.house.objects(stand.tenant)
    for name in ("README", "a" * 63, "A" * 64, "g" * 64):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(bytes(SMALL))
    assert _settled(stand) == before
    assert _inventory(stand).damaged == b""


def test_a_file_of_a_size_that_no_object_has_is_damaged(stand: Stand) -> None:
    put(stand.node, A)
    with open(stand.house.file(stand.tenant, NA), "wb") as file:
        file.write(b"tiny")
    assert _inventory(stand).damaged == NA


def test_a_file_that_was_never_received_is_listed_once_a_start_has_looked_at_it(stand: Stand) -> None:
    before = _settled(stand)
    for name, data in ((NA, A), (NB, bytes(SMALL))):
        with open(stand.house.file(stand.tenant, name), "wb") as file:
            file.write(data)
    assert _settled(stand) == before
    stand.restart()
    assert _settled(stand) == {*before, NA}
    assert _inventory(stand).damaged == b""


def test_a_file_of_another_size_than_received_is_damaged_also_if_objects_may_have_it(stand: Stand) -> None:
    data = data_object(1, 2 * SMALL)
    put(stand.node, data)
    os.truncate(stand.house.file(stand.tenant, name_of(data)), SMALL)
    found = _inventory(stand)
    assert found.damaged == name_of(data)
    assert name_of(data) not in _names(found.names)


def test_pages_cover_present_missing_and_damaged_without_gap_or_repeat(stand: Stand) -> None:
    objects = [data_object(seed) for seed in range(20, 40)]
    for data in objects:
        put(stand.node, data)
    for data in objects[::3]:
        os.unlink(stand.house.file(stand.tenant, name_of(data)))
    for data in objects[1::3]:
        os.truncate(stand.house.file(stand.tenant, name_of(data)), 5)
    whole = _inventory(stand)
    for limit in (1, 2, 7, 22, 23):
        seen: dict[str, list[bytes]] = {"names": [], "missing": [], "damaged": []}
        after = b""
        while True:
            page = _inventory(stand, after, limit)
            for field, found in seen.items():
                found += _names(getattr(page, field))
            assert len(page.names + page.missing + page.damaged) <= 32 * limit
            if not page.more:
                break
            assert page.last > after
            after = page.last
        for field, found in seen.items():
            assert found == _names(getattr(whole, field))


def test_every_leaf_of_an_object_can_be_proved(stand: Stand) -> None:
    data = data_object(1, 4 * SMALL)
    put(stand.node, data)
    put(stand.node, B)
    leaves = list(range(leaf_count(len(data))))
    reply = _prove(stand, [name_of(data)] * len(leaves) + [NB], [*leaves, 2])
    for index, proof in zip(leaves, reply.proofs, strict=False):
        assert proof is not None
        assert proves(name_of(data), index, proof)
        assert proof.leaf == data[index * LEAF_SIZE : (index + 1) * LEAF_SIZE]
    last = reply.proofs[-1]
    assert last is not None
    assert proves(NB, 2, last)
    assert not proves(NA, 2, last)


def test_leaves_that_are_not_there_have_no_proof(stand: Stand) -> None:
    put(stand.node, A)
    assert _prove(stand, [NA, NA, NB], [-1, leaf_count(SMALL), 0]).proofs == [None, None, None]
    assert _check(stand, NA) == ["good"], "a foolish question is not damage"


def test_one_rotten_leaf_spoils_the_proofs_of_all_and_only_of_its_object(stand: Stand) -> None:
    put(stand.node, A)
    put(stand.node, B)
    break_file(stand.house.file(stand.tenant, NA), "rotten")
    first, second = _prove(stand, [NA, NB], [0, 0]).proofs
    assert first is None
    assert second is not None
    assert _inventory(stand).damaged == NA


def test_requests_are_bounded(stand: Stand) -> None:
    many = [NA] * (MAX_PROBES + 1)
    assert refusal(lambda: _prove(stand, many, [0] * len(many))) == "bad-request"
    assert refusal(lambda: _prove(stand, [NA], [0, 1])) == "bad-request"
    assert refusal(lambda: _check(stand, *[NA] * (MAX_CHECKS + 1))) == "bad-request"
    assert _check(stand) == []


def test_damage_is_logged_without_names(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    put(stand.node, A)
    break_file(stand.house.file(stand.tenant, NA), "rotten")
    _check(stand, NA, NB)
    assert "1 object is damaged" in caplog.text
    assert NA.hex() not in caplog.text
