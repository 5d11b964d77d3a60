from unittest.mock import Mock

import pytest
from blake3 import blake3

from chunker import ChunkId, Location
from replicator.catalog.catalog import Catalog
from replicator.catalog.objects import Holding, ObjectKind, ObjectRow
from replicator.catalog.peers import PeerRow
from replicator.fs import PosixFs
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
        chunk_ids=b"".join(chunks or []),
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


def test_of_many_names_those_are_told_that_nothing_is_known_of(catalog: Catalog) -> None:
    for number in range(0, 1200, 3):
        add(catalog, number)
    asked = {name(number) for number in range(1200)}
    assert catalog.objects.unknown(asked) == {name(number) for number in range(1200) if number % 3}
    assert catalog.objects.unknown(set()) == set()


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


def test_the_chunks_of_a_pack_come_back_in_the_order_of_its_directory(catalog: Catalog) -> None:
    ids = [chunk(3), chunk(1), chunk(2), chunk(1)]
    assert catalog.objects.chunk_ids(add(catalog, 1, chunks=list(ids))) == b"".join(ids)
    assert catalog.objects.chunk_ids(add(catalog, 2, kind="index")) == b""
    assert catalog.objects.chunk_ids(99) == b""


def test_a_row_and_its_chunks_are_there_together_or_not_at_all(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PosixFs, "commit", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        add(catalog, 1, chunks=[chunk(1)])
    assert catalog.database.rows("SELECT * FROM pack_ids") == []
    assert catalog.objects.all() == []


def test_a_pack_that_is_known_gets_other_chunks_only_if_some_are_given(readers: Catalog) -> None:
    row = add(readers, 1, chunks=[chunk(1), chunk(2)])
    assert add(readers, 1) == row
    assert readers.objects.chunk_ids(row) == chunk(1) + chunk(2)
    assert add(readers, 1, chunks=[chunk(2), chunk(3)]) == row
    assert readers.objects.chunk_ids(row) == chunk(2) + chunk(3)
    assert readers.objects.places([chunk(1), chunk(2), chunk(3)]) == [[], [Location(row, 0)], [Location(row, 1)]]


def test_no_row_number_is_used_twice(catalog: Catalog) -> None:
    first, second = add(catalog, 1), add(catalog, 2)
    catalog.objects.forget([first, second])
    assert add(catalog, 3) > second
    catalog.objects.forget([add(catalog, 4)])
    assert add(catalog, 1) not in (first, second)


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1700])
def test_places_are_looked_up_in_batches_in_the_order_asked(readers: Catalog, count: int) -> None:
    known = [chunk(number) for number in range(count)]
    row = add(readers, 1, chunks=[bytes(one) for one in known])
    asked = [one for number, at in enumerate(reversed(known)) for one in (at, chunk(10_000 + number))]
    found = readers.objects.places(asked)
    assert found == [places for at in reversed(range(count)) for places in ([Location(row, at)], [])]


def test_a_chunk_asked_for_twice_is_answered_twice(readers: Catalog) -> None:
    row = add(readers, 1, chunks=[chunk(7)])
    assert readers.objects.places([chunk(7), chunk(7)]) == [[Location(row, 0)]] * 2


def test_a_chunk_that_is_stored_again_is_found_in_the_later_pack_first(readers: Catalog) -> None:
    first = add(readers, 1, chunks=[chunk(1), chunk(2)])
    second = add(readers, 2, chunks=[chunk(3), chunk(2)])
    assert readers.objects.places([chunk(1), chunk(2), chunk(3)]) == [
        [Location(first, 0)],
        [Location(second, 1), Location(first, 1)],
        [Location(second, 0)],
    ]


def test_a_catalog_without_places_keeps_no_row_for_each_chunk_and_says_so(catalog: Catalog) -> None:
    add(catalog, 1, chunks=[chunk(1)])
    assert catalog.database.rows("SELECT * FROM chunks") == []
    with pytest.raises(AssertionError, match="without places"):
        catalog.objects.places([chunk(1)])


def test_objects_are_forgotten_with_all_that_is_known_of_them(readers: Catalog) -> None:
    catalog = readers
    first, second = add(catalog, 1, chunks=[chunk(1)]), add(catalog, 2, chunks=[chunk(2)])
    third, index = add(catalog, 3, chunks=[chunk(2)]), add(catalog, 4, kind="index")
    catalog.objects.set_index([second], index)
    catalog.objects.held(third, BO, incarnation=bytes(16), receipt=b"r", received_ns=1)
    catalog.objects.set_claimed(BO, 1, {third})
    catalog.objects.forget([first, third, index])
    assert catalog.objects.places([chunk(1), chunk(2)]) == [[], [Location(second, 0)]]
    assert [catalog.objects.chunk_ids(row) for row in (first, second, third)] == [b"", chunk(2), b""]
    assert [(row.id, row.index_id) for row in catalog.objects.all()] == [(second, None)]
    assert catalog.objects.holdings() == []
    assert catalog.objects.claimed(BO) == set()


def test_a_lost_pack_is_replaced_once_other_packs_of_its_writer_hold_all_its_chunks(catalog: Catalog) -> None:
    lost = add(catalog, 1, chunks=[chunk(1), chunk(2)])
    catalog.objects.set_lost([lost])
    assert catalog.objects.all("lost")[0].lost
    add(catalog, 2, chunks=[chunk(1)])
    add(catalog, 3, chunks=[chunk(2)], writer=bytes(32))
    assert catalog.objects.replaced([lost]) == set()
    other = add(catalog, 4, chunks=[chunk(2), chunk(3)])
    assert catalog.objects.replaced([lost]) == {lost}
    catalog.objects.set_lost([other])
    assert catalog.objects.replaced([lost]) == set()


def test_packs_of_several_writers_that_replace_each_other_are_told_apart(catalog: Catalog) -> None:
    one, two = (add(catalog, number, chunks=[chunk(1), chunk(2)]) for number in (1, 2))
    alone = add(catalog, 3, chunks=[chunk(1), chunk(5)])
    twice = add(catalog, 4, chunks=[chunk(5), chunk(5)])
    theirs = add(catalog, 5, chunks=[chunk(1), chunk(2)], writer=bytes(32))
    empty = add(catalog, 6)
    everything = [one, two, alone, twice, theirs, empty]
    assert catalog.objects.replaced(everything) == {one, two, alone, twice, empty}, "what is kept may stand for another"
    catalog.objects.set_lost([twice])
    assert catalog.objects.replaced(everything) == {one, two, twice, empty}, "who is lost stands for nobody"
    assert catalog.objects.replaced([two]) == {two}


@pytest.mark.parametrize("cached", [0, 100])
def test_ids_that_begin_alike_are_not_taken_for_each_other(
    catalog: Catalog, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicator.catalog.idset._CACHED", cached)
    alike = [bytes(8) + bytes([number]) * 24 for number in range(6)]
    row = add(catalog, 1, chunks=alike[1:4])
    add(catalog, 2, chunks=[alike[2], alike[5], alike[1], alike[0]])
    assert catalog.objects.replaced([row]) == set()
    assert catalog.objects.unlisted(b"".join(alike)) == 1
    add(catalog, 3, chunks=[alike[3]])
    assert catalog.objects.replaced([row]) == {row}


def test_nothing_is_read_if_nothing_is_asked(catalog: Catalog) -> None:
    add(catalog, 1, chunks=[chunk(1)])
    catalog.close()
    assert catalog.objects.replaced([]) == set()


@pytest.mark.parametrize("cached", [0, 1000])
@pytest.mark.parametrize("part", [1, 100, 4 << 20])
def test_chunks_that_no_pack_lists_are_counted(
    catalog: Catalog, part: int, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicator.catalog.idset._CACHED", cached)
    monkeypatch.setattr("replicator.catalog.objects._PART", part)
    for number in range(20):
        writer = bytes([number % 3]) * 32
        add(catalog, number, chunks=[chunk(at) for at in range(number * 5, number * 5 + 7)], writer=writer)
    catalog.objects.set_lost([1])
    listed = [chunk(number) for number in range(102)]
    missing = [chunk(number) for number in range(200, 209)]
    assert catalog.objects.unlisted(b"".join(sorted(listed))) == 0
    assert catalog.objects.unlisted(b"".join(sorted(listed + missing))) == 9
    assert catalog.objects.unlisted(b"") == 0
    assert catalog.objects.replaced([1]) == set()


def test_packs_of_a_writer_and_a_policy_come_in_order_and_within_a_range(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicator.catalog.objects._PART", 100)
    rows = [add(catalog, number, chunks=[chunk(number)] * 3) for number in range(9)]
    add(catalog, 20, chunks=[chunk(1)], writer=bytes(32))
    add(catalog, 21, kind="index")
    found = list(catalog.objects.packs(WRITER, bytes(16), after=rows[1], upto=rows[6]))
    assert found == [(rows[number], chunk(number) * 3) for number in range(2, 7)]
    assert catalog.objects.newest_pack(WRITER, bytes(16)) == rows[-1]
    assert catalog.objects.newest_pack(WRITER, bytes([1]) * 16) is None


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
    assert {one.peer: one.state for one in catalog.objects.holdings()} == {BO: "missing", CLEO: "held"}


def test_the_last_accepted_claim_is_remembered_with_its_number(catalog: Catalog) -> None:
    rows = [add(catalog, number) for number in range(4)]
    catalog.peers.put(PeerRow(identity=BO))
    assert catalog.objects.claimed(BO) == set()
    catalog.objects.set_claimed(BO, 1, rows[:3])
    catalog.objects.set_claimed(BO, 2, rows[2:])
    assert catalog.objects.claimed(BO) == set(rows[2:])
    assert catalog.objects.claimed(CLEO) == set()
    assert catalog.peers.get(BO).claim_number == 2


@pytest.mark.parametrize("how", ["inventory", "receipt"])
def test_a_lost_pack_that_is_cut_is_lost_no_more_once_enough_of_its_shards_are_seen_again(
    catalog: Catalog, how: str
) -> None:
    shards = [name(number) for number in range(2, 5)]
    pack = catalog.objects.add(
        name=name(1), writer=WRITER, kind="data", size=1 << 20, spooled=False, created_ns=NOW, shards=shards, needed=2
    )
    rows = [row.id for row in catalog.objects.all("kind = 'shard'")]
    peers = [BO, CLEO, Identity(bytes([4]) * 32)]
    for row, peer in zip(rows, peers, strict=True):
        catalog.objects.set_states(peer, {row: "held"}, incarnation=OLD, now_ns=NOW)
    catalog.objects.set_lost([pack])
    later = NOW + 40 * 86400 * 10**9

    def seen(row: int, peer: Identity) -> None:
        if how == "inventory":
            catalog.objects.set_states(peer, {row: "held"}, incarnation=OLD, now_ns=later)
        else:
            catalog.objects.held(row, peer, incarnation=OLD, receipt=b"signed", received_ns=later)

    seen(rows[0], BO)
    assert catalog.objects.all("lost"), "two are silent since, and were believed to have theirs"
    seen(rows[1], CLEO)
    assert not catalog.objects.all("lost")


def test_an_object_that_two_writers_indexes_name_is_remembered_for_both(catalog: Catalog) -> None:
    other = bytes([9]) * 32
    mine, theirs = add(catalog, 100, kind="index"), add(catalog, 200, kind="index", writer=other)
    pack = add(catalog, 1, index=mine, chunks=[chunk(1)])
    add(catalog, 2, index=mine, chunks=[chunk(2)])
    assert catalog.objects.disputes() == {}
    catalog.objects.also_listed([pack], theirs)
    assert catalog.objects.disputes() == {(name(200), other, WRITER): 1}
    assert catalog.objects.listings() == {pack: [theirs]}
    assert [row.id for row in catalog.objects.of_indexes([name(200)])] == [pack]
    assert catalog.objects.of_index_rows([theirs]) == {pack}
    catalog.objects.become(pack, writer=other, kind="tree", size=131072, index_id=theirs)
    found = catalog.objects.by_name(name(1))
    assert found is not None
    assert (found.writer, found.kind, found.size, found.index_id) == (other, "tree", 131072, theirs)
    assert catalog.objects.disputes() == {(name(100), WRITER, other): 1}
    catalog.objects.forget([theirs])
    found = catalog.objects.by_name(name(1))
    assert found is not None
    assert (found.writer, found.index_id) == (WRITER, mine), "what is left of two words is believed"
    assert catalog.objects.disputes() == {}
    catalog.objects.forget([pack, mine])
    assert catalog.objects.listings() == {}


def test_a_shard_that_turns_out_to_be_a_pack_stays_known_as_what_it_was_called(catalog: Catalog) -> None:
    other = bytes([9]) * 32
    theirs, mine = add(catalog, 200, kind="index", writer=other), add(catalog, 100, kind="index")
    catalog.objects.add(
        name=name(1),
        writer=other,
        kind="data",
        size=4 << 20,
        policy=bytes(16),
        index_id=theirs,
        spooled=False,
        created_ns=NOW,
        shards=[name(number) for number in range(2, 8)],
        needed=4,
    )
    [pack] = catalog.objects.by_names([name(2)])
    catalog.objects.become(pack.id, writer=WRITER, kind="data", size=65536, policy=bytes(16), index_id=mine)
    assert catalog.objects.disputes() == {(name(200), other, WRITER): 1}
    assert pack.id not in catalog.objects.shards_only_of([row.id for row in catalog.objects.by_names([name(1)])])
    assert [row.id for row in catalog.objects.of_indexes([name(100)])] == [pack.id]


def test_a_size_that_a_peer_listed_is_not_changed_by_what_an_index_says(catalog: Catalog) -> None:
    mine, seen, unseen = add(catalog, 100, kind="index"), add(catalog, 1, kind="shard"), add(catalog, 2, kind="shard")
    catalog.objects.set_states(BO, {seen: "held", unseen: "damaged"}, incarnation=NEW, now_ns=NOW)
    for number in (seen, unseen):
        catalog.objects.become(number, writer=WRITER, kind="data", size=1 << 20, policy=bytes(16), index_id=mine)
    assert [row.size for row in catalog.objects.rows_of([seen, unseen])] == [65536, 1 << 20]
