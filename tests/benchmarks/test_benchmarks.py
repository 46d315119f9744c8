"""The benchmarks measure what they say they measure. How fast anything is, is not tested."""

import contextlib
import socket
import sys
from collections.abc import Iterator

import pytest

from . import core
from . import load as loads
from .__main__ import table
from .load import LOADS, Sizes, WrongReplyError
from .process import SERVERS, ServerProcess, running
from .wire import HOST, exchange

TINY = Sizes(clients=3, exchanges=4, blocks=2, names=50, conversations=6, conversations_at_once=2, connections=300)
COUNTS = {"ping-pong": 3 * 4, "in step": 3 * 4, "pipelined": 3 * 2 * 50, "churn": 6, "idle": 300}

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and uses epoll")


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """Each of the servers, running."""
    with running(SERVERS[request.param]) as (process,):
        yield process


@on_linux
@pytest.mark.parametrize("load", LOADS)
def test_every_load_is_verified_and_counted(server: ServerProcess, load: str) -> None:
    """Every server gives the right reply to every load, and the figure is for as many as were asked for."""
    with LOADS[load](server, TINY) as measure:
        measured = measure()

    assert measured.count == COUNTS[load]
    assert measured.cost > 0


@on_linux
def test_cpu_time_without_scheduler_statistics(server: ServerProcess) -> None:
    """Where the kernel has no scheduler statistics the CPU time is read in ticks, and is about the same."""
    exact = server.cpu()
    server._has_schedstat = False
    try:
        assert abs(server.cpu() - exact) < 100_000_000
    finally:
        server._has_schedstat = True


@on_linux
def test_server_ends_with_its_context() -> None:
    """A server listens as long as its context lasts, and not longer, even if that fails."""
    with contextlib.suppress(ZeroDivisionError), running(SERVERS["epoll"]) as (process,):
        socket.create_connection((HOST, process.port)).close()
        raise ZeroDivisionError

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, process.port))


@on_linux
def test_server_that_does_not_start() -> None:
    """A server that ends before it listens is reported at once, with its exit status."""
    with pytest.raises(RuntimeError, match="status is 7"), running(["-c", "raise SystemExit(7)"]):
        pass


@on_linux
@pytest.mark.parametrize(
    ("load", "fault"),
    [
        ("churn", "WELCOME = b'welcome!\\n'"),
        ("churn", "GOODBYE += b' '"),
        ("idle", "PROMPT = b'What is your name?'"),
        ("ping-pong", "HELLO = b'Hallo '"),
        ("ping-pong", "_ANSWER_END += b' '"),
        ("in step", "HELLO = b'Hallo '"),
        ("in step", "_ANSWER_END += b' '"),
        ("pipelined", "_ANSWER_END = b'! ' + servers.PROMPT"),
        ("pipelined", "_ANSWER_END = b'!' + servers.PROMPT"),
    ],
)
def test_wrong_replies_are_not_measured(load: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says a byte too few, too many or other than it should, is reported."""
    monkeypatch.setattr(loads, "PATIENCE", 1)
    program = f"from tests.benchmarks import servers; servers.{fault}; servers.serve_epoll()"
    with running(["-c", program]) as (process,), pytest.raises(WrongReplyError), LOADS[load](process, TINY) as measure:
        measure()


def test_core_is_verified_and_counted() -> None:
    """The core and the loop beside it greet all names, in chunks and singly."""
    measured = core.measure(passes=1, singles=10)

    assert measured.count == 2 * (65536 + 10)
    assert min(measured.core_ns, measured.loop_ns, measured.core_single_us, measured.loop_single_us) > 0


def test_wrong_output_of_the_core_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output that differs in a single byte is reported."""
    monkeypatch.setattr(core, "exchange", lambda *numbers: (exchange(*numbers)[0], exchange(*numbers)[1][:-1] + b"!"))

    with pytest.raises(core.WrongOutputError):
        core.measure(passes=1, singles=10)


def test_table_shows_medians_spreads_ratios_and_aims() -> None:
    """A line has the median and the spread of the figures, and of the ratios that are taken round by round."""
    figures = {(load, name): [10.0, 40.0, 20.0] for load in LOADS for name in SERVERS}
    figures |= {(load, name): [10.0, 40.0, 20.0] for load in ("core", "core, single") for name in ("loop", "core")}
    figures["churn", "greeter"] = [20.0, 20.0, 30.0]

    lines = table(figures, TINY).splitlines()

    title = lines.index("churn, connect - one name - exit: microseconds of CPU per conversation")
    assert lines[title + 1].split() == ["epoll", "20.0", "(10.0", "-", "40.0)", "1.00", "(1.00", "-", "1.00)"]
    assert lines[title + 2].split() == ["greeter", "20.0", "(20.0", "-", "30.0)", "1.50", "(0.500", "-", "2.00)"]
    assert [line.partition("<=")[2] for line in lines if "<=" in line] == [" 2.2", " 0.6", " 60 ns"]
