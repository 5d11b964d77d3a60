"""Worlds that are quickly made: one is founded, each test has a copy."""

import asyncio
import functools
import inspect
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from replicator.crypto import passphrase
from tests.scenarios.world import World

MEMORY = "/dev/shm"  # noqa: S108 - a thousand syncs cost nothing there; crash tests forget by themselves


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(autouse=True, scope="session")
def _stretch_once() -> Iterator[None]:
    """Stretch each passphrase with each salt only once: it takes a tenth of a second by design."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passphrase, "_stretch", functools.cache(passphrase._stretch))
        yield


@pytest.fixture(scope="session")
def fast_folder() -> Iterator[str]:
    """A folder in memory where there is one."""
    path = tempfile.mkdtemp(prefix="replicator-test-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def templates(fast_folder: str) -> Callable[[int], World]:
    """Return a founded world of so many providers, all stopped."""
    made: dict[int, World] = {}

    def template(providers: int) -> World:
        if providers not in made:
            made[providers] = World(os.path.join(fast_folder, f"template-{providers}"), providers=providers)
            with ThreadPoolExecutor() as pool:  # a loop may be running here already
                pool.submit(asyncio.run, made[providers].found()).result()
            made[providers].close()
        return made[providers]

    return template


@pytest.fixture
def fresh(fast_folder: str) -> Iterator[str]:
    """A folder of the test's own."""
    path = tempfile.mkdtemp(dir=fast_folder)
    yield path
    shutil.rmtree(path)


Worlds = Callable[[int], World]


@pytest.fixture
def worlds(templates: Callable[[int], World], fresh: str) -> Iterator[Worlds]:
    """Make worlds of so many providers."""
    made: list[World] = []

    def make(providers: int) -> World:
        made.append(templates(providers).copy(os.path.join(fresh, f"world-{len(made)}")))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def world(worlds: Worlds) -> World:
    """A world of five providers, and nothing in it."""
    return worlds(5)


@pytest.fixture
def source(world: World) -> str:
    """A small folder that is a dataset of the world, called docs."""
    return world.small_dataset()
