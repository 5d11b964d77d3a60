"""docs/spec/format.md and the code say the same about every record."""

import pathlib
import re

import msgspec
import pytest

from replicator.crypto.sign import Context
from replicator.format import (
    carried,
    charter,
    claim,
    drill,
    erasure,
    finding,
    forget,
    group,
    index,
    keybag,
    mark,
    notice,
    offer,
    pack,
    permit,
    policy,
    relay,
    snapshot,
    tree,
)
from replicator.format.codec import Part, Record

TEXT = (pathlib.Path(__file__).parents[2] / "docs" / "spec" / "format.md").read_text()
MODULES = (
    carried,
    charter,
    claim,
    drill,
    erasure,
    finding,
    forget,
    group,
    index,
    keybag,
    mark,
    notice,
    offer,
    pack,
    permit,
    policy,
    relay,
    snapshot,
    tree,
)
ABSTRACT = {"Record", "Part", "SecretRecord", "SecretPart"}


def structures() -> dict[str, type[msgspec.Struct]]:
    """Return every record and part that a format module defines."""
    return {
        name: value
        for module in MODULES
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, (Record, Part)) and name not in ABSTRACT
    }


def table(name: str) -> list[tuple[int, str]]:
    """Return (place, field) of a structure's table in the specification."""
    _, found, rest = TEXT.partition(f"\n#### {name}\n")
    assert found, f"the specification has no section '{name}'"
    section = re.split(r"\n#{2,4} ", rest)[0]
    return [(int(place), field) for place, field in re.findall(r"^\| (\d+) \| (\w+) \|", section, re.MULTILINE)]


@pytest.mark.parametrize("name", sorted(structures()))
def test_the_specification_lists_the_fields_in_order(name: str) -> None:
    structure = structures()[name]
    first = 1 if issubclass(structure, Record) else 0
    assert table(name) == list(enumerate(structure.__struct_fields__, first))


def test_the_specification_describes_nothing_that_is_not_there() -> None:
    described = set(re.findall(r"^#### (\w+)$", TEXT, re.MULTILINE)) - {"Codes"}
    assert described == set(structures())


@pytest.mark.parametrize("context", Context)
def test_the_specification_names_every_context_of_a_signature(context: Context) -> None:
    assert f"| `{context.value.decode()}` |" in TEXT
