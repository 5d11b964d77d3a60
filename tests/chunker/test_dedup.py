from chunker import ChunkId, Location, MemorySeenIndex, SeenIndex

ONE, TWO, THREE = (ChunkId(bytes([number]) * 32) for number in (1, 2, 3))


def test_a_batch_is_answered_in_its_order() -> None:
    index: SeenIndex = MemorySeenIndex([(ONE, Location(7, 0)), (TWO, Location(7, 1))])
    assert index.lookup([THREE, TWO, ONE, TWO]) == [None, (7, 1), (7, 0), (7, 1)]
    assert index.lookup([]) == []


def test_the_first_location_of_a_chunk_stays() -> None:
    index = MemorySeenIndex()
    index.add([(ONE, Location(1, 5))])
    index.add([(ONE, Location(2, 6)), (TWO, Location(2, 7))])
    assert index.lookup([ONE, TWO]) == [Location(object_number=1, entry=5), Location(2, 7)]
    assert len(index) == 2
