"""The corpus shows every clause of PROTOCOL.md that can be seen, and each case would show a fault.

For each clause there are mutants of the core that break it. A case that names the clause must come
out differently under one of them; otherwise it does not show the clause.
"""

import importlib
import re
import shutil
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import greeter_core
from greeter_core import replay

from .corpus import CORPUS, Case, read_corpus

CASES = read_corpus()
MUTANTS: Mapping[str, list[Mapping[str, str]]] = tomllib.loads(
    Path(__file__).with_name("mutants.toml").read_text("utf-8")
)
CORE = Path(greeter_core.__file__).parent
CLAUSES = re.findall(r"^- \*\*(\S+)\*\* ", (CORE / "PROTOCOL.md").read_text("utf-8"), re.MULTILINE)
INVISIBLE = {
    "T4": "a transcript has the time that counts",
    "C2.1": "a call that is refused is not recorded",
    "E2": "likewise",
    "M1": "a transcript does not show what is kept",
    "M2": "a bound, and not an outcome",
    "M3": "likewise",
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_core_conforms(case: Case) -> None:
    assert replay(case.steps) is None


def test_every_clause_that_can_be_seen_has_its_case() -> None:
    shown = {clause for case in CASES for clause in case.clauses}
    assert shown == {*CLAUSES} - {*INVISIBLE} == {*MUTANTS}


def broken_core(mutant: Mapping[str, str], folder: Path) -> Any:
    """Import a changed copy of the core, under the name of the folder."""
    shutil.copytree(CORE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / f"{mutant['module']}.py"
    source = path.read_text("utf-8")
    assert source.count(mutant["old"]) == 1, mutant
    path.write_text(source.replace(mutant["old"], mutant["new"]), "utf-8")
    return importlib.import_module(folder.name)


def comes_out_differently(core: Any, case: Case) -> bool:
    """Say whether a broken core repeats a case; an exception is a difference, too."""
    numbers = [1, *(number for number, _ in case.steps)]
    lines = (CORPUS / f"{case.topic}.jsonl").read_bytes().splitlines(keepends=True)
    try:
        return (
            core.replay(core.read_transcript(lines[number - 1] for number in numbers)) is not None
        )
    except Exception:  # noqa: BLE001 - whatever a broken core does
        return True


@pytest.mark.parametrize("clause", MUTANTS)
def test_each_case_fails_when_its_clause_is_broken(
    clause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    cases = [case for case in CASES if clause in case.clauses]
    noticed: list[set[str]] = []
    for number, mutant in enumerate(MUTANTS[clause]):
        name = f"broken_{clause.replace('.', '_')}_{number}"
        core = broken_core(mutant, tmp_path / name)
        noticed.append({str(case) for case in cases if comes_out_differently(core, case)})
        for module in [each for each in sys.modules if each.partition(".")[0] == name]:
            del sys.modules[module]
    assert all(noticed), [MUTANTS[clause][n] for n, found in enumerate(noticed) if not found]
    assert {*map(str, cases)} - set().union(*noticed) == set()
