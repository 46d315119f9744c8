"""Text in columns of a terminal, where some characters take two and some none (Unicode TR 11)."""

import itertools
import unicodedata


def width(text: str) -> int:
    """Return how many columns printable text takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def padded(left: str, columns: int, right: str = "", fill: str = " ") -> str:
    """Return text at the left and at the right of so many columns."""
    return left + fill * (columns - width(left) - width(right)) + right


def shortened(text: str, columns: int) -> str:
    """Return text, or as much of its beginning as fits into so many columns, and `…`."""
    if width(text) <= columns:
        return text
    return f"{_beginning(text, columns - 1)}…"


def pieces(text: str, columns: int) -> list[str]:
    """Return text cut into pieces of at most so many columns, between words where possible."""
    lines, line = [], ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if line and width(longer) > columns:
            lines.append(line)
            longer = word
        while width(longer) > columns:
            piece = _beginning(longer, columns)
            lines.append(piece)
            longer = longer[len(piece) :]
        line = longer
    return [*lines, line]


def _beginning(text: str, columns: int) -> str:
    widths = itertools.accumulate(map(_columns, text))
    return text[: sum(width <= columns for width in widths)]


def _columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
