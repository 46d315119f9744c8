"""The kit: what it plays, what it finds wrong, and what it says if there is nothing to check."""

import contextlib
import math
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from greeter_core import (
    ClientConfig,
    Framing,
    Recorder,
    Recording,
    ServerConfig,
    ServerConnection,
    Step,
    TranscriptItem,
)
from tests.support.processes import HOST, PATIENCE, Output, Peer, free_port, scripted, started
from tests.support.words import ADA, GOODBYE, PROMPT, TOO_SLOW, WELCOME

from . import kit
from .__main__ import main
from .checking import Check, _Runner
from .configuration import config_from_json, config_json
from .corpus import Case, read_corpus
from .kit import check, corpus_checks
from .misbehaving import FAULTS
from .peer import TooLateError
from .playing import Act, NotPlayableError, Script, Turn, script_of
from .report import Outcome, Report, Verdict
from .targets import Running, Server, Started, TargetError

# What can be played

EIGHTHS = ServerConfig(pace=0.125, quiet=0.25, idle_timeout=2.0, linger=0.5)
Play = Callable[["Recorder[ServerConnection]"], object]


def case_of(play: Play, config: ServerConfig = EIGHTHS, *, full: bool = False) -> Case:
    """Return what is recorded when this is done to a server that was opened at 0."""
    items: list[TranscriptItem] = []
    play(Recording(items.append, now=0.0).server(config, now=0.0, full=full))
    steps = tuple((n, item) for n, item in enumerate(items, 1) if isinstance(item, Step))
    return Case("made-up", 1, "a case", ("S1.1",), steps)


def do(*inputs: tuple[str, *tuple[Any, ...]]) -> Play:
    """Return a function that calls these methods, with these arguments."""

    def play(server: "Recorder[ServerConnection]") -> None:
        for name, *arguments in inputs:
            getattr(server, name)(*arguments)

    return play


def test_a_script() -> None:
    case = case_of(
        do(
            ("handle_timeout", 0.0625),  # early
            ("handle_timeout", 0.125),
            ("receive_data", b"Ada", 0.5),
            ("handle_timeout", 0.75),
            ("handle_timeout", 0.875),
            ("handle_timeout", 2.75),
            ("handle_timeout", 3.25),
        )
    )
    turns = (
        Turn(Act.CONNECT, 0.0, says=WELCOME),
        Turn(Act.WAIT, 0.125, says=PROMPT),
        Turn(Act.SEND, 0.5, data=b"Ada"),
        Turn(Act.WAIT, 0.75, says=ADA),
        Turn(Act.WAIT, 0.875, says=PROMPT),
        Turn(Act.WAIT, 2.75, says=TOO_SLOW, ends=True),
        Turn(Act.WAIT, 3.25, closes=True),
    )
    assert script_of(case) == Script(EIGHTHS, turns)


@pytest.mark.parametrize(
    ("last", "turn"),
    [
        (("receive_eof", 0.25), Turn(Act.END, 0.25, ends=True)),
        (("connection_lost",), Turn(Act.RESET, 0.125)),
        (("shutdown", 0.25), Turn(Act.SHUT_DOWN, 0.25, says=GOODBYE, ends=True)),
    ],
    ids=["end", "reset", "shutdown"],
)
def test_how_it_ends(last: tuple[str, Any], turn: Turn) -> None:
    script = script_of(case_of(do(("handle_timeout", 0.125), last)))
    assert script.turns[-1] == turn
    assert script.shuts_down is (turn.act is Act.SHUT_DOWN)


PROMPTED = ("handle_timeout", 0.125)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (case_of(do(("handle_timeout", 0.25))), "the server is late"),
        (case_of(do(("receive_data", b"Ada\n", 0.25))), "the server is late"),
        (case_of(do(("receive_data", b"Ada\n", 0.0625))), "too near to a deadline"),
        (case_of(do(("receive_data", b"Ada\n", 0.125))), "too near to a deadline"),
        (case_of(do(PROMPTED, ("receive_eof", 0.1875))), "too near to what comes before it"),
        (case_of(do(("data_in_flight", 0.125))), "what has been acknowledged"),
        (case_of(do(), full=True), "full"),
        (case_of(do(PROMPTED, ("shutdown", 0.5), ("shutdown", 0.75))), "a second signal"),
        (
            case_of(do(PROMPTED, ("receive_eof", 11.0)), ServerConfig(pace=0.125)),
            "longer than 10 s",
        ),
        (  # the name is complete just when the client is idle
            case_of(do(PROMPTED, ("receive_data", b"Ada", 1.75), ("handle_timeout", 2.0))),
            "two deadlines are too near",
        ),
    ],
)
def test_what_cannot_be_played(case: Case, reason: str) -> None:
    with pytest.raises(NotPlayableError, match=reason):
        script_of(case)


def test_a_case_of_a_client_is_no_check() -> None:
    items: list[TranscriptItem] = []
    Recording(items.append, now=0.0).client(ClientConfig(), now=0.0)
    (step,) = items
    assert isinstance(step, Step)
    case = Case("client", 1, "a client", ("C1.1",), ((1, step),))
    with pytest.raises(NotPlayableError):
        script_of(case)
    assert not [*corpus_checks([case], 0.5)]


def test_most_of_the_corpus_can_be_played() -> None:
    checks = [*corpus_checks(read_corpus(), 0.5)]
    assert sum(not check.obstacle for check in checks) > 0.7 * len(checks)


@pytest.mark.parametrize(
    "config",
    [
        ServerConfig(),
        ServerConfig(framing=Framing.RAW, idle_timeout=math.inf, max_lifetime=1.5, max_name_size=4),
    ],
)
def test_a_configuration_as_json(config: ServerConfig) -> None:
    assert config_from_json(config_json(config)) == config


@pytest.mark.parametrize("text", ["", "[]", "null", '{"pace": -1}', '{"framing": "words"}'])
def test_no_configuration(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        config_from_json(text)


# The report


def outcome(number: int, verdict: Verdict, **more: Any) -> Outcome:
    return Outcome("topic", f"{number}, a check", "S1.1", verdict, **more)


def test_a_report() -> None:
    passed = outcome(1, Verdict.PASSED)
    failed = outcome(2, Verdict.FAILED, expected="b'Ada'", got="nothing", seconds=0.25)
    left_out = outcome(3, Verdict.LEFT_OUT, reason="it is too long")
    report = Report([passed, failed, left_out])
    assert not report.conforms
    assert report.text() == (
        "topic  1 passed, 1 failed, 1 left out\n"
        "\n"
        "FAILED after 0.25 s: topic: 2, a check (S1.1)\n"
        "  expected b'Ada'\n"
        "  got      nothing\n"
        "\n"
        "Left out:\n"
        "    1: it is too long\n"
        "\n"
        "1 passed, 1 failed, 1 left out.\n"
    )
    assert "  topic: 3, a check (S1.1): it is too long\n" in report.text(verbose=True)
    assert Report([passed, left_out]).conforms
    assert not Report([left_out]).conforms


def test_a_report_of_many_failures() -> None:
    report = Report([outcome(n, Verdict.FAILED) for n in range(30)])
    assert report.text().count("FAILED") == 10
    assert "20 more have failed." in report.text()
    assert report.text(verbose=True).count("FAILED") == 30


# Servers that break a rule


def misbehaving(fault: str) -> Started:
    return Started([sys.executable, "-m", "tests.conformance.misbehaving", "--fault", fault])


needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

FOUND_BY = {
    "half-close": "hostile: a half-close",
    "judges first": "hostile: a process that stood still",
    "early": "corpus, default: 6,",
    "late": "corpus, default: 6,",
    "reads while sending": "hostile: a client that never reads (",
    "never gives up": "hostile: a client that never reads (",
    "no patience": "hostile: a client that never reads (",
    "joins reads": "corpus, end-of-stream: 3,",
    "splits reads": "corpus, end-of-stream: 6,",
    "closes at once": "hostile: a client that talks on after exit",
    "never closes": "corpus, closing: 5,",
    "loses names": "hostile: a shutdown",
    "dies": "hostile: a half-close",
}
FOUND_AT_THE_END = {"leaks": "corpus, default: 10,", "status": "corpus, default: 10,"}


@needs_signals
@pytest.mark.parametrize("fault", FOUND_BY)
def test_a_fault_is_found(fault: str) -> None:
    report = check(misbehaving(fault), only=FOUND_BY[fault])
    assert FOUND_BY[fault] in str(report.of(Verdict.FAILED)[0])


@needs_signals
@pytest.mark.parametrize("fault", FOUND_AT_THE_END)
def test_a_fault_is_found_at_the_end(fault: str) -> None:
    report = check(misbehaving(fault), only=FOUND_AT_THE_END[fault])
    (failed,) = report.of(Verdict.FAILED)
    assert failed.topic == "the server"


def test_every_fault_is_tried() -> None:
    assert {*FOUND_BY, *FOUND_AT_THE_END} == {*FAULTS} - {"none"}


@needs_signals
def test_without_a_fault_nothing_is_found() -> None:
    """The corpus is played against the adapters of `frameworks/`."""
    report = check(misbehaving("none"), only="hostile: ")
    assert report.conforms, report.text()
    (left_out,) = report.of(Verdict.LEFT_OUT)
    assert "idle_timeout" in left_out.reason


@needs_signals
def test_a_server_that_runs_already() -> None:
    """It is told from others by its configuration, and nothing is left out without a reason."""
    command = [*misbehaving("none").command, "--config", '{"idle_timeout": 0.5, "linger": 0.25}']
    with started(*command) as process:
        port = int(Output(process.stdout).line().rpartition(":")[2])
        config = ServerConfig(idle_timeout=0.5, linger=0.25)
        report = check(Running("localhost", port, config), only="a client that")
    titles = {each.title: each for each in report.outcomes}
    assert titles["a client that says nothing"].verdict is Verdict.PASSED
    assert "idle_timeout" in titles["a client that reads slowly"].reason
    assert "--send-timeout" in titles["a client that never reads"].reason
    assert "linger" in titles["a client that talks on after exit"].reason
    assert not report.of(Verdict.FAILED)
    assert all(each.reason for each in report.of(Verdict.LEFT_OUT))


class NoServer:
    """A target for checks that talk to no server."""

    def obstacle(self, config: object, *, own_process: bool) -> str:  # noqa: ARG002 - a protocol
        return ""

    @contextlib.asynccontextmanager
    async def serving(self, config: object) -> AsyncIterator[Server]:  # noqa: ARG002 - likewise
        yield Server((socket.AF_INET, (HOST, 0)), ServerConfig(), None)


@pytest.mark.parametrize("own_process", [False, True])
@pytest.mark.parametrize(
    ("stalled", "verdict"), [(-math.inf, Verdict.FAILED), (math.inf, Verdict.LEFT_OUT)]
)
async def test_times_that_cannot_be_kept(
    *, own_process: bool, stalled: float, verdict: Verdict, autojump_clock: trio.testing.MockClock
) -> None:
    """After three tries it is the server's fault, unless the kit itself was late."""
    tries = 0

    async def run(server: Server) -> None:
        nonlocal tries
        tries += 1
        raise TooLateError("late")

    runner = _Runner(NoServer())
    runner._stalled = stalled
    await runner.run([Check(topic="t", title="t", rule="S1.1", run=run, own_process=own_process)])
    assert tries == 3
    assert [each.verdict for each in runner.outcomes] == [verdict]


async def test_it_is_tried_again(autojump_clock: trio.testing.MockClock) -> None:
    outcomes = iter([TooLateError("late"), TooLateError("late"), None])

    async def run(server: Server) -> None:
        if outcome := next(outcomes):
            raise outcome

    runner = _Runner(NoServer())
    await runner.run([Check(topic="t", title="t", rule="S1.1", run=run)])
    assert [each.verdict for each in runner.outcomes] == [Verdict.PASSED]


SILENT_CLIENT = "corpus, default: 6,"


def closes(peer: Peer) -> None:
    """Take the connection and close it."""


def hangs(peer: Peer) -> None:
    """Say the first word and no other, until the client has gone."""
    peer.say(WELCOME)
    with contextlib.suppress(ConnectionError):
        peer.hear_rest()


def test_a_server_that_hangs() -> None:
    with scripted(closes, hangs, closes, hangs) as port:
        report = check(Running(HOST, port), only=SILENT_CLIENT)
    (failed,) = report.of(Verdict.FAILED)
    assert (failed.expected, failed.got) == (repr(PROMPT), "nothing in time")


def test_a_server_that_goes_away() -> None:
    """There is one failure for all the checks that could not be made."""

    def serve() -> None:
        listener.accept()[0].close()
        with Peer(listener.accept()[0]) as peer:
            listener.close()
            peer.say(WELCOME)

    with socket.create_server((HOST, 0)) as listener, ThreadPoolExecutor(1) as thread:
        listener.settimeout(PATIENCE)
        played = thread.submit(serve)
        report = check(Running(HOST, listener.getsockname()[1]), only="corpus, default: ")
        played.result()
    (failed,) = report.of(Verdict.FAILED)
    assert "cannot connect" in failed.got
    assert {each.reason for each in report.of(Verdict.LEFT_OUT)} == {"there was no server for it"}


# Nothing to check


@contextlib.contextmanager
def answering(words: bytes) -> Iterator[int]:
    """Run a server that says this to the second client, and closes."""
    with scripted(closes, lambda peer: peer.say(words)) as port:
        yield port


@pytest.mark.parametrize(
    "words", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"Sorry, the server is full.\n"]
)
def test_no_greeter(words: bytes) -> None:
    with answering(words) as port, pytest.raises(TargetError, match="this is no greeter"):
        check(Running(HOST, port))


def test_nothing_listens() -> None:
    port = free_port()
    with pytest.raises(TargetError, match=f"cannot connect to {HOST}, port {port}: "):
        check(Running(HOST, port))


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70, "a\0b"])
def test_no_such_host(host: str) -> None:
    with pytest.raises(TargetError, match="cannot resolve"):
        check(Running(host, 6000))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("print('ready')", "printed b'ready.*not 'listening on ADDRESS:PORT'"),
        ("raise SystemExit('no such option')", "ended with status 1: no such option"),
        ("import sys; sys.stderr.write('\\x1b[31m\\n')", r"ended with status 0: \\x1b\[31m"),
    ],
)
def test_a_command_that_runs_no_server(script: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        check(Started([sys.executable, "-c", script]))


def test_no_such_command() -> None:
    with pytest.raises(TargetError, match="cannot start no-such-command: "):
        check(Started(["no-such-command"]))


# The command


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "localhost",
        "localhost 0",
        "localhost 65536",
        "localhost 6000 --config {",
        "localhost 6000 --tolerance 0",
        "localhost 6000 --start server",
        "--start server --send-timeout 1",
        "--start ''",
    ],
)
def test_wrong_usage(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(shlex.split(arguments))
    assert exit_.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_no_such_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["localhost", "6000", "--only", "no such check"]) == 2
    assert "'no such check'" in capsys.readouterr().err


def test_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--only", "half-close"]) == 0
    assert capsys.readouterr().out == "hostile: a half-close (INTEGRATING.md, The end)\n"


def test_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "damaged.jsonl").write_text('{"transcript": 1}\n{"id": 1, \n', "utf-8")
    monkeypatch.setattr(kit, "read_corpus", partial(read_corpus, tmp_path))
    assert main(["localhost", "6000"]) == 2
    assert f"{tmp_path / 'damaged.jsonl'}, line 2: " in capsys.readouterr().err


def test_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([HOST, str(free_port())]) == 1
    streams = capsys.readouterr()
    assert (streams.out, streams.err.count("\n")) == ("", 1)


@needs_signals
def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    command = shlex.join(misbehaving("none").command)
    assert main(["--start", command, "--only", SILENT_CLIENT]) == 0
    assert capsys.readouterr().out.endswith("2 passed.\n")  # and the end of the process


@needs_signals
def test_ctrl_c() -> None:
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(PATIENCE)
        port = str(listener.getsockname()[1])
        with started(sys.executable, "-m", "tests.conformance", HOST, port) as process:
            with listener.accept()[0], listener.accept()[0]:
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=PATIENCE)
            assert (process.returncode, errors) == (130, b"")
