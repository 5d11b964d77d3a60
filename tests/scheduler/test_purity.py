"""The package decides from its arguments alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import scheduler

SOURCES = sorted(Path(scheduler.__file__).parent.glob("*.py"))
IMPURE = {
    "os",
    "socket",
    "time",
    "random",
    "secrets",
    "pathlib",
    "sqlite3",
    "subprocess",
    "asyncio",
    "replicator",
    "chunker",
}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_module_imports_what_reaches_outside(source: Path) -> None:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    named = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not named & IMPURE


def test_everything_exported_exists() -> None:
    assert [name for name in scheduler.__all__ if not hasattr(scheduler, name)] == []
