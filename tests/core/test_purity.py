"""The core does no I/O and looks at no clock, because it imports nothing that could."""

import ast
import graphlib
import json
import subprocess
import sys

import pytest

from tests.support.imports import imports_of, modules_of

from .state_docs import CORE

MODULES = modules_of(CORE)
IMPORTS = imports_of(CORE)
ALLOWED = {
    "abc",
    "attrs",
    "contextlib",
    "collections",
    "collections.abc",
    "enum",
    "itertools",
    "math",
    "types",
    "typing",
}
FORBIDDEN_CALLS = {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open", "print"}

modules = pytest.mark.parametrize("module", MODULES)


def test_modules_are_found() -> None:
    assert {"greeter_core", "greeter_core._server", "greeter_core._client"} <= set(MODULES)
    assert all(path.parent == CORE for path in MODULES.values())


@modules
def test_module_imports_siblings_attrs_and_harmless_modules(module: str) -> None:
    allowed = ALLOWED | ({"json"} if module == "greeter_core._transcript" else set())
    assert IMPORTS[module] <= {*MODULES, *allowed} - {module}


@modules
def test_module_calls_nothing_that_does_io_or_runs_text(module: str) -> None:
    names = ast.walk(ast.parse(MODULES[module].read_text("utf-8")))
    loaded = [node for node in names if isinstance(getattr(node, "ctx", None), ast.Load)]
    used = {node.id for node in loaded if isinstance(node, ast.Name)}
    assert not used & FORBIDDEN_CALLS


def test_imports_have_no_cycle() -> None:
    siblings = {module: imports & set(MODULES) for module, imports in IMPORTS.items()}
    assert list(graphlib.TopologicalSorter(siblings).static_order())[-1] == "greeter_core"


def test_import_loads_nothing_that_attrs_alone_would_not_load() -> None:
    program = """
import sys, json, attrs, abc, collections.abc, enum, math, types, typing
before = set(sys.modules)
import greeter_core
print(json.dumps([sorted(before), sorted(set(sys.modules) - before)]))
"""
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=CORE.parent, capture_output=True, text=True, check=True)
    before, loaded = json.loads(run.stdout)
    assert "greeter_core" in loaded
    assert [name for name in loaded if name.partition(".")[0] != "greeter_core"] == []
    assert not {"socket", "ssl", "select", "selectors", "asyncio", "trio"} & {*before, *loaded}
