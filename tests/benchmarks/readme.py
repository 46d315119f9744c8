"""The table in the README, made of the results that are kept beside this module."""

import re
from pathlib import Path
from typing import Final

from tests.support.documents import ROOT

from .commands import ON_CORE, PEERS
from .report import markdown
from .results import Results

README: Final = ROOT / "README.md"
KEPT: Final = Path(__file__).with_name("results.json")
_MARKED: Final = re.compile(r"(<!-- benchmarks -->\n).*?(<!-- end -->\n)", re.DOTALL)


def table(results: Results) -> str:
    """Return the part of the README that is made of results."""
    return f"\n{markdown(results, [*PEERS], [*ON_CORE])}\n"


def shown() -> str:
    """Return what the README has there."""
    found = _MARKED.search(README.read_text("utf-8"))
    assert found
    return found[0].removeprefix(found[1]).removesuffix(found[2])


def update(results: Results) -> None:
    """Put the table of these results there."""
    text = README.read_text("utf-8")
    README.write_text(
        _MARKED.sub(lambda found: found[1] + table(results) + found[2], text), "utf-8"
    )
