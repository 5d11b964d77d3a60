"""Stages: a world of one provider; as root, as root that asks for no privilege, and as a user without rights."""

import os
from collections.abc import Callable, Iterator

import pytest

from tests.scenarios.hostile.stage import Stage, keys_of
from tests.scenarios.world import World
from tests.snapshot.support import IS_ROOT, NOBODY, as_nobody


@pytest.fixture(params=["root", "root without privilege", "user"])
def stage(request: pytest.FixtureRequest, worlds: Callable[[int], World], fast_folder: str) -> Iterator[Stage]:
    """A stage, whose oracle is asked when the test is over."""
    if request.param != "user" and not IS_ROOT:
        pytest.skip("not root")
    world = worlds(1)
    if request.param != "user":
        yield from _played(world, privileged=request.param == "root")
        return
    if IS_ROOT:
        for folder in (fast_folder, os.path.dirname(world.root)):
            os.chmod(folder, 0o711)  # noqa: S103 - on the way to the user's own
        for folder, _, files in os.walk(world.root):
            for name in ("", *files):
                os.chown(os.path.join(folder, name), NOBODY, NOBODY)
    with as_nobody():
        yield from _played(world, privileged=False)


def _played(world: World, *, privileged: bool) -> Iterator[Stage]:
    stage = Stage(world, keys_of(world), privileged)
    stage.begin()
    yield stage
    stage.check()
