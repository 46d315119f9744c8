import shutil
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not shutil.which(program), reason=f"there is no {program} on PATH")


def adapted(name: str, changes: dict[str, str]) -> str:
    """Return a configuration file with changes, each of a text that is in it once."""
    text = (FOLDER / name).read_text("utf-8")
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} should be once in {name}"
        text = text.replace(old, new)
    return text
