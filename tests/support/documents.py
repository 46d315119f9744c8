"""The project's Markdown pages."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROTOCOL = ROOT / "greeter_core" / "PROTOCOL.md"
INTEGRATING = ROOT / "greeter_core" / "INTEGRATING.md"
OPERATING = ROOT / "greeter_trio" / "OPERATING.md"


def code_blocks(language: str, page: Path) -> list[str]:
    """Return the page's code blocks in one language, in order."""
    text = page.read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def table(heading: str, page: Path) -> list[list[str]]:
    """Return the cells of each row of the table whose first column has this heading."""
    _, _, rest = page.read_text("utf-8").partition(f"| {heading} |")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    assert rows
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def prose(page: Path) -> str:
    """Return the page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
