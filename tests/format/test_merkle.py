import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from replicator.format.merkle import (
    LEAF_SIZE,
    NameHasher,
    Proof,
    hashes_of,
    leaf_count,
    leaf_hash,
    name_of,
    prove,
    proves,
)
from tests.fakes import SeededRng


def naive_top(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1 as it is written there, with BLAKE3."""
    if len(leaves) == 1:
        return blake3(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return blake3(b"\x01" + naive_top(leaves[:split]) + naive_top(leaves[split:])).digest()


def naive_path(at: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962 §2.1.1: what ties leaf ``at`` to the top, from its sibling upwards."""
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if at < split:
        return [*naive_path(at, leaves[:split]), naive_top(leaves[split:])]
    return [*naive_path(at - split, leaves[split:]), naive_top(leaves[:split])]


def cut(data: bytes) -> list[bytes]:
    """Return the leaves of an object."""
    return [data[at : at + LEAF_SIZE] for at in range(0, max(len(data), 1), LEAF_SIZE)]


def naive_name(data: bytes) -> bytes:
    """Return a name by the definition."""
    return blake3(b"\x02" + len(data).to_bytes(8, "little") + naive_top(cut(data))).digest()


DATA = SeededRng("merkle").bytes(40 * LEAF_SIZE)
SIZES = sorted(
    {0, 1, LEAF_SIZE - 1, LEAF_SIZE, LEAF_SIZE + 1}
    | {count * LEAF_SIZE + extra for count in range(1, 18) for extra in (-1, 0, 1)}
    | {40 * LEAF_SIZE}
)


@pytest.mark.parametrize("size", SIZES)
def test_a_name_is_what_the_recursive_definition_gives(size: int) -> None:
    assert name_of(DATA[:size]) == naive_name(DATA[:size])


@pytest.mark.parametrize("size", SIZES)
def test_every_proof_is_what_the_recursive_definition_gives_and_holds(size: int) -> None:
    data = DATA[:size]
    leaves = cut(data)
    hashes = hashes_of(leaves)
    assert leaf_count(size) == len(leaves)
    for index, leaf in enumerate(leaves):
        proof = prove(hashes, size, index, leaf)
        assert proof == Proof(size, index, leaf, naive_path(index, leaves))
        assert proves(name_of(data), index, proof)


@given(st.lists(st.integers(0, 3 * LEAF_SIZE), max_size=8))
def test_the_name_does_not_depend_on_how_the_bytes_arrive(pieces: list[int]) -> None:
    hasher = NameHasher()
    at = 0
    for length in pieces:
        hasher.update(DATA[at : at + length])
        at += length
    assert hasher.name() == name_of(DATA[: min(at, len(DATA))])


def test_asking_for_a_name_in_between_changes_nothing() -> None:
    hasher = NameHasher()
    assert hasher.name() == name_of(b"")
    hasher.update(DATA[:100])
    assert hasher.name() == name_of(DATA[:100])
    hasher.update(memoryview(DATA)[100:LEAF_SIZE])
    assert hasher.name() == name_of(DATA[:LEAF_SIZE])
    hasher.update(bytearray(DATA[LEAF_SIZE : 3 * LEAF_SIZE + 7]))
    assert hasher.name() == name_of(DATA[: 3 * LEAF_SIZE + 7])


def test_one_changed_bit_anywhere_gives_another_name() -> None:
    data = bytearray(DATA[: 2 * LEAF_SIZE + 100])
    name = name_of(data)
    for at in (0, LEAF_SIZE - 1, LEAF_SIZE, 2 * LEAF_SIZE, len(data) - 1):
        data[at] ^= 1
        assert name_of(data) != name
        data[at] ^= 1


def test_zeros_at_the_end_are_part_of_the_name() -> None:
    assert len({name_of(bytes(size)) for size in (0, 1, 2, LEAF_SIZE, LEAF_SIZE + 1)}) == 5


class TestForgery:
    data = DATA[: 5 * LEAF_SIZE + 300]
    name = name_of(data)
    leaves = cut(data)
    hashes = hashes_of(leaves)

    def proof(self, index: int) -> Proof:
        return prove(self.hashes, len(self.data), index, self.leaves[index])

    def test_another_leaf_does_not_pass(self) -> None:
        for index in range(6):
            good = self.proof(index)
            assert not proves(self.name, index, msgspec.structs.replace(good, leaf=bytes(len(good.leaf))))

    def test_a_leaf_does_not_pass_for_another_place(self) -> None:
        for index in range(6):
            for other in range(6):
                good = self.proof(index)
                assert proves(self.name, other, good) == (index == other)
                moved = msgspec.structs.replace(good, index=other)
                assert proves(self.name, other, moved) == (index == other)

    @pytest.mark.parametrize(
        "size",
        [0, 1, LEAF_SIZE, 5 * LEAF_SIZE + 299, 5 * LEAF_SIZE + 301, 8 * LEAF_SIZE, 2**64 - 1, 2**64, -1, -(2**70)],
    )
    def test_another_length_does_not_pass(self, size: int) -> None:
        for index in range(6):
            assert not proves(self.name, index, msgspec.structs.replace(self.proof(index), size=size))

    def test_a_leaf_longer_or_shorter_than_its_place_does_not_pass(self) -> None:
        for index in (0, 5):
            good = self.proof(index)
            assert not proves(self.name, index, msgspec.structs.replace(good, leaf=good.leaf + b"\x00"))
            assert not proves(self.name, index, msgspec.structs.replace(good, leaf=good.leaf[:-1]))

    def test_a_path_longer_shorter_or_out_of_order_does_not_pass(self) -> None:
        for index in range(5):
            good = self.proof(index)
            for path in (good.path[:-1], [*good.path, bytes(32)], good.path[::-1], [p[:31] for p in good.path], []):
                assert not proves(self.name, index, msgspec.structs.replace(good, path=path))

    def test_an_inner_node_does_not_pass_as_a_leaf(self) -> None:
        # A tree without different prefixes would take the two children of a node for a leaf of 64 bytes.
        pair = DATA[: 2 * LEAF_SIZE]
        children = b"".join(hashes_of(cut(pair)))
        assert not proves(name_of(pair), 0, Proof(64, 0, children, []))
        assert leaf_hash(children) != blake3(b"\x01" + children).digest()

    def test_a_subtree_does_not_pass_as_an_object(self) -> None:
        assert not proves(self.name, 0, Proof(LEAF_SIZE, 0, self.leaves[0], []))
        whole = name_of(DATA[: 4 * LEAF_SIZE])
        half = self.hashes[:2]
        assert not proves(whole, 0, prove(half, 2 * LEAF_SIZE, 0, self.leaves[0]))

    def test_an_index_that_is_not_there_does_not_pass(self) -> None:
        good = self.proof(0)
        for index in (-1, 6, 2**63):
            assert not proves(self.name, index, msgspec.structs.replace(good, index=index))

    def test_a_proof_that_says_another_index_than_was_asked_for_does_not_pass(self) -> None:
        for index in range(6):
            assert not proves(self.name, index, msgspec.structs.replace(self.proof(index), index=(index + 1) % 6))

    def test_a_name_made_of_leaves_of_another_length_proves_nothing(self) -> None:
        # Whoever makes up an object can make up its tree as well; a leaf still has the length its place gives it.
        for leaf, size in ((b"x" * (LEAF_SIZE + 1), LEAF_SIZE), (b"x" * 10, 11), (b"x", 0)):
            made_up = blake3(b"\x02" + size.to_bytes(8, "little") + leaf_hash(leaf)).digest()
            assert not proves(made_up, 0, Proof(size, 0, leaf, []))

    def test_things_that_are_no_bytes_in_a_path_do_not_pass(self) -> None:
        good = self.proof(0)
        assert not proves(self.name, 0, Proof(good.size, 0, good.leaf, ["x" * 32, *good.path[1:]]))  # type: ignore[list-item] # a careless peer

    def test_the_empty_object_has_one_empty_leaf(self) -> None:
        assert proves(name_of(b""), 0, Proof(0, 0, b"", []))
        assert not proves(name_of(b""), 1, Proof(0, 1, b"", []))
        assert not proves(name_of(b""), 0, Proof(0, 0, b"x", []))


@pytest.mark.parametrize("index", [-1, 3, 100])
def test_only_leaves_that_exist_can_be_proved(index: int) -> None:
    with pytest.raises(IndexError, match="of 3"):
        prove(hashes_of(cut(DATA[: 3 * LEAF_SIZE])), 3 * LEAF_SIZE, index, b"")
