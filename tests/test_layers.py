"""Imports run one way, through the layers that `greeter_trio/__init__.py` lists."""

import sys
from pathlib import Path

import pytest

from tests.support.imports import imports_of

ROOT = Path(__file__).parents[1]
IMPORTS = imports_of(ROOT / "greeter_core") | imports_of(ROOT / "greeter_trio")

LAYERS = [
    {"greeter_trio._net", "greeter_core"},
    {"greeter_trio._drive", "greeter_trio._failures"},
    {"greeter_trio._service"},
    {"greeter_trio._server", "greeter_trio._client"},
    {"greeter_trio"},
    {"greeter_trio._show"},
    {"greeter_trio._cli"},
    {"greeter_trio.__main__"},
]
"""From the bottom to the top: a module sees those of the layers below it, and its own folder."""


def layer_of(module: str) -> tuple[int, str]:
    """Return the number of a module's layer, and the folder or module that stands there."""
    places = [(number, name) for number, names in enumerate(LAYERS) for name in names]
    covering = [place for place in places if f"{module}.".startswith(f"{place[1]}.")]
    return max(covering, key=lambda place: len(place[1]))


def siblings_of_ours(module: str) -> list[str]:
    return sorted(name for name in IMPORTS[module] if name.split(".")[0].startswith("greeter_"))


@pytest.mark.parametrize("module", IMPORTS)
def test_module_imports_lower_layers_and_its_own_folder(module: str) -> None:
    number, place = layer_of(module)
    for imported in siblings_of_ours(module):
        lower, other = layer_of(imported)
        assert other == place or lower < number, f"{module} imports {imported}"


@pytest.mark.parametrize("module", IMPORTS)
def test_module_imports_nothing_but_the_standard_library_trio_and_attrs(module: str) -> None:
    allowed = {*sys.stdlib_module_names, "attrs", "greeter_core", "greeter_trio", "trio"}
    assert {name.split(".")[0] for name in IMPORTS[module]} <= allowed


def test_every_layer_has_a_module() -> None:
    """Otherwise the tests above would say nothing of it."""
    found = {layer_of(module)[1] for module in IMPORTS}
    assert found == set().union(*LAYERS)


def test_root_of_the_adapter_is_read_in_one_sitting() -> None:
    files = list((ROOT / "greeter_trio").glob("*.py"))
    assert len(files) <= 7
    assert sum(len(file.read_text("utf-8").splitlines()) for file in files) <= 715
