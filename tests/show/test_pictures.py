"""The pictures in the documents are drawn from the recordings that they claim to show."""

import re
from pathlib import Path

import pytest

from greeter_trio._show.trace import Trace
from tests.support import picture
from tests.support.documents import PROTOCOL, ROOT, code_blocks
from tests.support.recordings import golden

README = ROOT / "README.md"
LEARNING = ROOT / "greeter_trio" / "LEARNING.md"


def drawn(name: str) -> str:
    trace = Trace()
    for item in golden(name):
        trace.put(item)
    return "\n".join(trace.lines()).strip("\n") + "\n"


def examples() -> dict[str, str]:
    text = PROTOCOL.read_text("utf-8")
    found = re.findall(r"^### ([^\n]*)\n\n```text\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    return {re.sub("[^a-z]+", "-", title.lower()).strip("-"): shown for title, shown in found}


@pytest.mark.parametrize("name", examples())
def test_worked_example_of_the_protocol(name: str) -> None:
    assert examples()[name] == drawn(f"examples/{name}")


def test_lesson_in_both_languages() -> None:
    for page in (LEARNING, LEARNING.with_name("LEARNING.zh.md")):
        assert code_blocks("text", page) == [drawn("demo")]


def test_readme_begins_with_the_beginning() -> None:
    (shown,) = code_blocks("text", README)
    assert drawn("demo").startswith(shown)
    assert shown.count("\n") > 10


def test_picture_of_the_readme() -> None:
    """`python -m tests.support.picture` draws it again."""
    assert Path(picture.FILE).read_text("utf-8") == picture.picture()


def test_both_lessons_have_the_same_code() -> None:
    english, chinese = LEARNING, LEARNING.with_name("LEARNING.zh.md")
    for language in ("sh", "python", "pycon"):
        assert code_blocks(language, english) == code_blocks(language, chinese)
        assert code_blocks(language, english)
