import msgspec
import pytest

from replicator.format.forget import KeptChain, KeptSnapshot
from tests.format.samples import FORGET, accepted, inside, refused, run

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
