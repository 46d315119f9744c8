"""The line on a terminal that tells how far a long work has come."""

import io
import sys

import pytest
from trio.testing import MockClock

from greeter_trio._cli import progress
from greeter_trio._cli.progress import Progress
from tests.support.clocks import SETTLED
from tests.support.commands import run_client_here
from tests.support.peers import Peer, scripted
from tests.support.plays import conversation, says
from tests.support.words import ADA


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "soon" not in request.node.name:
        monkeypatch.setattr(progress, "_DELAY", 0)


def test_a_line_is_written_over_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    shown = Progress()
    shown.show("100 names")
    shown.show("7 names")
    shown.clear()
    shown.clear()
    assert terminal.getvalue() == "\r100 names\r7 names  \r       \r"


def test_a_line_is_not_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "20")
    Progress().show("x" * 100)
    assert terminal.getvalue() == "\r" + "x" * 19


@pytest.mark.parametrize("why", ["soon", "no terminal", "closed"])
def test_nothing_is_shown(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of work that is done soon, or where nobody would see it."""
    stream = Terminal() if why == "soon" else io.StringIO()
    monkeypatch.setattr(sys, "stderr", None if why == "closed" else stream)
    shown = Progress()
    shown.show("100 names")
    shown.clear()
    assert stream.getvalue() == ""


async def test_attempts_are_shown_until_there_is_a_server(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    autojump_clock.autojump_threshold = SETTLED
    shown: list[str] = []
    monkeypatch.setattr(Progress, "_write", lambda _, text: shown.append(text))
    monkeypatch.setattr(Progress, "__init__", _wanted)
    plays = iter([*[says(b"Sorry, no.\n")] * 5, conversation("Ada")])

    async def server(peer: Peer) -> None:
        await next(plays)(peer)

    async with scripted(server) as port:
        done = await run_client_here("--port", f"{port}", "--retry-for", "20", "Ada")
    assert (done.stdout, done.returncode) == (ADA, 0)
    text = "".join(shown)
    assert f"waiting for 127.0.0.1:{port}" in text
    assert "attempt 4: the server refused: Sorry, no." in text
    assert text.endswith(" \r")


def _wanted(self: Progress) -> None:
    self._is_wanted, self._since, self._width = True, 0.0, 0
