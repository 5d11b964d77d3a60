import msgspec
import pytest

from replicator.errors import FormatError
from replicator.format.codec import encode
from replicator.format.forget import KeptChain, KeptSnapshot, read_forget
from tests.format.samples import FORGET, FORGET_1, accepted, inside, refused, run

first, second = FORGET.chains
with_chain = inside(first, lambda chain: msgspec.structs.replace(FORGET, chains=[chain]))


def kept(*numbers: int) -> list[KeptSnapshot]:
    """Return snapshots with these numbers."""
    return [KeptSnapshot(number=number, name=run(number, 32)) for number in numbers]


def test_a_tenant_may_have_forgotten_nothing_or_everything_of_a_chain() -> None:
    accepted(FORGET, chains=[])
    accepted(FORGET, chains=[KeptChain(writer=first.writer, upto=5, kept=[])])


@pytest.mark.parametrize("numbers", [(2, 1), (2, 2), (301,), (300, 301)])
def test_kept_snapshots_rise_and_end_where_the_chain_is_known_to(numbers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="kept"):
        with_chain(kept=kept(*numbers))


def test_chains_are_sorted_by_writer_each_once() -> None:
    for chains in ([second, first], [first, first]):
        with pytest.raises(ValueError, match="chains"):
            msgspec.structs.replace(FORGET, chains=chains)


@pytest.mark.parametrize("changes", [{"number": 0}, {"previous": bytes(31)}, {"created_ns": -1}, {"tenant": b""}])
def test_fields_out_of_bounds_are_refused(changes: dict[str, object]) -> None:
    refused(FORGET, **changes)


def test_what_an_earlier_release_forgot_is_read_as_nothing_gone_or_moved() -> None:
    assert read_forget(encode(FORGET)) == FORGET
    assert read_forget(encode(FORGET_1)) == msgspec.structs.replace(FORGET, view=[], gone=b"", moved=[])
    with pytest.raises(FormatError):
        read_forget(encode(FORGET).replace(b"\x99\x02", b"\x99\x03", 1))


@pytest.mark.parametrize("field", ["view", "moved"])
def test_writers_seen_and_indexes_moved_are_sorted_each_once(field: str) -> None:
    first_one, second_one = getattr(FORGET, field)
    for parts in ([second_one, first_one], [first_one, first_one]):
        with pytest.raises(ValueError, match=field):
            msgspec.structs.replace(FORGET, **{field: parts})


def test_names_of_packs_are_sorted_each_once() -> None:
    low, high = run(0x11, 32), run(0x12, 32)
    for names in (high + low, low + low, low[:31]):
        with pytest.raises(ValueError, match="gone"):
            msgspec.structs.replace(FORGET, gone=names)
        with pytest.raises(ValueError, match="packs"):
            msgspec.structs.replace(FORGET.moved[0], packs=names)
