"""Purity: the core does no I/O and looks at no clock, because it imports nothing that could."""

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .helpers import ROOT

CORE = ROOT / "greeter_core"
MODULES = sorted(CORE.glob("*.py"))
ALLOWED = {"abc", "attrs", "collections", "collections.abc", "enum", "math", "types", "typing"}
FORBIDDEN_CALLS = {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"}

modules = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)


def imports(module: Path) -> Iterator[tuple[int, str]]:
    """Yield level and name of all that a module imports, wherever in the module that stands."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from ((0, alias.name) for alias in names)
            case ast.ImportFrom(module=name, level=level):
                yield level, name or ""


def test_there_are_modules() -> None:
    """The modules of the core are where these tests look for them."""
    assert {"__init__", "_server", "_client"} <= {module.stem for module in MODULES}
    assert [path for path in CORE.rglob("*.py") if path not in MODULES] == []


@modules
def test_imports(module: Path) -> None:
    """A module of the core imports its own siblings, attrs and a few harmless modules of the standard library."""
    for level, name in imports(module):
        if level:
            assert level == 1
            assert (CORE / f"{name}.py").exists()
        else:
            assert name in ALLOWED


@modules
def test_calls(module: Path) -> None:
    """A module of the core calls none of the built-in functions that do I/O or run text."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Name):
            assert node.id not in FORBIDDEN_CALLS


def test_imports_run_one_way() -> None:
    """No two modules of the core import each other, directly or by way of others."""
    siblings = {module.stem: {name for level, name in imports(module) if level} for module in MODULES}
    order = list(graphlib.TopologicalSorter(siblings).static_order())
    assert order[-1] == "__init__"


def test_what_an_import_loads() -> None:
    """Importing the core into a fresh interpreter loads the core, and nothing else that attrs alone would not load."""
    program = """
import sys, json, attrs, abc, collections.abc, enum, math, types, typing
before = set(sys.modules)
import greeter_core
print(json.dumps([sorted(before), sorted(set(sys.modules) - before)]))
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    before, loaded = json.loads(run.stdout)
    assert "greeter_core" in loaded
    assert [name for name in loaded if name.partition(".")[0] != "greeter_core"] == []
    assert not {"socket", "ssl", "select", "selectors", "asyncio", "trio"} & {*before, *loaded}
