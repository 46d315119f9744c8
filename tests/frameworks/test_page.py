"""INTEGRATING.md is what an author can copy from."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.readme import ROOT, code_blocks

from .helpers import PAGE, adapter


def test_entry() -> None:
    """The first function of the first adapter is its entry, and needs nothing but a socket."""
    source = code_blocks("python", PAGE)[0]
    assert re.findall(r"^def (\w+)\(", source, re.MULTILINE)[0] == "greet"
    assert adapter("def greet(")["greet"].__defaults__ is not None


def test_bound() -> None:
    """The memory that the page promises is what its formula gives (PROTOCOL.md, M1, M2)."""
    size, limit = 16384, 1024
    assert f"{limit + 1 + 17 * size + limit + 128 + size + limit:,} bytes" in PAGE.read_text(
        "utf-8"
    )


def test_columns() -> None:
    """It can be read beside code."""
    assert [line for line in PAGE.read_text("utf-8").splitlines() if len(line) > 100] == []


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the adapters as files."""
    folder = tmp_path_factory.mktemp("blocks")
    paths = [folder / f"block_{number}.py" for number in range(3)]
    for path, block in zip(paths, code_blocks("python", PAGE), strict=True):
        path.write_text(block, "utf-8")
    return paths


@pytest.mark.skipif(
    not shutil.which("ruff", path=str(Path(sys.executable).parent)), reason="needs ruff"
)
@pytest.mark.parametrize(
    "command", [["check", "--extend-ignore=D100,D102,INP001"], ["format", "--diff"]]
)
def test_ruff(blocks: list[Path], command: list[str]) -> None:
    """The linter has nothing to say, but that a block is no module, and that asyncio documents its methods."""
    ruff = Path(sys.executable).parent / "ruff"
    config = [f"--config={ROOT / 'pyproject.toml'}", "--config=line-length=100", "--no-cache"]
    subprocess.run([ruff, *command, *config, *blocks], check=True)


@pytest.mark.skipif(find_spec("mypy") is None, reason="needs mypy")
def test_types(blocks: list[Path], tmp_path: Path) -> None:
    """The types are right, strictly, on each platform."""
    for platform in ("linux", "darwin", "win32"):
        command = [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            f"--platform={platform}",
            f"--cache-dir={tmp_path}",
        ]
        subprocess.run([*command, *blocks], check=True, cwd=ROOT)
