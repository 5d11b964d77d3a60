"""The worlds of the scenarios."""

from tests.scenarios.conftest import (
    _stretch_once,
    fast_folder,
    fresh,
    pytest_pyfunc_call,
    source,
    templates,
    world,
    worlds,
)

__all__ = ["_stretch_once", "fast_folder", "fresh", "pytest_pyfunc_call", "source", "templates", "world", "worlds"]
