"""The README, for the tests that hold it to its word."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def code_blocks(language: str) -> list[str]:
    """Return the README's code blocks in one language, in order."""
    text = README.read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
