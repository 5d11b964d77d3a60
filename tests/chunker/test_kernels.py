import sys

import pytest

import chunker
from chunker import SMALL, KernelUnavailableError
from chunker import _kernel as extension
from chunker.kernels import select_kernel
from chunker.keys import derive_key
from tests.chunker.data import KEY


def test_without_a_demand_the_best_compiled_kernel_is_chosen() -> None:
    assert select_kernel({}).name == extension.KERNELS[0]


@pytest.mark.parametrize("name", ["python", *extension.KERNELS])
def test_a_demand_is_met(name: str) -> None:
    assert select_kernel({"CHUNKER_KERNEL": name}).name == name


def test_the_process_environment_is_asked_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHUNKER_KERNEL", "python")
    assert select_kernel().name == "python"


@pytest.mark.parametrize("name", sorted({"avx2", "sse2", "neon", "avx9", "", "Portable"} - {*extension.KERNELS}))
def test_a_demand_that_cannot_be_met_is_refused(name: str) -> None:
    with pytest.raises(KernelUnavailableError) as caught:
        select_kernel({"CHUNKER_KERNEL": name})
    assert caught.value.wanted == name
    assert caught.value.available == (*extension.KERNELS, "python")


@pytest.fixture
def no_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(chunker, "_kernel")
    monkeypatch.setitem(sys.modules, "chunker._kernel", None)


@pytest.mark.parametrize("environment", [{}, {"CHUNKER_KERNEL": "portable"}])
def test_without_the_extension_nothing_falls_back_in_silence(no_extension: None, environment: dict[str, str]) -> None:
    with pytest.raises(KernelUnavailableError, match="pip install") as caught:
        select_kernel(environment)
    assert caught.value.available == ("python",)


def test_without_the_extension_python_can_be_demanded(no_extension: None) -> None:
    assert select_kernel({"CHUNKER_KERNEL": "python"}).name == "python"


@pytest.mark.parametrize("name", ["python", *extension.KERNELS])
def test_a_kernel_is_bound_to_a_key_and_sizes(name: str) -> None:
    cutter = select_kernel({"CHUNKER_KERNEL": name}).bind(derive_key(KEY), SMALL)
    offsets, scanned = cutter.cuts(bytes(SMALL.maximum + 5), False, 0)  # noqa: FBT003 - positional-only
    assert memoryview(offsets).cast("Q").tolist() == [SMALL.maximum]
    assert scanned == 5
