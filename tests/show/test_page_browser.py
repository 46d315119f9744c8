"""The page in a real browser (Chromium), driven as a reader would."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greeter_trio._show.page import render_page
from tests.support.recordings import GOLDEN, golden

from .test_page import HOSTILE, page_of

sync_api: Any = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is missing")
axe: Any = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield running
        running.close()


class Reader:
    """A reader with a page, of which nothing may go wrong."""

    def __init__(self, browser: Any, file: Path, **context: Any) -> None:
        self.context = browser.new_context(**{"locale": "en-GB"} | context)
        self.page = self.context.new_page()
        self.troubles: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.troubles.append(message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("dialog", lambda dialog: self.troubles.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.file = file

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def rows(self) -> int:
        """Return how many rows can be seen."""
        return int(self.page.locator("#drawings section >> nth=0 >> .row:not(.hidden)").count())

    def leave(self) -> None:
        self.context.close()
        assert self.troubles == []
        assert self.requests == [self.file.as_uri()]


@pytest.fixture
def read(browser: Any, tmp_path: Path) -> Iterator[Any]:
    readers: list[Reader] = []

    def open_page(html: str, **context: Any) -> Reader:
        file = tmp_path / f"page{len(readers)}.html"
        file.write_text(html, "utf-8")
        readers.append(Reader(browser, file, **context))
        return readers[-1]

    yield open_page
    for reader in readers:
        reader.leave()


DEMO = render_page([*golden("demo"), *(item for item in golden("refused") if item.id == 2)])


def test_stepping_with_keys(read: Any) -> None:
    reader = read(DEMO)
    everything = reader.rows()
    assert everything > 50
    reader.page.keyboard.press("Home")
    assert reader.rows() == 0
    for _ in range(3):
        reader.page.keyboard.press("ArrowRight")
    assert reader.rows() == 3
    assert "SYN ACK" in reader.text("#said")
    reader.page.keyboard.press("ArrowLeft")
    assert "SYN  seq 0" in reader.text("#said").replace("\u00a0", " ") or "SYN" in reader.text(
        "#said"
    )
    assert reader.rows() == 2
    reader.page.keyboard.press("End")
    assert reader.rows() == everything
    assert reader.text("#now-server") == "TIME_WAIT"
    assert reader.page.is_disabled("#forward")


def test_playing(read: Any) -> None:
    reader = read(DEMO)
    reader.page.select_option("#speed", "1")
    reader.page.keyboard.press("Home")
    reader.page.keyboard.press("p")
    reader.page.locator("#forward:disabled").wait_for()
    assert reader.text("#play") == "Play"


def test_prediction_hides_what_comes_next(read: Any) -> None:
    reader = read(DEMO)
    reader.page.check("#predict")
    assert reader.rows() == 0
    assert reader.page.is_visible("#question")
    reader.page.click("#guess-client")  # it connects
    reader.page.click("#guess-server")  # no: SYN comes from the client
    assert reader.text("#score") == "Not yet: 1 of 2"
    assert reader.rows() == 2


def test_bytes_and_header(read: Any) -> None:
    reader = read(DEMO)
    reader.page.keyboard.press("Home")
    for _ in range(3):
        reader.page.keyboard.press("ArrowRight")
    assert "ACK 1" in reader.text("#inspected")
    assert "SYN 1" in reader.text("#inspected")
    assert "(0)" in reader.text("#inspected")
    reader.page.keyboard.press("End")
    reader.page.locator("#drawings .row", has_text="Hello Alice").locator("text >> nth=1").click()
    assert "48 65 6c 6c 6f 20 41 6c 69 63 65" in reader.text("#inspected")


def test_absolute_numbers(read: Any) -> None:
    reader = read(DEMO)
    assert "SYN  seq 0" in reader.page.locator("#drawings svg").first.text_content()
    reader.page.uncheck("#relative")
    assert "SYN  seq 0" not in reader.page.locator("#drawings svg").first.text_content()


def test_wrong_beside_right(read: Any) -> None:
    reader = read(DEMO)
    reader.page.select_option("#beside", "1")
    assert reader.page.locator("#drawings section").count() == 2
    assert "the server is full" in reader.page.locator("#drawings section").nth(1).text_content()


def test_exercise_of_numbers(read: Any) -> None:
    reader = read(DEMO)
    reader.page.click("#check-numbers")
    assert reader.text("#numbers-result").startswith("Not yet: ")
    reader.page.click("#show-numbers")
    assert reader.page.locator("#numbers input").nth(0).input_value() == "0"
    assert reader.page.locator("#numbers input").nth(1).input_value() == ""
    reader.page.click("#check-numbers")
    assert reader.text("#numbers-result") == "Right"


def test_exercise_of_order(read: Any) -> None:
    reader = read(DEMO)
    items = reader.page.locator("#order li")
    count = items.count()
    assert count == 9
    wanted = ["SYN  seq 0", "SYN ACK", "ACK  ack 1"]
    for place, text in enumerate(wanted):
        while text not in items.nth(place).text_content() or (
            text == "SYN  seq 0" and "SYN ACK" in items.nth(place).text_content()
        ):
            at = next(i for i in range(place, count) if text in items.nth(i).text_content())
            items.nth(at).locator("button").first.click()
    reader.page.click("#check-order")
    assert reader.text("#order-result") in ("Right", "Not yet")
    assert [text in items.nth(i).text_content() for i, text in enumerate(wanted)] == [True] * 3


def test_language_follows_the_browser_and_can_be_changed(read: Any) -> None:
    reader = read(DEMO, locale="zh-CN")
    assert reader.text("#forward") == "下一步"
    assert reader.page.get_attribute("html", "lang") == "zh"
    reader.page.select_option("#language", "en")
    assert reader.text("#forward") == "Next"
    assert reader.page.get_attribute("html", "lang") == "en"


def test_own_recording(read: Any, tmp_path: Path) -> None:
    reader = read(render_page([]))
    reader.page.set_input_files("#file", GOLDEN / "demo.jsonl")
    reader.page.wait_for_selector("#drawings svg")
    theirs = json.loads(DEMO.split('id="data">')[1].split("</script>")[0])[0]["rows"]
    assert reader.rows() == len(theirs)
    reader.page.keyboard.press("Home")
    labels = []
    for _ in theirs:
        reader.page.keyboard.press("ArrowRight")
        labels.append(reader.text("#said").split(": ", 1)[1].split("; ")[0])
    shown = [row["text"] for row in theirs]
    same = [
        mine == " ".join(text.split()) for mine, text in zip(labels, shown, strict=True) if text
    ]
    assert all(same)
    assert reader.text("#now-server") == "TIME_WAIT"
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text('{"transcript": 1}\n{"id": 1}\n', "utf-8")
    reader.page.set_input_files("#file", damaged)
    reader.page.locator("#problem:not(:empty)").wait_for()
    assert reader.text("#problem") == "This is no recording that can be read: line 2."


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_text_is_shown_and_not_run(read: Any, text: str) -> None:
    reader = read(page_of(text.encode(), peer=text))
    assert reader.page.locator("#drawings img, #drawings script").count() == 0
    assert reader.rows() > 3


@pytest.mark.parametrize("html", [render_page([]), DEMO], ids=["none", "demo"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_fault_of_accessibility(read: Any, html: str, scheme: str) -> None:
    reader = read(html, color_scheme=scheme)
    reader.page.keyboard.press("ArrowLeft")
    results = axe.Axe().run(reader.page)
    assert results.violations_count == 0, results.generate_report()


def test_themes(read: Any) -> None:
    reader = read(DEMO, color_scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = reader.page.evaluate(colour)
    reader.page.select_option("#theme", "dark")
    assert reader.page.evaluate(colour) != light
    reader.page.select_option("#theme", "")
    assert reader.page.evaluate(colour) == light


def test_without_script_and_on_paper(read: Any) -> None:
    reader = read(DEMO, java_script_enabled=False)
    assert reader.page.locator("svg .row").count() > 50
    assert not reader.page.is_visible("#forward")
    reader.page.emulate_media(media="print")
    assert reader.page.is_visible("svg >> nth=0")


def test_narrow_screens_do_not_scroll_sideways(read: Any) -> None:
    reader = read(DEMO, viewport={"width": 400, "height": 800})
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert reader.page.evaluate(wide) == 0
