"""Text in columns of a terminal."""

import pytest

from greeter_trio._show.width import padded, pieces, shortened, width


@pytest.mark.parametrize(
    ("text", "columns"), [("", 0), ("Ada", 3), ("小明", 4), ("e\u0301", 1), ("\U0001f600", 2)]
)
def test_width(text: str, columns: int) -> None:
    assert width(text) == columns
    assert padded(text, 6, ">") == f"{text}{' ' * (5 - columns)}>"


@pytest.mark.parametrize(
    ("text", "columns", "short"),
    [("Grace", 5, "Grace"), ("Grace", 4, "Gra…"), ("小明小明", 6, "小明…"), ("小明", 3, "小…")],
)
def test_shortened(text: str, columns: int, short: str) -> None:
    assert shortened(text, columns) == short


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("one two three", ["one", "two", "three"]),
        ("a b", ["a b"]),
        ("abcdefghij", ["abcde", "fghij"]),
        ("小明小明", ["小明", "小明"]),
    ],
)
def test_pieces(text: str, lines: list[str]) -> None:
    assert pieces(text, 5) == lines
