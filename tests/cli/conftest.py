from collections.abc import Iterator

import pytest

from tests.cli.federation import Federation, built
from tests.cli.forks import FORKS


@pytest.fixture(scope="package", autouse=True)
def forks() -> Iterator[None]:
    """End what starts calls with the last of these tests: others count the processes below theirs."""
    yield
    FORKS.close()


@pytest.fixture(scope="package")
def federation(tmp_path_factory: pytest.TempPathFactory, forks: None) -> Iterator[Federation]:
    """Five providers, a keeper and a node, for tests that leave all of them as whole as they were."""
    with built(tmp_path_factory.mktemp("federation")) as made:
        yield made


@pytest.fixture
def breakable(federation: Federation) -> Iterator[Federation]:
    """The same, to be damaged at will: put back afterwards."""
    yield federation
    federation.put_back()
