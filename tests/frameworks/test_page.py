"""INTEGRATING.md is what an author can copy from."""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.documents import INTEGRATING, ROOT, code_blocks

from .helpers import adapter

RUFF = shutil.which("ruff", path=str(Path(sys.executable).parent))
PAGE = INTEGRATING.read_text("utf-8")


def test_entry() -> None:
    """The first function of the first adapter is its entry, and needs nothing but a socket."""
    source = code_blocks("python", INTEGRATING)[0]
    assert re.findall(r"^def (\w+)\(", source, re.MULTILINE)[0] == "greet"
    assert adapter("def greet(")["greet"].__defaults__ is not None


def test_bound() -> None:
    """The memory that the page promises is what its formula gives (PROTOCOL.md, M1, M2)."""
    size, limit = 16384, 1024
    assert f"{limit + 1 + 17 * size + limit + 128 + size + limit:,} bytes" in PAGE


def test_columns() -> None:
    """It can be read beside code."""
    lines = [line for line in PAGE.splitlines() if not line.startswith("|")]  # but for tables
    assert [line for line in lines if len(line) > 100] == []


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the adapters as files."""
    folder = tmp_path_factory.mktemp("blocks")
    paths = [folder / f"block_{number}.py" for number in range(3)]
    for path, block in zip(paths, code_blocks("python", INTEGRATING), strict=True):
        path.write_text(block, "utf-8")
    return paths


@pytest.mark.skipif(not RUFF, reason="needs ruff")
@pytest.mark.parametrize(
    "command", [["check", "--extend-ignore=D100,D102,INP001"], ["format", "--diff"]]
)
def test_ruff(blocks: list[Path], command: list[str]) -> None:
    """A block is no module, and asyncio documents its methods: nothing else is wrong."""
    config = [f"--config={ROOT / 'pyproject.toml'}", "--no-cache"]
    subprocess.run([str(RUFF), *command, *config, *blocks], check=True)


@pytest.mark.skipif(find_spec("mypy") is None, reason="needs mypy")
def test_types(blocks: list[Path]) -> None:
    """The types are right, strictly, on each platform."""
    mypy = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={os.devnull}"]
    command = [*mypy, *map(str, blocks)]
    platforms = ("linux", "darwin", "win32")  # at the same time
    runs = [subprocess.Popen([*command, f"--platform={each}"], cwd=ROOT) for each in platforms]
    assert [run.wait() for run in runs] == [0, 0, 0]
