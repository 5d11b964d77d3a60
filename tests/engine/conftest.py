"""The worlds of the scenarios."""

from tests.scenarios.conftest import (
    _unwrap_once,
    fast_folder,
    fresh,
    pytest_pyfunc_call,
    source,
    templates,
    world,
    worlds,
)

__all__ = ["_unwrap_once", "fast_folder", "fresh", "pytest_pyfunc_call", "source", "templates", "world", "worlds"]
