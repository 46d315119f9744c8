"""`client` as a tool: names in, one greeting a line out, and everything else on standard error."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from greeter_trio._cli.status import ExitStatus
from greeter_trio._net.tls_contexts import server_context
from tests.support import processes, words
from tests.support.certificates import Authority
from tests.support.clocks import SETTLED
from tests.support.commands import errors, run_client_here
from tests.support.peers import Peer, scripted
from tests.support.plays import Step, after, conversation, greets, hears, hears_rest, play, says
from tests.support.processes import COMMAND, HOST, Completed, Output, Process, run_client, started
from tests.support.servers import serving
from tests.support.words import ADA, BOB, GOODBYE, PROMPT, SCRIPTS, WELCOME, hello

if sys.platform == "win32":
    pytest.skip("these tests use signals and a shell", allow_module_level=True)

CLOSED = "the server closed the connection without saying goodbye"
SILENT = "the server did not answer in time"
REFUSED = "the server refused: Sorry, no."
TRY = "? try --tls or --send-proxy)"
WANTS = " (does it want TLS or a PROXY header"
CLOSED_AT_ONCE = f"{WANTS} or does a load balancer on the way have no server{TRY}"
SILENT_AT_ONCE = f"{WANTS} or does a proxy on the way wait for the client to speak first{TRY}"
NO_READING = OSError(errno.EBADF, "Bad file descriptor")
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
DOUBT = "standard input seems to be {}; its names are sent as they are"
ESCAPES, ESCAPES_SHOWN = words.ESCAPES, words.ESCAPES_SHOWN
WELCOMES = says(WELCOME + PROMPT)
REFUSES = says(b"Sorry, no.\n")
WELCOMES_ALONE = says(WELCOME)
GREETS_ADA = play(WELCOMES, greets(b"Ada"), hears(b"Bob\nCleo\n"))
NAMES = ("Ada", "Bob", "Cleo")


async def call(server: Step, *arguments: str, **streams: Any) -> Completed:
    """Run the client while this server is there."""
    async with scripted(server) as port:
        return await run_client_here("--port", f"{port}", *arguments, **streams)


def assert_greeted(done: Completed, *names: bytes | str) -> None:
    assert (errors(done), done.returncode) == ([], 0)
    assert done.stdout == b"".join(map(hello, names))


FIELDS = ["name", "greeting", "peer", "tls", "connect_ms", "first_byte_ms", "greeting_ms"]


def objects(done: Completed) -> list[dict[str, Any]]:
    """Return the objects that --json has printed, of which each must have all fields."""
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for each in found:
        assert list(each) == (FIELDS if each["greeting"] else [*FIELDS, "error"])
        assert each["greeting"] in (None, f"Hello {each['name']}!")
    return found


def outcomes(done: Completed) -> list[tuple[str | None, str | None]]:
    """Return the names in these objects, with the messages of their errors."""
    return [(each["name"], each.get("error", {}).get("message")) for each in objects(done)]


def errors_in(done: Completed) -> set[tuple[str, str | None]]:
    """Return the codes and stages of the errors in these objects."""
    found = [each["error"] for each in objects(done) if "error" in each]
    assert all(list(each) == ["code", "stage", "message"] for each in found)
    return {(each["code"], each["stage"]) for each in found}


@pytest.mark.parametrize(
    ("arguments", "stdin", "names"),
    [
        (["Ada", "Grace Hopper", "Ada", *SCRIPTS], b"x", ["Ada", "Grace Hopper", "Ada", *SCRIPTS]),
        (["Ada", "exit"], b"", ["Ada"]),
        (["exit"], b"", []),
        ([], b"", []),
        ([], "\n".join(["Ada", *SCRIPTS, ""]).encode(), ["Ada", *SCRIPTS]),
        ([], b"\n\nAda\r\n\r\n\nBob\r\n\nCleo", ["Ada", "Bob", "Cleo"]),
        ([], b"Ada\nBob\nexit\nCleo\n", ["Ada", "Bob"]),
        ([], b"%b\n%b\r\n%b" % (3 * (1024 * b"x",)), 3 * ["x" * 1024]),
    ],
    ids=["names", "exit", "only exit", "nothing", "lines", "CR LF", "line exit", "long"],
)
async def test_names_are_greeted(arguments: list[str], stdin: bytes, names: list[str]) -> None:
    reads: list[int] = []
    done = await call(conversation(*names), *arguments, stdin=stdin, read=reads.append)
    assert_greeted(done, *names)
    assert bool(reads) == (not arguments)  # what is on standard input may be for another program


async def test_output_is_waited_for() -> None:
    """While no greeting can be printed no more names are read; later all are printed, in order.

    Reads cut lines, and writes take less than they are given.
    """
    names = [b"%07d" % number for number in range(80_000)]
    writing, released = trio.Event(), threading.Event()
    reads: list[int] = []
    token = trio.lowlevel.current_trio_token()

    def write(_: bytes) -> None:
        token.run_sync_soon(writing.set)
        assert released.wait(processes.PATIENCE)

    async def run() -> None:
        port, stdin = f"{server.port}", b"\n".join(names)
        done = await run_client_here("--port", port, stdin=stdin, read=reads.append, write=write)
        assert_greeted(done, *names)

    async with serving() as server, trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await writing.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert reads == [262144]
        released.set()
    assert len(reads) > 2


async def test_strange_names() -> None:
    """Names are sent as they are, byte for byte, and shown so that no terminal obeys them."""
    names = {
        ESCAPES.encode(): ESCAPES_SHOWN,
        b"a\0b": r"a\x00b",
        b"\xff\xfe": "\ufffd\ufffd",
        b"Zo\xeb": "Zo\ufffd",
        "other\u2028line\x85ends".encode(): r"other\u2028line\x85ends",
    }
    done = await call(conversation(*names), stdin=b"\n".join(names))
    assert done.stdout == b"".join(map(hello, names.values()))
    assert (errors(done), done.returncode) == ([DOUBT.format("UTF-16, or no text at all")], 0)


@pytest.mark.parametrize(
    ("stdin", "doubt", "names"),
    [
        (b"\xef\xbb\xbfAda\n", "", ["Ada"]),  # as Windows writes UTF-8
        ("Ada\n小明".encode("utf-16"), "UTF-16", None),
        ("Ada\n小明".encode("utf-16-le"), "UTF-16, or no text at all", None),
        ("Zoë\n".encode("latin-1"), "in another encoding than UTF-8", [b"Zo\xeb"]),
        ("小明\n".encode("gb18030"), "in another encoding than UTF-8", None),
        ("小明".encode() * 150, "", ["小明" * 150]),
    ],
    ids=["BOM", "UTF-16", "UTF-16 without BOM", "Latin-1", "GB 18030", "UTF-8"],
)
async def test_encodings(stdin: bytes, doubt: str, names: list[str | bytes] | None) -> None:
    """What is no UTF-8 is sent as it is; one line says what the file seems to be."""
    asked = names or [name for name in stdin.split(b"\n") if name]
    done = await call(conversation(*asked), stdin=stdin)
    assert errors(done) == ([DOUBT.format(doubt)] if doubt else [])
    assert done.returncode == 0


async def test_tls_and_a_proxy_header(authority: Authority) -> None:
    context = server_context(authority.issue(HOST), None, authority.path)
    files = ("--tls", "--ca", authority.path, "--cert", authority.issue("client.example"))
    async with serving(ssl_context=context, proxy_protocol=True) as server:
        port = ("--port", f"{server.port}", "--send-proxy", "v2")
        done = await run_client_here(*port, *files, "--json", "Ada")
    assert b'"greeting": "Hello Ada!", ' in done.stdout
    assert b', "tls": "TLSv1.3", ' in done.stdout


async def test_retry_until_a_welcome(autojump_clock: trio.testing.MockClock) -> None:
    """What happens before the welcome is forgotten; no name is read until then."""
    autojump_clock.autojump_threshold = SETTLED
    reads: list[int] = []
    plays = iter([REFUSES, says(), conversation("Ada")])

    async def server(peer: Peer) -> None:
        assert reads == []
        await next(plays)(peer)

    done = await call(server, "--retry-for", "20", stdin=b"Ada\n", read=reads.append)
    assert_greeted(done, "Ada")


LOST = ("connection_lost", 6)
FAILURES: dict[str, tuple[Step, int, tuple[str, int], str, str]] = {
    # what the server does, how many names it greets; what the client tells
    "closes at once": (says(), 0, LOST, "welcome", CLOSED + CLOSED_AT_ONCE),
    "closes": (GREETS_ADA, 1, LOST, "greeting", CLOSED),
    "closes before it asks": (WELCOMES_ALONE, 0, LOST, "prompt", CLOSED),
    "closes at last": (
        play(GREETS_ADA, says(BOB, PROMPT, hello("Cleo"))),
        *(3, LOST, "goodbye", CLOSED),
    ),
    "refuses": (play(GREETS_ADA, REFUSES), 1, ("refused", 8), "greeting", REFUSED),
    "shuts down": (
        play(GREETS_ADA, says(BOB + PROMPT + GOODBYE)),
        *(2, ("refused", 8), "greeting", "the server said goodbye before it was asked to"),
    ),
    "is none": (
        says(ESCAPES.encode()),
        *(0, ("no_greeter", 7), "welcome"),
        f'the server is no greeter: it said "{ESCAPES_SHOWN}" and not "Welcome!"',
    ),
    "never speaks": (hears_rest(), 0, ("timed_out", 3), "welcome", SILENT + SILENT_AT_ONCE),
    "is stuck": (
        play(WELCOMES_ALONE, hears_rest()),
        *(0, ("timed_out", 3), "prompt", SILENT),
    ),
    "falls silent": (play(GREETS_ADA, hears_rest()), 1, ("timed_out", 3), "greeting", SILENT),
    "greets another": (
        play(WELCOMES, hears(b"Ada\n"), says(BOB)),
        *(0, ("no_greeter", 7), "greeting"),
        'the server is no greeter: it said "Hello Bob!\\x0a" and not "Hello Ada!"',
    ),
}


async def test_a_server_that_falls_silent_after_its_welcome(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It was reached, so every name on standard input has its line."""
    autojump_clock.autojump_threshold = SETTLED
    server = play(says(WELCOME), hears_rest())
    done = await call(server, "--json", "--retry-for", "60", stdin=b"Ada\nBob\n")
    unread = "what came after that on standard input, if anything, was not asked"
    assert errors(done) == [SILENT, "not greeted: Ada", "not greeted: Bob", unread]
    assert [each["name"] for each in objects(done)] == ["Ada", "Bob"]
    assert done.returncode == 3


@pytest.mark.parametrize(
    ("server", "number", "end", "stage", "said"), FAILURES.values(), ids=FAILURES
)
async def test_failures(  # noqa: PLR0917 - pytest names them
    server: Step,
    number: int,
    end: tuple[str, int],
    stage: str,
    said: str,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What was greeted is printed; why it ended is reported, and with it every other name."""
    autojump_clock.autojump_threshold = SETTLED
    code, status = end
    done = await call(server, *NAMES)
    assert errors(done) == [said, *(f"not greeted: {name}" for name in NAMES[number:])]
    assert (done.stdout, done.returncode) == (b"".join(map(hello, NAMES[:number])), status)
    as_json = await call(server, "--json", *NAMES)
    assert (errors(as_json), as_json.returncode) == (errors(done), status)
    expected: list[tuple[str | None, str | None]]
    expected = [(name, said if name in NAMES[number:] else None) for name in NAMES]
    # A failure to which no name belongs has an object of its own.
    expected += [(None, said)] * (number == len(NAMES))
    assert outcomes(as_json) == expected
    assert errors_in(as_json) == {(code, stage)}
    for each in objects(as_json)[number:]:
        assert None not in (each["peer"], each["connect_ms"])
        assert (each["first_byte_ms"] is None) == (WANTS in said)
        assert each["greeting_ms"] is None


async def test_input_after_a_failure() -> None:
    """Of standard input, only the names that were read are reported one by one."""
    server = play(WELCOMES, hears(b"Ada\n"), REFUSES)
    done = await call(server, stdin=f"Ada\n{ESCAPES}\n".encode())
    names = ["not greeted: Ada", f"not greeted: {ESCAPES_SHOWN}"]
    rest = "what came after that on standard input, if anything, was not asked"
    assert errors(done) == [REFUSED, *names, rest]


@pytest.mark.parametrize(
    ("server", "arguments", "said", "status"),
    [
        (conversation("Ada", "Bob"), [], [], 1),
        (REFUSES, ["--json", "Ada"], [REFUSED, "not greeted: Ada"], 8),
    ],
    ids=["greetings", "JSON"],
)
async def test_output_breaks(
    server: Step, arguments: list[str], said: list[str], status: int
) -> None:
    """The first failure decides the exit status."""
    done = await call(server, *arguments, stdin=b"Ada\nBob", write=NO_SPACE)
    assert errors(done) == [*said, "cannot write to standard output: No space left on device"]
    assert done.returncode == status


async def test_json(autojump_clock: trio.testing.MockClock) -> None:
    """Each line is an object with the name, its greeting, and what was measured."""
    autojump_clock.autojump_threshold = SETTLED
    names = ["Ada", 'Robert "Bobby" Tables', "\\n", ESCAPES, *SCRIPTS]
    first, *rest = [name.encode() for name in names]
    slowly = play(after(1), WELCOMES, hears(first + b"\n"), after(2), says(ADA + PROMPT))
    goodbye = play(hears(b"exit\n"), says(GOODBYE))
    server = play(slowly, greets(*rest), goodbye)
    done = await call(server, "--json", stdin="\n".join(names).encode())
    assert (errors(done), done.returncode) == ([], 0)
    assert outcomes(done) == [(name, None) for name in names]
    for each in objects(done):
        assert each["peer"].startswith(f"{HOST}:")
        assert (each["connect_ms"], each["first_byte_ms"]) == (0, 1000)
    assert objects(done)[0]["greeting_ms"] == 2000  # since it was sent


async def test_waiting_to_be_asked_is_not_in_the_time_of_a_greeting(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each name goes out at its own PROMPT while it is not known whether lines are understood."""
    autojump_clock.autojump_threshold = SETTLED
    raw = hello("Ada\n") + PROMPT
    server = play(
        *(after(1), says(WELCOME), after(3), says(PROMPT), hears(b"Ada\n"), after(2), says(raw)),
        *(hears(b"Bob"), after(4), says(BOB), after(7), says(PROMPT)),
        *(hears(b"exit"), says(GOODBYE)),
    )
    done = await call(server, "--json", "Ada", "Bob")
    assert [each["greeting_ms"] for each in objects(done)] == [2000, 4000]


@pytest.mark.parametrize(
    ("server", "stdin", "message", "error"),
    [
        (REFUSES, b"Ada\n", REFUSED, ("refused", "welcome")),  # which was not read
        (play(WELCOMES, hears(b"exit\n")), b"", CLOSED, ("connection_lost", "goodbye")),
        (
            conversation(),
            NO_READING,
            "cannot read standard input: Bad file descriptor",
            ("failed", None),
        ),
        (conversation(), b"", None, None),
    ],
    ids=["no welcome", "no name", "no input", "no failure"],
)
async def test_json_without_names(
    server: Step,
    stdin: bytes | OSError,
    message: str | None,
    error: tuple[str, str | None] | None,
) -> None:
    """A failure to which no name belongs has an object of its own."""
    done = await call(server, "--json", stdin=stdin)
    assert errors(done) == ([message] if message else [])
    assert errors_in(done) == ({error} if error else set())
    assert done.returncode == (ExitStatus[error[0].upper()] if error else 0)
    assert outcomes(done) == ([(None, message)] if message else [])


@pytest.mark.parametrize(
    ("arguments", "names"),
    [(["Ada", "Bob", "exit"], ["Ada", "Bob"]), (["exit"], [None]), ([], [None])],
    ids=["names", "exit", "input"],
)
async def test_json_without_a_server(arguments: list[str], names: list[str | None]) -> None:
    """Without a connection no name was asked; each NAME has an object, or the failure has one."""
    port = f"{processes.free_port()}"
    done = await run_client_here("--port", port, "--json", *arguments, stdin=b"Grace\n")
    (message,) = errors(done)
    assert (outcomes(done), done.returncode) == ([(name, message) for name in names], 4)
    assert errors_in(done) == {("cannot_connect", "connect")}
    assert all(each[field] is None for each in objects(done) for field in FIELDS[1:])


async def test_lines_that_are_no_names() -> None:
    """They are reported with their numbers, where they stand among the others."""
    lines = ["Ada", "", "x" * 1025, "x" * 200_000, "小" * 342, "\udcff\rBob", "Bob", "x" * 1025]
    stdin = "\n".join(lines).encode(errors="surrogateescape")
    done = await call(conversation("Ada", "Bob"), stdin=stdin)
    assert (done.stdout, done.returncode) == (ADA + BOB, 1)
    said = errors(done)
    heads = [line.partition(" is left out: a name ")[0] for line in said]
    assert heads == ["line 3", "line 4", "line 5", "line 6", "line 8"]
    assert "1024" in said[0]
    assert "CR" in said[3]
    done = await call(conversation("Ada", "Bob"), "--json", stdin=stdin)
    assert [error for _, error in outcomes(done)] == [None, *said[:4], None, said[4]]
    assert [name for name, _ in outcomes(done)][4:] == ["\ufffd\rBob", "Bob", "x" * 1025]


# Processes


@contextlib.contextmanager
def talking(port: int, command: tuple[str, ...] = COMMAND) -> Iterator[tuple[Process, Output]]:
    """Start the tool with a pipe for its names; yield it with its output."""
    with started(*command, "client", "--port", f"{port}", stdin=subprocess.PIPE) as process:
        yield process, Output(process.stdout)


def tell(process: Process, name: str | None) -> None:
    """Write a name to its standard input; None closes that."""
    assert process.stdin
    process.stdin.write(f"{name}\n".encode()) if name else process.stdin.close()


def outcome(process: Process) -> tuple[int, bytes]:
    """Wait for its end, and return its exit status and what it has said on standard error."""
    assert process.stderr
    return process.wait(processes.PATIENCE), process.stderr.read()


def test_names_that_come_one_by_one(port: int) -> None:
    """Each greeting is printed before the next name is there, and not only at the end."""
    with talking(port) as (process, output):
        for name in NAMES:
            tell(process, name)
            assert output.line() == f"Hello {name}!"
        tell(process, None)
        assert (outcome(process), output.rest()) == ((0, b""), b"")


@pytest.mark.parametrize("last", [b"", GOODBYE], ids=["end", "goodbye"])
def test_server_that_goes_while_no_name_is_there(last: bytes) -> None:
    """The tool notices that the server has gone while it waits for names itself."""
    words = ADA + PROMPT + last
    server = processes.scripted(lambda peer: peer.say(WELCOME + PROMPT).hear(b"Ada\n").say(words))
    with server as port, talking(port) as (process, output):
        tell(process, "Ada")
        status, said = outcome(process)
        assert (status, said.count(b"\n"), output.rest()) == (8 if last else 6, 1, ADA)


def test_nothing_leaks(port: int) -> None:
    """Python's development mode reports what is not closed."""
    env = processes.environment(PYTHONDEVMODE="1")
    assert_greeted(run_client(port, stdin=b"Ada", env=env), "Ada")
    with processes.scripted(processes.Peer.hear_rest) as silent:
        done = run_client(silent, "--timeout", "0.1", "Ada", env=env)
    assert errors(done) == [SILENT + SILENT_AT_ONCE, "not greeted: Ada"]


def test_locale_without_utf8(port: int) -> None:
    """Where output cannot show a name it shows escapes; the name itself is sent as it is."""
    env = processes.environment(LANG="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    done = run_client(port, "小明", env=env)
    assert (done.stdout, done.stderr) == (rb"Hello \u5c0f\u660e!" + b"\n", b"")


# Signals end the tool without a word; the exit status tells which one


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"])
def test_signal_while_it_waits_for_names(port: int, name: str) -> None:
    with talking(port) as (process, output):
        tell(process, "Ada")
        output.expect(ADA)
        process.send_signal(signal.Signals[name])
        assert outcome(process) == (128 + signal.Signals[name], b"")


def test_signal_while_it_waits_for_the_server() -> None:
    def server(peer: processes.Peer) -> None:
        peer.say(WELCOME + PROMPT).hear(b"Ada\n")
        process.send_signal(signal.SIGINT)
        peer.hear_rest()

    with processes.scripted(server) as port, talking(port) as (process, _):
        tell(process, "Ada")
        assert outcome(process) == (130, b"")


@pytest.fixture
def unread(port: int, tmp_path: Path) -> Iterator[Process]:
    """Return a tool with more greetings than its output has room for; one of them was read."""
    path = tmp_path / "names"
    path.write_bytes(b"".join(b"%07d\n" % number for number in range(20_000)))
    with (
        path.open("rb") as names,
        started(*COMMAND, "client", "--port", f"{port}", stdin=names) as process,
    ):
        assert process.stdout
        assert process.stdout.readline() == hello("0000000")
        yield process


def test_signal_while_it_waits_for_its_reader(unread: Process) -> None:
    unread.terminate()
    assert outcome(unread) == (143, b"")


def test_reader_leaves(unread: Process) -> None:
    """As `head` does."""
    assert unread.stdout
    unread.stdout.close()
    assert outcome(unread) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize("pair", [("SIGINT", "SIGTERM"), ("SIGHUP", "SIGINT")], ids=" ".join)
def test_two_signals_at_once(port: int, pair: tuple[str, str]) -> None:
    """One of them ends it, and the other one is ignored."""
    if sys.platform == "darwin":
        pytest.skip("Python has no waitid there before 3.13")
    numbers = [signal.Signals[name] for name in pair]
    with talking(port) as (process, output):
        tell(process, "Ada")
        output.expect(ADA)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        for number in (*numbers, signal.SIGCONT):
            process.send_signal(number)
        assert outcome(process) in [(128 + number, b"") for number in numbers]


def test_hangup_ignored(port: int) -> None:
    """Under `nohup` the tool goes on when the terminal is gone."""
    command = processes.in_shell("trap '' HUP; exec \"$@\"")
    with talking(port, command) as (process, output):
        for name in ("Ada", "Bob"):
            tell(process, name)
            output.expect(hello(name))
            process.send_signal(signal.SIGHUP)
        tell(process, None)
        assert process.wait(processes.PATIENCE) == 0
