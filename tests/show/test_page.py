"""The page is one file, complete without script, and takes nothing in it for markup."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from greeter_core import Recording, TranscriptItem
from greeter_trio._show import page as _page
from greeter_trio._show.page import render_page
from tests.support.recordings import golden

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "]]><!--",
    "-->\"'&amp;",
    "\0\x1b[31m",
    "\u2028\u2029\u202e",
    "$style ${data} {script}",
]


def page_of(*names: bytes, peer: str = "127.0.0.1:42101") -> str:
    items: list[TranscriptItem] = []
    server = Recording(items.append, now=0.0).server(now=0.0, peer=peer)
    for name in names:
        server.receive_data(name + b"\n", 1.0)
    server.observe("note", 1.0, text=peer)
    server.observe("tcp", 1.0, end="client", state=peer)
    return render_page(items)


class Outline(HTMLParser):
    """The elements of a page, and its text outside of style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - whatever ends
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data


def data_of(page: str) -> list[dict[str, Any]]:
    data = r'<script type="application/json" id="data">(.*?)</script>'
    (text,) = re.findall(data, page, re.DOTALL)
    found: list[dict[str, Any]] = json.loads(text)
    return found


def test_every_row_stands_in_the_drawing_the_table_and_the_data() -> None:
    page = render_page(golden("demo"))
    (conversation,) = data_of(page)
    rows = conversation["rows"]
    assert page.count('<g class="row"') == page.count("<tr><td>") == len(rows) > 50
    text = Outline(page).text
    for expected in ("SYN  seq 0", "Hello Alice!⏎What's your name?", "TIME_WAIT", "PROMPT owed"):
        assert expected in text
    assert {row["phase"] for row in rows} == {"connection", "transfer", "termination"}


def test_sends_and_receives_are_paired_by_their_bytes() -> None:
    (conversation,) = data_of(render_page(golden("demo")))
    rows, links = conversation["rows"], conversation["links"]
    pairs = [(rows[send]["text"], rows[receive]["text"]) for send, receive in links]
    assert ("send 6", "receive 6") in pairs
    assert len(pairs) == 10
    assert all(rows[receive]["at"] > rows[send]["at"] for send, receive in links)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_text_from_the_network_is_no_markup(text: str) -> None:
    plain = Outline(page_of(b"Ada"))
    page = page_of(text.encode(), peer=text)
    outline = Outline(page)
    assert outline.tags == plain.tags
    assert [name for name, _ in outline.attributes] == [name for name, _ in plain.attributes]
    assert "\0" not in page
    assert "\u2028" not in page
    assert "\u202e" not in page
    message = data_of(page)[0]["rows"]
    assert any(row.get("hex") == f"{text}\n".encode().hex() for row in message)


def test_bytes_that_are_no_text_are_shown() -> None:
    assert "Hello \ufffd" in Outline(page_of(b"\xff\xfe")).text


def test_policy_allows_the_pages_own_style_and_script_and_nothing_else() -> None:
    page = render_page(golden("nc"))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    sources = dict(each.split(" ", 1) for each in policy.split("; "))
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert sources.pop(directive) == f"'sha256-{digest}'"
    assert sources == {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'"}


def test_page_refers_to_nothing_outside() -> None:
    page = render_page(golden("demo"))
    outline = Outline(page)
    assert {value for name, value in outline.attributes if name in ("href", "src")} == {"#drawings"}
    assert not {name for name, _ in outline.attributes if name.startswith("on") or name == "style"}
    assert re.findall(r"https?://[^\"' ]*", page) == ["http://www.w3.org/2000/svg"]  # a name


@pytest.mark.parametrize("name", ["slow", "reset", "client", "shutdown"])
def test_page_of_a_real_conversation(name: str) -> None:
    page = render_page(golden(name))
    rows = sum(len(each["rows"]) for each in data_of(page))
    assert page.count('<g class="row"') == rows > 5


def test_no_conversation() -> None:
    assert "There is no conversation in this recording." in Outline(render_page([])).text


def test_a_thousand_conversations() -> None:
    items: list[TranscriptItem] = []
    recording = Recording(items.append, now=0.0)
    for number in range(1000):
        server = recording.server(now=0.0, peer=f"192.0.2.1:{number}")
        server.receive_data(b"Ada\nexit\n", 1.0)
        server.receive_eof(2.0)
    page = render_page(items)
    assert len(data_of(page)) == 1000
    assert page.count("<svg") == 20
    assert "With script, 980 more conversations can be chosen above." in Outline(page).text
    assert len(page) < 4_000_000


def test_more_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_page, "_MOST_ROWS", 100)
    items: list[TranscriptItem] = []
    recording = Recording(items.append, now=0.0)
    for _ in range(3):
        server = recording.server(now=0.0)
        for at in range(50):
            server.handle_timeout(at)
            server.observe("tcp", at, state="ESTABLISHED")
    page = render_page(items)
    assert len(data_of(page)) == 1
    assert "This page has no room for 2 more conversations." in Outline(page).text


def test_conversation_without_a_core() -> None:
    """Its opening was never recorded."""
    items = [item for item in golden("demo") if not hasattr(item, "input")]
    (conversation,) = data_of(render_page(items))
    assert conversation["title"] == "#1: connection"
