"""The scripts beside this file as tests: slow, and only where their tools are."""

from pathlib import Path

import pytest

from chunker import _kernel as extension
from tests.chunker import emulate, sanitize
from tests.chunker.native import MissingToolError, cases

pytestmark = pytest.mark.slow


def test_the_kernels_touch_and_do_nothing_that_c_forbids(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        sanitize.run(tmp_path)
    except MissingToolError as reason:
        pytest.skip(str(reason))
    assert len(capfd.readouterr().out.splitlines()) == len(extension.KERNELS)


@pytest.mark.parametrize("target", emulate.TARGETS, ids=lambda target: target.name)
def test_the_kernels_of_other_processors_equal_the_reference(
    target: emulate.Target, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        emulate.run(target, tmp_path)
    except MissingToolError as reason:
        pytest.skip(str(reason))
    assert len(capfd.readouterr().out.splitlines()) == len(target.kernels)


def test_the_cases_have_cuts_and_bounds_to_be_wrong_about() -> None:
    made = list(cases(300))
    cuts = [int.from_bytes(case.answer()[:8], "little") for case in made]
    assert sum(count > 3 for count in cuts) > 30
    assert {len(case.data) for case in made} & {0, 1, 2, 3}
    assert any(case.sizes[0] < len(case.data) < case.sizes[0] + 80 for case in made)
