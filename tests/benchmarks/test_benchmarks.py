"""The benchmarks measure what they say they measure."""

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import pytest

if sys.platform != "linux":
    pytest.skip("reads /proc and uses epoll", allow_module_level=True)

import resource

from tests.support import crowds
from tests.support.accounting import ROOT, Command, running
from tests.support.crowds import HOST, WrongReplyError
from tests.support.words import ADA, GOODBYE, PROMPT, WELCOME

from . import __main__ as main
from .commands import SERVERS, WrongCheckoutError, checkout, not_installed
from .core import CORE, WrongOutputError, answer_with_core, singly
from .load import Client, leave, receive_welcome, run, send_names
from .report import Turn, table
from .workloads import WORKLOADS, Sizes

Capture: TypeAlias = pytest.CaptureFixture[str]
FEW = {"clients": 3, "exchanges": 4, "crowd": 5, "crowd_exchanges": 2, "blocks": 2, "names": 50}
TINY = Sizes(**FEW, conversations=6, conversations_at_once=2, connections=120)
COUNTS = {"ping-pong": 12, "ping-pong-1000": 10, "pipelined": 300, "churn": 6, "idle": 120}
SHORT_IDLE_TIMEOUT = """
import runpy
from tests.benchmarks import servers
servers.IDLE_TIMEOUT = 0.1
runpy.run_module({!r}, run_name="__main__")
"""
BAD_SERVER = """
from tests.benchmarks import servers
servers.HELLO = servers.GOODBYE = b"Hallo "
servers.serve_epoll()
"""
OTHER_GREETER = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
while True:
    listener.accept()[0].sendall(b"the other one")
"""


servers = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(bool(missing), reason=f"needs {missing}"))
        for name in SERVERS
        for missing in [not_installed([name])]
    ],
)

# Servers


@servers
def test_every_workload_is_verified_and_counted(name: str) -> None:
    measured = {}
    with running(SERVERS[name]) as (server,):
        for workload, prepare in WORKLOADS.items():
            with prepare(server, TINY) as measure:
                measured[workload] = measure()
    assert {workload: result.count for workload, result in measured.items()} == COUNTS
    # The memory need not grow: earlier workloads had connections, too.
    assert all(result.cost > 0 for workload, result in measured.items() if workload != "idle")


@servers
def test_every_framework_has_an_idle_timeout(name: str) -> None:
    if name in ("epoll", "greeter", "recorded", "uvloop"):
        pytest.skip("it has none, has tests of its own, or runs the protocol of asyncio")
    program = SHORT_IDLE_TIMEOUT.format(SERVERS[name].arguments[1])
    received = b""
    with (
        running(Command(["-c", program])) as (server,),
        socket.create_connection((HOST, server.port), timeout=5) as sock,
        suppress(ConnectionResetError),  # some abort it
    ):
        while data := sock.recv(100):
            received += data
    assert received == WELCOME + PROMPT


def test_servers_run_on_one_cpu_and_end_with_their_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """All servers share a CPU, the load has another; at the end, even after an error, all again."""
    bound = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: bound.append((pid, cpus)))
    epoll = SERVERS["epoll"]
    with suppress(ZeroDivisionError), running(epoll, epoll) as (first, second):
        exact = first.cpu()
        first._has_schedstat = False  # then it is read in clock ticks
        assert abs(first.cpu() - exact) < 100_000_000
        raise ZeroDivisionError
    assert bound == [(first.pid, {7}), (second.pid, {7}), (0, {3}), (0, {3, 5, 7})]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, first.port))
    command = Command(["-c", "raise SystemExit(7)"])  # one that does not start is reported at once
    with pytest.raises(RuntimeError, match="status is 7"), running(command):
        pass


def test_greeter_of_another_checkout(tmp_path: Path) -> None:
    """It is imported from there, though this one is installed."""
    for package in ("greeter_core", "greeter_trio"):
        (tmp_path / package).mkdir()
        with pytest.raises(WrongCheckoutError):  # otherwise the installed one would be measured
            checkout(tmp_path)
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "greeter_trio" / "__main__.py").write_text(OTHER_GREETER)
    with (
        running(checkout(tmp_path)) as (server,),
        socket.create_connection((HOST, server.port), timeout=5) as sock,
    ):
        assert sock.recv(100) == b"the other one"


# Load


def ask(sock: socket.socket) -> Client:
    return send_names(sock, [(b"Ada\n", ADA + PROMPT)])


WRONG_REPLIES: dict[Callable[[socket.socket], Client], list[list[bytes]]] = {
    receive_welcome: [[b"welcome!\n" + PROMPT], [WELCOME + b"What is your name?"]],
    ask: [
        *([b"Hallo Ada!\n" + PROMPT], [b"Hello Ada! " + PROMPT], [ADA + PROMPT[:-1], b""]),
        *([ADA + PROMPT[:-1]], [ADA + PROMPT + b" "], []),
    ],
    leave: [[GOODBYE[:-1], b""], [GOODBYE + b" ", b""], [GOODBYE]],
}


@pytest.mark.parametrize(
    ("client", "replies"),
    [(client, replies) for client, cases in WRONG_REPLIES.items() for replies in cases],
)
def test_wrong_replies_are_found_out(
    client: Callable[[socket.socket], Client],
    replies: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A byte too few, too many or wrong; b"" is the end of the stream, without which it waits."""
    monkeypatch.setattr(crowds, "PATIENCE", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for reply in replies:
            if reply:
                theirs.send(reply)
            else:
                theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(WrongReplyError):
            run([client(ours)])


def test_reply_that_was_not_asked_for_is_found_out() -> None:
    """It comes to a client that has ended, while another one still waits."""
    first, served = socket.socketpair()
    second, waiting = socket.socketpair()

    def client() -> Client:
        yield first
        served.send(b" ")

    with first, served, second, waiting:
        served.send(b" ")
        with pytest.raises(WrongReplyError, match="something"):
            run([client(), receive_welcome(second)])


def test_workloads_do_not_measure_wrong_replies() -> None:
    with running(Command(["-c", BAD_SERVER])) as (server,):
        for prepare in WORKLOADS.values():
            with pytest.raises(WrongReplyError), prepare(server, TINY) as measure:
                measure()


def test_load_never_sleeps() -> None:
    """It gives up the CPU only around the readings of the server's CPU time, not with each reply.

    Greeter makes a pause before the first PROMPT, so a load that sleeps would do so for each
    conversation.
    """
    sizes = Sizes(conversations=10, conversations_at_once=1)
    with running(SERVERS["greeter"]) as (server,), WORKLOADS["churn"](server, sizes) as measure:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        measure()
        sleeps = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
    assert sleeps < 15


# The core alone


def test_core_is_verified_and_counted() -> None:
    with pytest.raises(WrongOutputError):
        singly(lambda chunks: (1, [*answer_with_core(chunks)[1], b"!"]))
    for workload, count in {"core": 65536, "core-singly": 5000}.items():
        measured = [measure() for measure in CORE[workload].values()]
        assert [each.count for each in measured] == [count, count]
        assert all(each.cost > 0 for each in measured)


# What is measured, and the table


def test_servers_take_turns() -> None:
    """Each load has so many turns in each round, with a figure for every server."""
    two = {name: SERVERS[name] for name in ("epoll", "asyncio")}
    figures = main.collect(two, ["churn", "idle", "core-singly"], TINY, rounds=1, turns=2)
    # Memory can be measured only once for each process.
    assert {load: [len(turns), *turns[-1].costs] for load, turns in figures.items()} == {
        "churn": [2, "epoll", "asyncio"],
        "idle": [1, "epoll", "asyncio"],
        "core-singly": [2, "loop", "core"],
    }
    assert all(turn.waited >= 0 for turns in figures.values() for turn in turns)


TABLE = """\
                 median  least - greatest    ratio  least - greatest

ping-pong, 50 clients: µs of CPU per greeting (waited: 2%)
  epoll            20.0  (10.0 - 40.0)        1.00  (1.00 - 1.00)
  greeter          50.0  (20.0 - 60.0)        2.00  (1.50 - 2.50)
  trio             48.0  (19.0 - 61.0)        1.90  (1.52 - 2.40)
  greeter@main     50.0  (25.0 - 80.0)        2.50  (2.00 - 2.50)
  greeter = 0.800 x greeter@main  (0.750 - 1.00)
  aim: greeter <= 2.2 x epoll      reached: 2.00
  aim: greeter <= 1 x streams      not measured
  aim: greeter <= 1 x trio         missed: 1.04
  aim: greeter <= 1 x twisted      not measured
  aim: greeter <= 1 x gevent       not measured
  aim: recorded <= 3 x greeter     not measured

idle, 2,000 connections: KiB of memory per connection (waited: 0%)
  epoll           0.250  (0.250 - 0.250)      1.00  (1.00 - 1.00)
  greeter          5.50  (5.50 - 5.50)        22.0  (22.0 - 22.0)
  aim: greeter <= 5.5              reached: 5.50
"""


def test_table() -> None:
    """Medians, spreads, ratios and verdicts are those of the turns that waited least.

    A ratio is taken within a turn: the median of the ratios is not the ratio of the medians.
    """
    names, busy = ["epoll", "greeter", "trio", "greeter@main"], (0.4, [99.0] * 4)
    quiet = (0.02, [10.0, 20.0, 19.0, 25.0]), (0.0, [20.0, 50.0, 48.0, 50.0])
    rows = [busy, *quiet, busy, (0.04, [40.0, 60.0, 61.0, 80.0])]
    turns = [Turn(dict(zip(names, costs, strict=True)), waited) for waited, costs in rows]
    once = [Turn({"epoll": 0.25, "greeter": 5.5}, 0.0)]
    assert table({"ping-pong": turns, "idle": once}, Sizes()) == TABLE


def run_main(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", "--rounds", "1", *options])
    monkeypatch.setattr(main, "QUICK", TINY)
    main.main()


def test_selected_loads_and_servers(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """The base of the ratios is always measured; what cannot be measured is said.

    Other checkouts have the names of their directories; this one need not be measured.
    """
    monkeypatch.setattr(main, "not_installed", lambda names: [*{"gevent"} & {*names}])
    monkeypatch.setattr(main, "checkout", lambda _: SERVERS["epoll"])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    selected = ["--only", "core-singly,churn", "--servers", "gevent,asyncio"]
    run_main(monkeypatch, *selected, "--compare", "/one", "--compare", "/two")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith(")")] == [
        *("churn,", "epoll", "asyncio", "greeter@one", "greeter@two"),
        *("the", "loop", "core"),
    ]
    assert "Not installed, and left out: gevent." in lines
    assert "Servers and load shared a single CPU: the figures mean nothing." in lines


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--only", "ping-pong,ping"], "'ping'"),
        (["--servers", "nginx"], "'nginx'"),
        (["--rounds", "0"], "'0'"),
        (["--compare", "/nowhere"], "/nowhere"),
        (["--compare", str(ROOT)] * 2, f"would be greeter@{ROOT.name}"),
    ],
)
def test_wrong_usage(
    options: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """It is refused before anything is measured, with what was wrong."""
    with pytest.raises(SystemExit) as raised:
        run_main(monkeypatch, *options)
    assert raised.value.code == 2
    assert complaint in capsys.readouterr().err
