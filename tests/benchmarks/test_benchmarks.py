"""The benchmarks measure what they say they measure. How fast anything is, is not tested."""

import contextlib
import socket
import sys
from collections.abc import Iterator

import pytest

from . import __main__ as main
from . import load as loads
from .__main__ import Turn, table
from .core import CORE, WrongOutputError, answer_with_core, singly
from .load import LOADS, Sizes, WrongReplyError
from .process import SERVERS, ServerProcess, running
from .wire import HOST

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
    monkeypatch.setattr(loads, "PATIENCE", 0.3)
    program = f"from tests.benchmarks import servers; servers.{fault}; servers.serve_epoll()"
    with running(["-c", program]) as (process,), pytest.raises(WrongReplyError), LOADS[load](process, TINY) as measure:
        measure()


@pytest.mark.parametrize(("load", "count"), [("core", 65536), ("core, singly", 5000)])
def test_core_is_verified_and_counted(load: str, count: int) -> None:
    """The core and the loop beside it greet all names, in chunks and singly."""
    for measure in CORE[load].values():
        measured = measure()

        assert measured.count == count
        assert measured.cost > 0


def test_wrong_output_of_the_core_is_not_measured() -> None:
    """Output that differs in a single byte is reported."""
    with pytest.raises(WrongOutputError):
        singly(lambda chunks: (1, [*answer_with_core(chunks)[1], b"!"]))


@on_linux
def test_collect_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each load has so many turns in each round, with a figure for every server; memory is measured once a round."""
    monkeypatch.setattr(main, "LOADS", {"churn": LOADS["churn"], "idle": LOADS["idle"]})
    monkeypatch.setattr(main, "CORE", {"core, singly": CORE["core, singly"]})

    figures = main.collect(TINY, rounds=1, turns=2)

    assert {load: len(turns) for load, turns in figures.items()} == {"churn": 2, "idle": 1, "core, singly": 2}
    assert all({*turn.costs} == {*CORE.get(load, SERVERS)} for load, turns in figures.items() for turn in turns)
    assert all(turn.waited >= 0 for turns in figures.values() for turn in turns)


def test_table_is_of_the_quieter_half() -> None:
    """The medians and spreads, of figures and of the ratios turn by turn, are those of the turns that waited least."""
    turns = [
        Turn({"epoll": 10.0, "greeter": 20.0, "asyncio": 40.0}, 0.02),
        Turn({"epoll": 99.0, "greeter": 99.0, "asyncio": 99.0}, 0.40),
        Turn({"epoll": 20.0, "greeter": 10.0, "asyncio": 40.0}, 0.00),
        Turn({"epoll": 99.0, "greeter": 99.0, "asyncio": 99.0}, 0.40),
        Turn({"epoll": 40.0, "greeter": 80.0, "asyncio": 40.0}, 0.04),
    ]
    core_turns = [Turn({"loop": 100.0, "core": 50.0}, 0.0)]

    lines = table(dict.fromkeys(LOADS, turns) | dict.fromkeys(CORE, core_turns), TINY).splitlines()

    title = lines.index("ping-pong, 3 clients: microseconds of CPU per greeting (waited: 2%)")
    assert [" ".join(line.split()) for line in lines[title + 1 : title + 4]] == [
        "epoll 20.0 (10.0 - 40.0) 1.00 (1.00 - 1.00)",
        "greeter 20.0 (10.0 - 80.0) 2.00 (0.500 - 2.00) ratio <= 2.2",
        "asyncio 40.0 (40.0 - 40.0) 2.00 (1.00 - 4.00)",
    ]
    assert " ".join(lines[-1].split()) == "core 50.0 (50.0 - 50.0) 0.500 (0.500 - 0.500)"
