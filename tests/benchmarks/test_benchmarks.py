"""The benchmarks measure what they say they measure. No test asserts a time."""

import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("reads /proc and uses epoll", allow_module_level=True)

import resource

from . import __main__ as main
from . import load
from .commands import SERVERS, WrongCheckoutError, checkout, not_installed
from .core import CORE, WrongOutputError, answer_with_core, singly
from .load import WrongReplyError
from .process import ROOT, Command, running
from .report import Turn, table
from .wire import HOST, PROMPT, WELCOME
from .workloads import WORKLOADS, Sizes

TINY = Sizes(
    clients=3,
    exchanges=4,
    crowd=5,
    crowd_exchanges=2,
    blocks=2,
    names=50,
    conversations=6,
    conversations_at_once=2,
    connections=300,
)
COUNTS = {
    "ping-pong": 3 * 4,
    "ping-pong-1000": 5 * 2,
    "pipelined": 3 * 2 * 50,
    "churn": 6,
    "idle": 300,
}
SHORT_IDLE_TIMEOUT = """
import runpy
from tests.benchmarks import servers
servers.IDLE_TIMEOUT = 0.2
runpy.run_module({!r}, run_name="__main__")
"""
OTHER_GREETER = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
while True:
    listener.accept()[0].sendall(b"the other one")
"""


def skip_unless_installed(name: str) -> None:
    """Skip the test of a server whose package is not there."""
    if not_installed([name]):
        pytest.skip(f"{name} is not installed")


# Servers


@pytest.mark.parametrize("name", SERVERS)
def test_every_workload_is_verified_and_counted(name: str) -> None:
    """Every server replies correctly, and the figures are for as many as were asked for."""
    skip_unless_installed(name)
    measured = {}
    with running(SERVERS[name]) as (server,):
        for workload, prepare in WORKLOADS.items():
            with prepare(server, TINY) as measure:
                measured[workload] = measure()

    assert {workload: result.count for workload, result in measured.items()} == COUNTS
    # The memory need not grow: earlier workloads had connections, too.
    assert all(result.cost > 0 for workload, result in measured.items() if workload != "idle")


@pytest.mark.parametrize("name", [name for name in SERVERS if name not in {"epoll", "greeter"}])
def test_every_framework_has_an_idle_timeout(name: str) -> None:
    """A connection that sends nothing is closed."""
    skip_unless_installed(name)
    module = SERVERS[name].arguments[1]
    received = b""

    with contextlib.ExitStack() as stack:
        command = Command(["-c", SHORT_IDLE_TIMEOUT.format(module)])
        (server,) = stack.enter_context(running(command))
        sock = stack.enter_context(socket.create_connection((HOST, server.port), timeout=5))
        stack.enter_context(contextlib.suppress(ConnectionResetError))  # some abort it
        while data := sock.recv(100):
            received += data

    assert received == WELCOME + PROMPT


def test_servers_and_load_run_on_different_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """All servers share a CPU, the load has another; afterwards the load may use all again."""
    bound = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: bound.append((pid, cpus)))

    with running(SERVERS["epoll"], SERVERS["asyncio"]) as (first, second):
        pass

    assert bound == [(first.pid, {7}), (second.pid, {7}), (0, {3}), (0, {3, 5, 7})]


def test_cpu_time_without_scheduler_statistics() -> None:
    """Where the kernel has no scheduler statistics, the CPU time is read in clock ticks."""
    with running(SERVERS["epoll"]) as (server,):
        exact = server.cpu()
        server._has_schedstat = False
        rounded = server.cpu()

    assert abs(rounded - exact) < 100_000_000


def test_server_ends_with_its_context() -> None:
    """A server listens as long as its context lasts, and not longer, even if that fails."""
    with contextlib.suppress(ZeroDivisionError), running(SERVERS["epoll"]) as (server,):
        socket.create_connection((HOST, server.port)).close()
        raise ZeroDivisionError

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, server.port))


def test_server_that_does_not_start() -> None:
    """A server that ends before it listens is reported at once, with its exit status."""
    command = Command(["-c", "raise SystemExit(7)"])
    with pytest.raises(RuntimeError, match="status is 7"), running(command):
        pass


def test_greeter_of_another_checkout(tmp_path: Path) -> None:
    """It is imported from there, though this one is installed."""
    for package in "greeter_core", "greeter_trio":
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "greeter_trio" / "__main__.py").write_text(OTHER_GREETER)

    with contextlib.ExitStack() as stack:
        (server,) = stack.enter_context(running(checkout(tmp_path)))
        sock = stack.enter_context(socket.create_connection((HOST, server.port), timeout=5))
        received = sock.recv(100)

    assert received == b"the other one"


@pytest.mark.parametrize("missing", ["greeter_core", "greeter_trio", "everything"])
def test_directory_without_greeter_is_refused(missing: str, tmp_path: Path) -> None:
    """Otherwise the one that is installed would be measured."""
    for package in {"greeter_core", "greeter_trio"} - {missing}:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()

    with pytest.raises(WrongCheckoutError):
        checkout(tmp_path / "nowhere" if missing == "everything" else tmp_path)


# Load


@pytest.mark.parametrize(
    ("workload", "fault"),
    [
        ("churn", "WELCOME = b'welcome!\\n'"),
        ("churn", "GOODBYE += b' '"),
        ("idle", "PROMPT = b'What is your name?'"),
        ("ping-pong", "HELLO = b'Hallo '"),
        ("ping-pong", "_ANSWER_END += b' '"),
        ("ping-pong", "answer = lambda data: (b'', b'', False)"),
        ("pipelined", "_ANSWER_END = b'! ' + servers.PROMPT"),
        ("pipelined", "_ANSWER_END = b'!' + servers.PROMPT"),
    ],
)
def test_wrong_replies_are_not_measured(
    workload: str,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that sends nothing, or a byte too few, too many or wrong, is reported."""
    monkeypatch.setattr(load, "PATIENCE", 0.3)
    program = f"from tests.benchmarks import servers; servers.{fault}; servers.serve_epoll()"
    with (
        running(Command(["-c", program])) as (server,),
        pytest.raises(WrongReplyError),
        WORKLOADS[workload](server, TINY) as measure,
    ):
        measure()


def test_load_never_sleeps() -> None:
    """It gives up the CPU only around the readings of the server's CPU time, not with each reply.

    Greeter makes a pause before the first PROMPT, so a load that sleeps would do so for each
    conversation.
    """
    sizes = Sizes(conversations=15, conversations_at_once=1)
    with (
        running(SERVERS["greeter"]) as (server,),
        WORKLOADS["churn"](server, sizes) as measure,
    ):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        measure()
        sleeps = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before

    assert sleeps < 15


# The core alone


@pytest.mark.parametrize(("workload", "count"), [("core", 65536), ("core-singly", 5000)])
def test_core_is_verified_and_counted(workload: str, count: int) -> None:
    """The core and the loop beside it greet all names, in chunks and singly."""
    for measure in CORE[workload].values():
        measured = measure()

        assert measured.count == count
        assert measured.cost > 0


def test_wrong_output_of_the_core_is_not_measured() -> None:
    """Output that differs in a single byte is reported."""
    with pytest.raises(WrongOutputError):
        singly(lambda chunks: (1, [*answer_with_core(chunks)[1], b"!"]))


# What is measured, and the table


def test_servers_take_turns() -> None:
    """Each load has so many turns in each round, with a figure for every server."""
    servers = {name: SERVERS[name] for name in ("epoll", "asyncio")}

    figures = main.collect(servers, ["churn", "idle", "core-singly"], TINY, rounds=1, turns=2)

    # Memory can be measured only once for each process.
    assert {name: len(turns) for name, turns in figures.items()} == {
        "churn": 2,
        "idle": 1,
        "core-singly": 2,
    }
    assert {name: [*turns[-1].costs] for name, turns in figures.items()} == {
        "churn": ["epoll", "asyncio"],
        "idle": ["epoll", "asyncio"],
        "core-singly": ["loop", "core"],
    }
    assert all(turn.waited >= 0 for turns in figures.values() for turn in turns)


def test_table() -> None:
    """Medians, spreads, ratios and verdicts are those of the turns that waited least.

    A ratio is taken within a turn: the median of the ratios is not the ratio of the medians.
    """
    names = ["epoll", "greeter", "asyncio", "trio", "greeter@main"]
    rows = [
        (0.02, [10.0, 20.0, 40.0, 19.0, 25.0]),
        (0.40, [99.0, 99.0, 99.0, 99.0, 99.0]),
        (0.00, [20.0, 50.0, 40.0, 48.0, 50.0]),
        (0.40, [99.0, 99.0, 99.0, 99.0, 99.0]),
        (0.04, [40.0, 60.0, 40.0, 61.0, 80.0]),
    ]
    turns = [Turn(dict(zip(names, costs, strict=True)), waited) for waited, costs in rows]
    figures = {
        "ping-pong": turns,
        "churn": turns[:1],
        "idle": [Turn({"epoll": 0.25, "greeter": 5.5}, 0.0)],
        "core": [Turn({"loop": 100.0, "core": 51.0}, 0.0)],
    }

    assert table(figures, Sizes()).splitlines() == [
        "                 median  least - greatest    ratio  least - greatest",
        "",
        "ping-pong, 50 clients: µs of CPU per greeting (waited: 2%)",
        "  epoll            20.0  (10.0 - 40.0)        1.00  (1.00 - 1.00)",
        "  greeter          50.0  (20.0 - 60.0)        2.00  (1.50 - 2.50)",
        "  asyncio          40.0  (40.0 - 40.0)        2.00  (1.00 - 4.00)",
        "  trio             48.0  (19.0 - 61.0)        1.90  (1.52 - 2.40)",
        "  greeter@main     50.0  (25.0 - 80.0)        2.50  (2.00 - 2.50)",
        "  greeter = 0.800 x greeter@main  (0.750 - 1.00)",
        "  aim: greeter <= 2.2 x epoll      reached: 2.00",
        "  aim: greeter <= 1 x streams      not measured",
        "  aim: greeter <= 1 x trio         missed: 1.04",
        "  aim: greeter <= 1 x twisted      not measured",
        "  aim: greeter <= 1 x gevent       not measured",
        "",
        "churn, connect - one name - exit: µs of CPU per conversation (waited: 2%)",
        "  epoll            10.0  (10.0 - 10.0)        1.00  (1.00 - 1.00)",
        "  greeter          20.0  (20.0 - 20.0)        2.00  (2.00 - 2.00)",
        "  asyncio          40.0  (40.0 - 40.0)        4.00  (4.00 - 4.00)",
        "  trio             19.0  (19.0 - 19.0)        1.90  (1.90 - 1.90)",
        "  greeter@main     25.0  (25.0 - 25.0)        2.50  (2.50 - 2.50)",
        "  greeter = 0.800 x greeter@main  (0.800 - 0.800)",
        "  aim: greeter <= 1.3 x asyncio    reached: 0.500",
        "",
        "idle, 2,000 connections: KiB of memory per connection (waited: 0%)",
        "  epoll           0.250  (0.250 - 0.250)      1.00  (1.00 - 1.00)",
        "  greeter          5.50  (5.50 - 5.50)        22.0  (22.0 - 22.0)",
        "  aim: greeter <= 5.5              reached: 5.50",
        "",
        "the core alone, chunks of 16 KiB: ns of CPU per name (waited: 0%)",
        "  loop            100.0  (100.0 - 100.0)      1.00  (1.00 - 1.00)",
        "  core             51.0  (51.0 - 51.0)       0.510  (0.510 - 0.510)",
        "  aim: core <= 0.5 x loop          missed: 0.510",
    ]


def run_main(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    """Run the command line with these options, at the smallest size."""
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", "--rounds", "1", *options])
    monkeypatch.setattr(main, "QUICK", TINY)
    main.main()


def test_selected_loads_and_servers(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The base of the ratios is always measured; what cannot be measured is said."""
    monkeypatch.setattr(main, "not_installed", lambda names: [*{"gevent"} & {*names}])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)

    run_main(monkeypatch, "--only", "core-singly,churn", "--servers", "gevent,asyncio")

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith(")")] == [
        *("churn,", "epoll", "asyncio"),
        *("the", "loop", "core"),
    ]
    assert "Not installed, and left out: gevent." in lines
    assert "Servers and load shared a single CPU: the figures mean nothing." in lines


def test_other_checkouts_have_rows(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They bear the names of the directories; this one need not be measured."""
    monkeypatch.setattr(main, "checkout", lambda _: SERVERS["greeter"])
    options = ["--only", "idle", "--servers", "epoll", "--compare", "/one", "--compare", "/two"]

    run_main(monkeypatch, *options)

    lines = capsys.readouterr().out.splitlines()
    rows = [line.split()[0] for line in lines if line.endswith(")")]
    assert rows == ["idle,", "epoll", "greeter@one", "greeter@two"]


@pytest.mark.parametrize(
    "options",
    [
        ("--only", "ping-pong,ping"),
        ("--servers", "nginx"),
        ("--rounds", "0"),
        ("--compare", "/nowhere"),
        ("--compare", str(ROOT), "--compare", str(ROOT)),
    ],
)
def test_wrong_usage(
    options: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is refused before anything is measured, with what was wrong."""
    with pytest.raises(SystemExit) as raised:
        run_main(monkeypatch, *options)

    assert raised.value.code == 2
    assert Path(options[1].split(",")[-1]).name in capsys.readouterr().err
