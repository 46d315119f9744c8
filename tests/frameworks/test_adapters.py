"""Each adapter in this folder serves; the conformance kit looks closer."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.connections import dialogue
from tests.support.originals import original_conversation
from tests.support.processes import (
    PATIENCE,
    Output,
    Peer,
    Process,
    connected,
    met,
    run,
    scripted,
    started,
)
from tests.support.words import BOB, GOODBYE, PROMPT, TOO_SLOW, WELCOME, hello

from .adapters import ADAPTERS, Adapter, lines_of_code, table

if sys.platform == "win32":
    pytest.skip("a process cannot be sent SIGTERM", allow_module_level=True)

adapters = pytest.mark.parametrize(
    "adapter",
    [
        pytest.param(
            each,
            marks=pytest.mark.skipif(
                bool(each.missing), reason=f"needs {', '.join(each.missing)} (the extra bench)"
            ),
        )
        for each in ADAPTERS
    ],
    ids=str,
)


@contextlib.contextmanager
def serving(adapter: Adapter, *options: str) -> Iterator[tuple[Process, int]]:
    """Run an adapter on a free port; at the end it must have been told to end, and have done so."""
    with started(*adapter.command, *options) as process:
        out, err = Output(process.stdout), Output(process.stderr)
        where, _, port = out.line().rpartition(":")
        assert where == "listening on 127.0.0.1", err.rest()
        yield process, int(port)
        assert (process.wait(PATIENCE), out.rest(), err.rest()) == (0, b"", b"")


@adapters
def test_adapter(adapter: Adapter) -> None:
    with serving(adapter) as (process, port):
        original_conversation(port, b"Ada", b"Grace")
        with connected(port) as one, connected(port) as other, met(port) as last:
            one.say(b"Ada\r\nGrace\nexit\n")
            assert one.hear_rest() == dialogue(b"Ada", b"Grace")
            other.say(b"Ada\nBob").end()
            assert other.hear_rest() == dialogue(b"Ada")[: -len(GOODBYE)] + BOB
            process.send_signal(signal.SIGTERM)
            assert last.hear_rest() == GOODBYE


@adapters
def test_options(adapter: Adapter) -> None:
    """The configuration is that of a transcript; a peer that reads nothing is cut off in time."""
    config = '{"framing": "lines", "idle_timeout": 0.1, "max_lifetime": null}'
    with serving(adapter, "--send-timeout", "0.2", "--config", config) as (process, port):
        with connected(port) as deaf, pytest.raises(ConnectionError):
            deaf.hear(WELCOME).say(b"Ada\n" * 4_000_000)
        with connected(port) as slow:
            assert slow.hear_rest() == WELCOME + PROMPT + TOO_SLOW
        process.send_signal(signal.SIGTERM)


CLIENT = (sys.executable, "-m", "tests.frameworks.asyncio_client")


def test_client() -> None:
    """More names than it asks for at a time; it says exit."""
    names = [f"{number}" for number in range(2500)]
    with serving(ADAPTERS[0]) as (process, port):
        done = run("--port", f"{port}", *names, command=CLIENT)
        assert (done.returncode, done.stdout.decode().split(), done.stderr) == (0, names, b"")
        process.send_signal(signal.SIGTERM)


def early_end(peer: Peer) -> None:
    peer.say(WELCOME + PROMPT).hear(b"Ada\n")
    peer.say(hello("Ada") + PROMPT + GOODBYE).end()
    peer.hear_rest()


def late_reset(peer: Peer) -> None:
    peer.say(WELCOME + PROMPT).hear(b"Ada\n").reset()


@pytest.mark.parametrize(
    ("script", "greeted", "why"),
    [
        (early_end, b"Ada\n", b"not all names were greeted: shutdown"),
        (late_reset, b"", b"reset by peer"),
    ],
)
def test_client_of_another_server(
    script: Callable[[Peer], object], greeted: bytes, why: bytes
) -> None:
    with scripted(script) as port:
        done = run("--port", f"{port}", "Ada", "Bob", command=CLIENT)
    assert (done.returncode, done.stdout) == (1, greeted)
    assert why in done.stderr
    assert done.stderr.count(b"\n") == 1, "not a traceback"


def test_wrong_configuration() -> None:
    """It is a usage error, not a traceback."""
    done = run("--config", '{"linger": -1}', command=ADAPTERS[0].command)
    assert done.returncode == 2
    assert b"argument --config: invalid config value" in done.stderr


def test_all_are_listed() -> None:
    listed = {each.module for each in ADAPTERS}
    defines = [
        path for path in Path(__file__).parent.glob("*.py") if "\nLIMITS" in path.read_text()
    ]
    assert {path.stem for path in defines} == listed


def test_table() -> None:
    lines = table().splitlines()
    assert len(lines) == len(ADAPTERS) + 2
    assert all(line.count(" | ") == 3 for line in lines)


SOURCE = '''
"""Two lines
of docstring."""

from os import (
    path,
)

# a comment
if path:
    text = """two
lines"""
'''


def test_lines_of_code() -> None:
    assert lines_of_code(SOURCE) == 3
