"""The README and other pages, for the tests that hold them to their word."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def code_blocks(language: str, page: Path = README) -> list[str]:
    """Return the page's code blocks in one language, in order."""
    text = page.read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
