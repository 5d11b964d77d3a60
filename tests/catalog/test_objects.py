import pytest
from blake3 import blake3

from chunker import ChunkId, Location
from replicator.catalog.catalog import Catalog
from replicator.catalog.objects import Holding, ObjectKind, ObjectRow
from replicator.catalog.peers import PeerRow
from replicator.ids import Identity, ObjectName

WRITER = bytes([1]) * 32
BO, CLEO = Identity(bytes([2]) * 32), Identity(bytes([3]) * 32)
NOW = 1_790_000_000 * 10**9
OLD, NEW = bytes(16), bytes([1]) * 16


def name(number: int) -> ObjectName:
    """Return the name of a numbered object."""
    return ObjectName(blake3(f"object {number}".encode()).digest())


def chunk(number: int) -> ChunkId:
    """Return the id of a numbered chunk."""
    return ChunkId(blake3(f"chunk {number}".encode()).digest())


def add(
    catalog: Catalog,
    number: int,
    *,
    kind: ObjectKind = "data",
    chunks: list[bytes] | None = None,
    index: int | None = None,
    spooled: bool = True,
    writer: bytes = WRITER,
) -> int:
    """Remember a numbered object; return its row id."""
    return catalog.objects.add(
        name=name(number),
        writer=writer,
        kind=kind,
        size=65536,
        policy=bytes(16),
        index_id=index,
        spooled=spooled,
        created_ns=NOW,
        chunk_ids=chunks or [],
    )


def test_an_object_is_found_by_name(catalog: Catalog) -> None:
    row = add(catalog, 1)
    assert catalog.objects.by_name(name(1)) == ObjectRow(
        id=row,
        name=name(1),
        writer=WRITER,
        kind="data",
        size=65536,
        policy=bytes(16),
        index_id=None,
        spooled=True,
        created_ns=NOW,
    )
    assert catalog.objects.by_name(name(2)) is None


def test_an_object_that_is_known_keeps_its_row_and_what_was_learnt(catalog: Catalog) -> None:
    index = add(catalog, 9, kind="index")
    row = add(catalog, 1, index=index)
    assert add(catalog, 1, spooled=False) == row
    again = catalog.objects.by_name(name(1))
    assert again is not None
    assert (again.index_id, again.spooled) == (index, True)
    catalog.objects.unspool(row)
    found = catalog.objects.by_name(name(1))
    assert found is not None
    assert not found.spooled


def test_objects_come_in_the_order_they_were_made(catalog: Catalog) -> None:
    rows = [add(catalog, number) for number in (5, 3, 4)]
    assert [row.id for row in catalog.objects.all()] == rows
    assert [row.name for row in catalog.objects.all("name = ?", (name(3),))] == [name(3)]


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1700])
def test_chunks_are_looked_up_in_batches_in_the_order_asked(catalog: Catalog, count: int) -> None:
    known = [chunk(number) for number in range(count)]
    row = add(catalog, 1, chunks=[bytes(one) for one in known])
    asked = [one for number, at in enumerate(reversed(known)) for one in (at, chunk(10_000 + number))]
    found = catalog.objects.lookup(asked)
    assert found == [place for at in reversed(range(count)) for place in (Location(row, at), None)]


def test_a_chunk_asked_for_twice_is_answered_twice(catalog: Catalog) -> None:
    row = add(catalog, 1, chunks=[chunk(7)])
    assert catalog.objects.lookup([chunk(7), chunk(7)]) == [Location(row, 0)] * 2


def test_a_chunk_that_is_stored_again_is_found_in_the_later_pack_first(catalog: Catalog) -> None:
    first = add(catalog, 1, chunks=[chunk(1), chunk(2)])
    second = add(catalog, 2, chunks=[chunk(3), chunk(2)])
    assert catalog.objects.lookup([chunk(1), chunk(2), chunk(3)]) == [
        Location(first, 0),
        Location(second, 1),
        Location(second, 0),
    ]
    assert catalog.objects.places([chunk(2), chunk(4)]) == [[Location(second, 1), Location(first, 1)], []]
    assert catalog.objects.chunk_ids(first) == [chunk(1), chunk(2)]
    assert catalog.objects.chunk_ids(second) == [chunk(3), chunk(2)]


def test_objects_are_forgotten_with_all_that_is_known_of_them(catalog: Catalog) -> None:
    first, second = add(catalog, 1, chunks=[chunk(1)]), add(catalog, 2, chunks=[chunk(2)])
    third, index = add(catalog, 3, chunks=[chunk(2)]), add(catalog, 4, kind="index")
    catalog.objects.set_index([second], index)
    catalog.objects.held(third, BO, incarnation=bytes(16), receipt=b"r", received_ns=1)
    catalog.objects.set_claimed(BO, 1, {third})
    catalog.objects.forget([first, third, index])
    assert catalog.objects.lookup([chunk(1), chunk(2)]) == [None, Location(second, 0)]
    assert [(row.id, row.index_id) for row in catalog.objects.all()] == [(second, None)]
    assert catalog.objects.holdings() == []
    assert catalog.objects.claimed(BO) == set()


def test_a_lost_pack_is_replaced_once_other_packs_of_its_writer_hold_all_its_chunks(catalog: Catalog) -> None:
    lost = add(catalog, 1, chunks=[chunk(1), chunk(2)])
    catalog.objects.set_lost([lost])
    assert catalog.objects.all("lost")[0].lost
    add(catalog, 2, chunks=[chunk(1)])
    add(catalog, 3, chunks=[chunk(2)], writer=bytes(32))
    assert not catalog.objects.is_replaced(lost)
    other = add(catalog, 4, chunks=[chunk(2), chunk(3)])
    assert catalog.objects.is_replaced(lost)
    catalog.objects.set_lost([other])
    assert not catalog.objects.is_replaced(lost)


@pytest.mark.parametrize("how", ["receipt", "inventory"])
def test_a_lost_pack_of_which_a_copy_is_found_is_lost_no_more(catalog: Catalog, how: str) -> None:
    pack = add(catalog, 1)
    catalog.objects.set_lost([pack])
    catalog.objects.set_states(BO, {pack: "missing"}, incarnation=bytes(16), now_ns=1)
    assert catalog.objects.all("lost")
    if how == "receipt":
        catalog.objects.held(pack, BO, incarnation=bytes(16), receipt=b"r", received_ns=1)
    else:
        catalog.objects.set_states(BO, {pack: "held"}, incarnation=bytes(16), now_ns=1)
    assert not catalog.objects.all("lost")


def test_packs_are_found_by_their_indexes_and_indexes_by_their_packs(catalog: Catalog) -> None:
    with catalog.database.transaction("one commit for all"):
        packs = [add(catalog, number) for number in range(1200)]
    one, two = add(catalog, 5001, kind="index"), add(catalog, 5002, kind="index")
    catalog.objects.set_index(packs[:700], one)
    catalog.objects.set_index(packs[700:1100], two)
    assert [row.id for row in catalog.objects.of_indexes([name(5001)])] == packs[:700]
    assert {row.id for row in catalog.objects.of_indexes([name(5001), name(5002), name(9)])} == set(packs[:1100])
    assert catalog.objects.of_indexes([]) == []
    assert catalog.objects.index_names(packs[:10]) == (name(5001),)
    assert catalog.objects.index_names(packs) == tuple(sorted((name(5001), name(5002))))
    assert catalog.objects.index_names(packs[1100:]) == ()


def test_a_receipt_makes_a_holding(catalog: Catalog) -> None:
    row = add(catalog, 1)
    catalog.objects.held(row, BO, incarnation=OLD, receipt=b"signed", received_ns=NOW)
    assert catalog.objects.holdings(peer=BO) == [
        Holding(object_id=row, peer=BO, state="held", incarnation=OLD, received_ns=NOW, checked_ns=NOW, audited_ns=0)
    ]
    assert catalog.objects.holdings(peer=CLEO) == []
    assert catalog.objects.holdings_of(row) == catalog.objects.holdings()


def test_an_inventory_changes_state_incarnation_and_age_and_keeps_the_receipts_time(catalog: Catalog) -> None:
    rows = [add(catalog, number) for number in range(3)]
    for row in rows:
        catalog.objects.held(row, BO, incarnation=OLD, receipt=b"signed", received_ns=NOW)
    catalog.objects.set_states(
        BO, {rows[0]: "missing", rows[1]: "damaged", rows[2]: "held"}, incarnation=NEW, now_ns=NOW + 5
    )
    found = {one.object_id: one for one in catalog.objects.holdings(peer=BO)}
    assert [found[row].state for row in rows] == ["missing", "damaged", "held"]
    assert {(one.incarnation, one.checked_ns, one.received_ns) for one in found.values()} == {(NEW, NOW + 5, NOW)}


def test_a_new_receipt_heals_a_missing_copy(catalog: Catalog) -> None:
    row = add(catalog, 1)
    catalog.objects.set_states(BO, {row: "missing"}, incarnation=OLD, now_ns=NOW)
    assert catalog.objects.holdings_of(row)[0].received_ns == 0
    catalog.objects.held(row, BO, incarnation=NEW, receipt=b"signed", received_ns=NOW + 9)
    [found] = catalog.objects.holdings_of(row)
    assert (found.state, found.incarnation, found.received_ns, found.checked_ns) == ("held", NEW, NOW + 9, NOW + 9)


def test_an_audit_is_remembered_for_holdings_that_are_known(catalog: Catalog) -> None:
    rows = [add(catalog, 1), add(catalog, 2)]
    catalog.objects.held(rows[0], BO, incarnation=OLD, receipt=b"signed", received_ns=NOW)
    catalog.objects.set_audited(BO, rows, NOW + 3)
    assert [(one.object_id, one.audited_ns) for one in catalog.objects.holdings()] == [(rows[0], NOW + 3)]


def test_what_one_peer_says_does_not_touch_another(catalog: Catalog) -> None:
    row = add(catalog, 1)
    for peer in (BO, CLEO):
        catalog.objects.held(row, peer, incarnation=OLD, receipt=b"signed", received_ns=NOW)
    catalog.objects.set_states(BO, {row: "missing"}, incarnation=NEW, now_ns=NOW)
    catalog.objects.drop_holdings(CLEO, [])
    assert {one.peer: one.state for one in catalog.objects.holdings()} == {BO: "missing", CLEO: "held"}
    catalog.objects.drop_holdings(BO, [row])
    assert [one.peer for one in catalog.objects.holdings()] == [CLEO]


def test_the_last_accepted_claim_is_remembered_with_its_number(catalog: Catalog) -> None:
    rows = [add(catalog, number) for number in range(4)]
    catalog.peers.put(PeerRow(identity=BO))
    assert catalog.objects.claimed(BO) == set()
    catalog.objects.set_claimed(BO, 1, rows[:3])
    catalog.objects.set_claimed(BO, 2, rows[2:])
    assert catalog.objects.claimed(BO) == set(rows[2:])
    assert catalog.objects.claimed(CLEO) == set()
    assert catalog.peers.get(BO).claim_number == 2
