"""Each adapter in this folder passes the conformance kit."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.kit import check
from tests.conformance.report import Outcome, Report, Verdict
from tests.conformance.targets import Started
from tests.support.documents import INTEGRATING
from tests.support.processes import (
    PATIENCE,
    Output,
    Peer,
    Process,
    connected,
    run,
    scripted,
    started,
)
from tests.support.words import GOODBYE, PROMPT, WELCOME, hello

from .adapters import ADAPTERS, Adapter, lines_of_code, table

if sys.platform == "win32":
    pytest.skip("a process cannot be sent SIGTERM", allow_module_level=True)

AT_ONCE = 2  # adapters: more would be late on two processors

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
def serving(*command: str) -> Iterator[tuple[Process, int]]:
    """Run an adapter on a free port; at the end it must have been told to end, and have done so."""
    with started(*command) as process:
        out, err = Output(process.stdout), Output(process.stderr)
        where, _, port = out.line().rpartition(":")
        assert where == "listening on 127.0.0.1", err.rest()
        yield process, int(port)
        assert (process.wait(PATIENCE), out.rest(), err.rest()) == (0, b"", b"")


@pytest.fixture(scope="module")
def reports(request: pytest.FixtureRequest) -> Iterator[Callable[[Adapter], Report]]:
    """Check all adapters that were selected, several at the same time: they wait for most of it."""
    selected: set[Any] = {
        item.callspec.params.get("adapter")
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    }
    there = [each for each in ADAPTERS if each in selected and not each.missing]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = {each: pool.submit(check, Started(each.command)) for each in there}
        yield lambda adapter: found[adapter].result()


def failures(adapter: Adapter, report: Report) -> list[Outcome]:
    """Return those that are not in the table."""
    failed = report.of(Verdict.FAILED)
    if str(adapter) == "anyio_streams":
        assert "Bound its memory" in adapter.limits
        unbounded = "a client that never reads, and has sent before it is accepted"
        failed = [each for each in failed if each.title != unbounded]
    return failed


@adapters
def test_adapter_conforms(adapter: Adapter, reports: Callable[[Adapter], Report]) -> None:
    """What it cannot do is what the table says."""
    report = reports(adapter)
    failed = {str(each) for each in failures(adapter, report)}
    if failed:  # on a machine that is too busy for its times; a real failure comes again
        report = check(Started(adapter.command))
        failed &= {str(each) for each in failures(adapter, report)}
    assert failed == set(), report.text()
    assert len(report.of(Verdict.PASSED)) > 150, report.text()


MANY_FILES = """
import os, resource, runpy, sys
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 2048), most))
for _ in range(1024):
    os.open(os.devnull, os.O_RDONLY)
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@adapters
def test_high_descriptors(adapter: Adapter) -> None:
    """That of the client is above 1023, the last one that select(2) takes."""
    program = (sys.executable, "-c", MANY_FILES, f"tests.frameworks.{adapter.module}")
    with serving(*program, *adapter.arguments) as (process, port):
        with connected(port) as peer:
            peer.say(b"Ada\nexit\n")
            assert peer.hear_rest() == WELCOME + PROMPT + hello("Ada") + PROMPT + GOODBYE
        process.send_signal(signal.SIGTERM)


CLIENT = (sys.executable, "-m", "tests.frameworks.asyncio_client")


def test_client() -> None:
    """More names than it asks for at a time; it says exit."""
    names = [f"{number}" for number in range(2500)]
    with serving(*ADAPTERS[0].command) as (process, port):
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
    commands = {
        path.stem
        for path in Path(__file__).parent.glob("*.py")
        if '\nif __name__ == "__main__":' in path.read_text("utf-8")
    }
    assert commands - {"asyncio_client"} == listed


def test_the_page_has_the_table() -> None:
    """`python -m tests.frameworks` prints it."""
    assert f"\n\n{table()}\n" in INTEGRATING.read_text("utf-8")


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
