"""The benchmarks measure what they say they measure."""

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias
from xml.etree import ElementTree as ET

import pytest

if sys.platform != "linux":
    pytest.skip("reads /proc and uses epoll", allow_module_level=True)

import resource

from tests.support import crowds
from tests.support.accounting import ROOT, Command, running
from tests.support.crowds import HOST, WrongReplyError
from tests.support.words import ADA, GOODBYE, PROMPT, WELCOME

from . import __main__ as main
from . import cores, measuring, readme
from .commands import FLOOR, ON_CORE, PEERS, SERVERS, Server, WrongCheckoutError, checkout
from .core import CORE, WrongOutputError, answer_with_core, singly
from .load import Client, leave, receive_welcome, run, send_names
from .measuring import MeasuringError, Turn, measure_client
from .plot import PlotError, plot
from .report import COLUMNS, markdown, text
from .results import Figures, Results, ResultsError
from .workloads import WORKLOADS, Measured, Sizes

Capture: TypeAlias = pytest.CaptureFixture[str]
FEW = {"clients": 3, "names_in_turn": 12, "crowd": 5, "multitude": 7, "blocks": 2, "names": 50}
TINY = Sizes(**FEW, conversations=6, conversations_at_once=2, connections=120, piped=2000)
COUNTS = {
    "ping-pong-1": 12,
    "ping-pong-50": 12,
    "ping-pong-1000": 35,
    "ping-pong-8000": 56,
    "pipelined": 300,
    "churn": 6,
    "idle": 120,
}
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
DYING_SERVER = """
import socket
with socket.create_server(("127.0.0.1", 0)) as listener:
    listener.accept()
"""
SVG = "http://www.w3.org/2000/svg"
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
        for name, server in {"floor": FLOOR, **SERVERS}.items()
        for missing in [server.missing]
    ],
)

# Servers


@servers
def test_every_workload_is_verified_and_counted(name: str) -> None:
    measured = {}
    with running({"floor": FLOOR, **SERVERS}[name].command) as (server,):
        for workload, prepare in WORKLOADS.items():
            with prepare(server, TINY) as measure:
                measured[workload] = measure()
    assert {workload: result.count for workload, result in measured.items()} == COUNTS
    # The memory need not grow: earlier workloads had connections, too.
    assert all(result.cost > 0 for workload, result in measured.items() if workload != "idle")


@pytest.mark.parametrize("name", [name for name in PEERS if not PEERS[name].command.arguments[2:]])
def test_every_framework_has_an_idle_timeout(name: str) -> None:
    """Those with an argument are run in another way, too; the adapters have that of the core."""
    if missing := PEERS[name].missing:
        pytest.skip(f"needs {missing}")
    program = SHORT_IDLE_TIMEOUT.format(SERVERS[name].command.arguments[1])
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
    """All servers share a CPU, which another process keeps awake, and the load has another.

    At the end, even after an error, the load has all CPUs again, and no process is left.
    """
    bound = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: bound.append((pid, cpus)))
    epoll = FLOOR.command
    with suppress(ZeroDivisionError), running(epoll, epoll) as (first, second):
        exact = first.cpu()
        first._has_schedstat = False  # then it is read in clock ticks
        assert abs(first.cpu() - exact) < 100_000_000
        raise ZeroDivisionError
    (idle, cpus), *bound = bound
    assert cpus == {7}
    assert bound == [(first.pid, {7}), (second.pid, {7}), (0, {3}), (0, {3, 5, 7})]
    assert not Path("/proc", str(idle)).exists()
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
        running(checkout(tmp_path).command) as (server,),
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
    with (
        running(SERVERS["greeter"].command) as (server,),
        WORKLOADS["churn"](server, sizes) as measure,
    ):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        measure()
        sleeps = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
    assert sleeps < 15


def test_two_servers_share_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m tests.benchmarks.cores`; its load is verified, too."""
    monkeypatch.setattr(cores, "CLIENTS", 6)
    monkeypatch.setattr(cores, "NAMES", 3)
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    with cores.servers(2) as (one, two):
        assert one.port == two.port
        assert cores.load(one.port) == 18


# The core alone


def test_core_is_verified_and_counted() -> None:
    with pytest.raises(WrongOutputError):
        singly(lambda chunks: (1, [*answer_with_core(chunks)[1], b"!"]))
    for workload, count in {"core": 65536, "core-singly": 5000}.items():
        measured = [measure() for measure in CORE[workload].values()]
        assert [each.count for each in measured] == [count, count]
        assert all(each.cost > 0 for each in measured)


# What is measured


def test_measurements_are_made_in_rounds_and_kept() -> None:
    """Beside the floor, in turns; memory can be measured only once for each process."""
    results, servers = Results(TINY), {"threads": PEERS["threads"], "greeter": SERVERS["greeter"]}
    assert len([*main.collect(results, servers, ["churn", "idle"], rounds=2, turns=2)]) == 8
    others = ["start", "core-singly", "piped"]
    assert len([*main.collect(results, servers, others, rounds=1, turns=1)]) == 4
    assert {
        load: {name: len(turns) for name, turns in each.items()}
        for load, each in results.turns.items()
    } == {
        "churn": {"threads": 4, "greeter": 4},
        "idle": {"threads": 2, "greeter": 2},
        "start": {"threads": 1, "greeter": 1},
        "core-singly": {"greeter": 1},
        "piped": {"greeter": 1},
    }
    assert results.failed == {}


def test_a_run_is_resumed(tmp_path: Path) -> None:
    """What is in the file is not measured again; a file of other sizes is refused."""
    file = tmp_path / "results.json"
    results, servers = Results(TINY), {"threads": PEERS["threads"]}
    measuring = main.collect(results, servers, ["churn", "idle"], rounds=1, turns=1)
    next(measuring)
    results.write(file)
    again = Results.read(file)
    assert again == results
    assert len([*main.collect(again, servers, ["churn", "idle"], rounds=1, turns=1)]) == 1
    assert again.turns["churn"] == results.turns["churn"]
    again.fail("churn", "threads", "it was not installed")
    again.forget_failures()  # as a run does that goes on
    assert again.failed == {}
    assert not again.is_done("churn", "threads", 0)
    assert again.is_done("idle", "threads", 0)
    for wrong in ("", "[]", "{}", '{"version": 0}', '{"version": 1, "sizes": {"x": 1}}'):
        file.write_text(wrong)
        with pytest.raises(ResultsError, match=r"results\.json"):
            Results.read(file)
    with pytest.raises(ResultsError, match="No such file"):
        Results.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (Server(Command(["-c", "raise SystemExit(7)"])), "its exit status is 7"),
        (Server(Command(["-c", BAD_SERVER])), "Hallo "),
        (Server(Command(["-c", DYING_SERVER])), "the server has ended, with status 0"),
        (Server(FLOOR.command, ("no_such_package",)), "not installed: no_such_package"),
    ],
    ids=["does not start", "answers wrongly", "ends", "is not installed"],
)
def test_without_a_figure_it_is_said_why(server: Server, why: str) -> None:
    """And the others are measured."""
    results = Results(TINY)
    servers = {"bad": server, "threads": PEERS["threads"]}
    assert len([*main.collect(results, servers, ["churn"], rounds=2, turns=1)]) == 3
    assert why in results.failed["churn"]["bad"]
    assert [*results.turns["churn"]] == ["threads"]
    assert f"bad      no figure: {results.failed['churn']['bad']}" in text(results)


@pytest.mark.parametrize(
    ("client", "why"),
    [("raise SystemExit('no names')", "no names"), ("pass", "it printed other greetings")],
)
def test_a_client_that_fails_is_no_figure(
    client: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(measuring.CLIENTS, "greeter", ["-c", client])
    with pytest.raises(MeasuringError, match=f"the greeter client: {why}"):
        measure_client(TINY, 1)


# What is shown


def results_of(ratios: dict[str, dict[str, float]]) -> Results:
    """Return results with these ratios, to a floor of 10."""
    results = Results(Sizes())
    for load, servers in ratios.items():
        for name, ratio in servers.items():
            results.add(load, name, [Turn(Measured(cost=10 * ratio, count=1), 10.0, 0.0)])
    return results


def test_figures_are_medians_of_the_quieter_half() -> None:
    """A ratio is that of a turn: the median of the ratios is not the ratio of the medians."""
    busy = Turn(Measured(cost=99, count=1, rate=9.0, p50=9.0, p99=9.0), 1.0, 0.4)
    quiet = [
        Turn(Measured(cost=cost, count=1, rate=cost, p50=cost, p99=None), floor, 0.02)
        for cost, floor in ((10.0, 10.0), (20.0, 5.0), (50.0, 20.0))
    ]
    figures = Figures.of([busy, *quiet, busy, busy])
    assert figures == Figures(20.0, 2.5, 1.0, 4.0, 20.0, 20.0, None, 0.02)


def test_text() -> None:
    """Each row says who is ahead."""
    ratios = {"ping-pong-50": {"greeter": 2.0, "threads": 1.0, "Trio": 3.0}}
    shown = text(results_of(ratios))
    assert shown.startswith(
        "ping-pong, 50 clients: \u00b5s of CPU per greeting\n"
        "            figure  x floor  least - greatest     who is ahead\n"
        "  threads     10.0     1.00  (1.00 - 1.00)        it 2.00 x\n"
        "  greeter     20.0     2.00  (2.00 - 2.00)\n"
        "  Trio        30.0     3.00  (3.00 - 3.00)        Greeter 1.50 x\n"
    )
    assert "  ping-pong-50: Greeter, of Trio <= 1: reached, 0.67\n" in shown
    assert "  ping-pong-50: Greeter, of threads <= 1.5: missed, 2.00\n" in shown
    assert "  us per piped name <= 0.7: not measured\n" in shown


def test_table() -> None:
    """The least ratio of a column is bold; the columns tell how many clients there were."""
    results = results_of({load: {"greeter": 2.0, "threads": 1.0} for load in COLUMNS})
    del results.turns["idle"]["threads"]
    results.sizes = Sizes(multitude=9000)
    rows = markdown(results, ["threads"], ["Trio"]).splitlines()
    assert "| 1 client | 50 | 1,000 | 9,000 | pipelined |" in rows[0]
    assert rows[2:] == [
        f"| **Greeter** |{' 2.00 |' * 6} **2.00** |",
        f"| threads |{' **1.00** |' * 6} - |",
        f"| Trio + `greeter_core` |{' - |' * 7}",
    ]


def test_the_readme_has_the_table_of_the_kept_results() -> None:
    """`--readme` writes it."""
    assert readme.shown() == readme.table(Results.read(readme.KEPT))


def test_the_kept_results_are_whole() -> None:
    """Nothing was measured with smaller sizes; where a server has no figure, it is known why."""
    results = Results.read(readme.KEPT)
    assert results.sizes == Sizes()
    for load in COLUMNS:
        measured = {*results.turns[load], *results.failed.get(load, {})}
        assert measured >= {"greeter", *PEERS, *(f"{name} + core" for name in ON_CORE)}


def test_plot(tmp_path: Path) -> None:
    """The same results are the same bytes."""
    pytest.importorskip("matplotlib")
    results = Results.read(readme.KEPT)
    files = [tmp_path / name for name in ("one.svg", "two.svg")]
    for file in files:
        plot(results, file)
    assert files[0].read_bytes() == files[1].read_bytes()
    root = ET.fromstring(files[0].read_bytes())
    shown = {"".join(element.itertext()).strip() for element in root.iter(f"{{{SVG}}}text")}
    assert {"Greeter", "threads", "pipelined", "Greeter, as it is installed"} <= shown
    with pytest.raises(PlotError, match="cannot write"):
        plot(results, tmp_path / "no" / "folder.svg")


def test_no_plot_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PlotError, match="matplotlib"):
        plot(Results(TINY), tmp_path / "plot.svg")


# The command


def run_main(monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", "--rounds", "1", *options])
    monkeypatch.setattr(main, "QUICK", TINY)
    main.main()


def test_selected_loads_and_servers(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    """Other checkouts have the names of their directories."""
    monkeypatch.setattr(main, "checkout", lambda _: FLOOR)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    selected = ["--only", "core-singly,churn", "--servers", "greeter,threads"]
    compared = ["--compare", "/one", "--compare", "/two"]
    file = tmp_path / "results.json"
    run_main(monkeypatch, *selected, *compared, "--json", str(file))
    out = capsys.readouterr().out
    assert {*Results.read(file).turns["churn"]} == {
        *("greeter", "threads", "greeter@one", "greeter@two")
    }
    assert "Servers and load shared a single CPU: the figures mean nothing." in out
    monkeypatch.setattr(sys.modules[__name__], "TINY", Sizes(clients=4))
    with pytest.raises(SystemExit) as raised:
        run_main(monkeypatch, "--json", str(file))
    assert raised.value.code == 2
    assert "other sizes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--only", "ping-pong-50,ping"], "'ping'"),
        (["--servers", "nginx"], "'nginx'"),
        (["--rounds", "0"], "'0'"),
        (["--compare", "/nowhere"], "/nowhere"),
        (["--compare", str(ROOT)] * 2, f"would be greeter@{ROOT.name}"),
        (["--json", "/dev/null"], "has no results of this program"),
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
