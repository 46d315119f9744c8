"""`client` as a tool: names in, one greeting a line out, and everything else on standard error."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TypeAlias

import pytest

from tests.cli.helpers import (
    COMMAND,
    ESCAPES,
    ESCAPES_SHOWN,
    GOODBYE,
    HOST,
    LESS_THAN_DEFAULT,
    PATIENCE,
    PROMPT,
    SCRIPTS,
    WELCOME,
    Completed,
    Output,
    Peer,
    assert_complaints,
    assert_one_complaint,
    environment,
    free_port,
    hello,
    in_shell,
    run,
    run_client,
    scripted,
    started,
)

if sys.platform == "win32":
    pytest.skip("these tests use signals and a shell", allow_module_level=True)

Talk: TypeAlias = "tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes], IO[bytes]]"


def assert_greeted(done: Completed, *names: bytes | str) -> None:
    """Check that the tool has printed these greetings and nothing else, and ended well."""
    assert done.stderr == b""
    assert done.stdout == b"".join(map(hello, names))
    assert done.returncode == 0


def greet(peer: Peer, *names: bytes | str) -> None:
    """Welcome a client and greet these names, which must come as lines."""
    peer.say(WELCOME + PROMPT)
    for name in names:
        peer.hear((name.encode() if isinstance(name, str) else name) + b"\n")
        peer.say(hello(name) + PROMPT)


def greet_and_part(peer: Peer, *names: bytes | str) -> None:
    """Welcome a client, greet these names, and then it must say exit."""
    greet(peer, *names)
    peer.hear(b"exit\n")
    peer.say(GOODBYE)


@contextmanager
def talking(port: int, command: tuple[str, ...] = COMMAND) -> Iterator[Talk]:
    """Start the tool, and yield the process, its input, its output and its complaints."""
    with started(*command, "client", "--port", str(port), stdin=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        yield process, process.stdin, process.stdout, process.stderr


# Where names come from


def test_arguments(port: int) -> None:
    """NAMEs are greeted in order, one greeting a line, and that is all there is on standard output."""
    assert_greeted(
        run_client(port, "Ada", "Grace Hopper", "Ada", *SCRIPTS),
        "Ada",
        "Grace Hopper",
        "Ada",
        *SCRIPTS,
    )


def test_pipe(port: int) -> None:
    """Piped lines are names."""
    assert_greeted(
        run_client(port, stdin="\n".join(["Ada", *SCRIPTS, ""]).encode()), "Ada", *SCRIPTS
    )


def test_file(port: int, tmp_path: Path) -> None:
    """The lines of a file are names."""
    (tmp_path / "names.txt").write_text("Ada\nBob\n")
    env = environment(NAMES=str(tmp_path / "names.txt"))
    assert_greeted(run_client(port, command=in_shell('exec "$@" <"$NAMES"'), env=env), "Ada", "Bob")


@pytest.mark.parametrize(
    "lines",
    [b"Ada\nBob", b"\n\nAda\r\n\r\n\nBob\r\n\n", b"Ada\nBob\nexit\nCleo\n"],
    ids=["no LF at the end", "CR LF and empty lines", "exit"],
)
def test_lines(lines: bytes) -> None:
    """CR LF ends a line, too; empty lines are skipped; `exit` ends the input; the rest of it is not even sent."""
    sent = []

    def server(peer: Peer) -> None:
        greet_and_part(peer, "Ada", "Bob")
        sent.append(peer.hear_rest())

    with scripted(server) as port:
        assert_greeted(run_client(port, stdin=lines), "Ada", "Bob")
    assert sent == [b""]


@pytest.mark.parametrize("source", ["</dev/null", "exit"])
def test_no_names(source: str) -> None:
    """With no names at all the tool connects, says exit, prints nothing, and ends well."""
    with scripted(greet_and_part) as port:
        assert_greeted(run_client(port, command=in_shell(f'exec "$@" {source}')))


def test_exit_may_be_the_last_argument(port: int) -> None:
    """`exit` as the last NAME ends the conversation, as it would anyway."""
    assert_greeted(run_client(port, "Ada", "exit"), "Ada")


def test_name_that_begins_with_a_dash(port: int) -> None:
    """After `--` a NAME may begin with a dash."""
    assert_greeted(run_client(port, "--", "-x-", "--help"), "-x-", "--help")


def test_arguments_leave_standard_input_alone(port: int, tmp_path: Path) -> None:
    """With NAMEs the tool does not read what is meant for somebody else."""
    (tmp_path / "file").write_text("not a name\n")
    with (
        (tmp_path / "file").open("rb", buffering=0) as file,
        started(*COMMAND, "client", "--port", str(port), "Ada", stdin=file) as process,
    ):
        assert process.wait(PATIENCE) == 0
        assert process.stdout
        assert process.stdout.read() == hello("Ada")
        assert file.tell() == 0  # the process has shared this position


def test_names_that_come_one_by_one(port: int) -> None:
    """Each greeting is printed at once: before the next name is there, and not only at the end."""
    with talking(port) as (process, names, output, complaints):
        heard = Output(output.fileno())
        for name in ("Ada", "Bob", "Cleo"):
            names.write(f"{name}\n".encode())
            assert heard.line() == f"Hello {name}!"
        names.close()
        assert heard.rest() == b""
        assert process.wait(PATIENCE) == 0
        assert complaints.read() == b""


def test_many_names(port: int) -> None:
    """A hundred thousand names through a pipe are all greeted, in order."""
    names = [b"name %d" % i for i in range(100_000)]
    assert_greeted(run_client(port, stdin=b"\n".join(names)), *names)


@pytest.mark.parametrize("framing", ["auto", "lines", "raw"])
def test_framing(port: int, framing: str) -> None:
    """With every --framing our server understands the tool."""
    assert_greeted(
        run_client(port, "--framing", framing, "Ada", "Bob", "Grace Hopper"),
        "Ada",
        "Bob",
        "Grace Hopper",
    )


def test_nothing_leaks(port: int) -> None:
    """In Python's development mode, which reports what is not closed, the tool says nothing more than ever."""
    env = environment(PYTHONDEVMODE="1")
    assert_greeted(run_client(port, stdin=b"Ada", env=env), "Ada")
    with scripted(Peer.hear_rest) as silent:
        done = run_client(silent, "--timeout", "0.3", "Ada", env=env)
        assert_complaints(done, 3, ("did not answer",), ("not greeted: Ada",))


# What the greetings look like


def test_json(port: int) -> None:
    """With --json each line is an object with the name, its greeting and what was measured, whatever the name."""
    names = ["Ada", 'Robert "Bobby" Tables', "\\n", ESCAPES, *SCRIPTS]
    done = run_client(port, "--json", stdin="\n".join(names).encode())
    assert (done.stderr, done.returncode) == (b"", 0)
    assert done.stdout.endswith(b"\n")
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(each["name"], each["greeting"]) for each in objects] == [
        (name, f"Hello {name}!") for name in names
    ]
    for each in objects:
        assert (each["peer"], each["tls"]) == (f"{HOST}:{port}", None)
        assert min(each["connect_ms"], each["first_byte_ms"], each["greeting_ms"]) >= 0
        assert "error" not in each


def test_strange_names() -> None:
    """Strange names are sent as they are, byte for byte, and shown so that no terminal obeys them."""
    names = {
        ESCAPES.encode(): ESCAPES_SHOWN,
        b"a\0b": r"a\x00b",
        b"\xff\xfe": "\ufffd\ufffd",
        b"Zo\xeb": "Zo\ufffd",
        "other\u2028line\x85ends".encode(): r"other\u2028line\x85ends",
    }
    with scripted(lambda peer: greet_and_part(peer, *names)) as port:
        assert_greeted(run_client(port, stdin=b"\n".join(names)), *names.values())


@pytest.mark.parametrize(
    "more",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LANG": "C"},
        {"LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=["ASCII output", "LANG=C", "no UTF-8 at all"],
)
def test_output_that_cannot_show_the_name(port: int, more: dict[str, str]) -> None:
    """Where output cannot show a name it shows escapes; the name itself is sent as it is."""
    env = environment(**more)
    done = run_client(port, "小明", "Ada", env=env)
    assert (done.stderr, done.returncode) == (b"", 0)
    assert done.stdout.decode() in (
        "Hello 小明!\nHello Ada!\n",
        "Hello \\u5c0f\\u660e!\nHello Ada!\n",
    )


# Names that are none


def test_lines_that_are_no_names(port: int) -> None:
    """Lines that cannot be names are reported with their numbers and left out; the others are greeted; status 1."""
    lines = ["Ada", "", "x" * 1025, "x" * 200_000, "小" * 342, "Ada\rBob", "Bob"]
    done = run_client(port, stdin="\n".join(lines).encode())
    assert_complaints(
        done, 1, ("line 3", "1024"), ("line 4", "1024"), ("line 5", "1024"), ("line 6", "CR")
    )
    assert done.stdout == hello("Ada") + hello("Bob")


def test_last_line_that_is_no_name(port: int) -> None:
    """The last line is no exception if it has no LF."""
    done = run_client(port, stdin=b"Ada\n" + b"x" * 1025)
    assert_one_complaint(done, 1, "line 2", "1024")
    assert done.stdout == hello("Ada")


def test_longest_lines(port: int) -> None:
    """A line of 1024 bytes is a name, with LF, with CR LF and at the end."""
    name = b"x" * 1024
    assert_greeted(run_client(port, stdin=name + b"\n" + name + b"\r\n" + name), name, name, name)


@pytest.mark.parametrize(
    ("name", "problem"), [("x" * 1025, "1024"), ("", "empty"), ("Ada\nBob", "LF")]
)
def test_argument_that_is_no_name(name: str, problem: str) -> None:
    """A NAME that cannot be one is wrong usage, and nothing is connected to."""
    assert_wrong_usage(run("client", "Ada", name), "NAME", problem)


def test_arguments_after_exit() -> None:
    """NAMEs after `exit` are wrong usage, because they could not be greeted."""
    assert_wrong_usage(run("client", "exit", "Ada"), "exit", "NAME")


def assert_wrong_usage(done: Completed, *parts: str) -> None:
    """Check that the last line says what is wrong, after how the client is used; exit status 2."""
    assert done.returncode == 2
    assert done.stdout == b""
    usage, *_, last = done.stderr.decode().splitlines()
    assert usage.startswith("usage: python -m greeter_trio client ")
    assert last.startswith("python -m greeter_trio client: error: ")
    for part in parts:
        assert part in last


# Standard streams


NAMES = b"".join(b"%07d\n" % i for i in range(1_000_000))


@contextmanager
def deaf_reader(port: int) -> Iterator[tuple["subprocess.Popen[bytes]", int, bytes]]:
    """Run the tool with output that nobody reads, and feed it names until it takes no more.

    Yield the process, the other end of its output, and what it was fed.
    """
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as output, ExitStack() as stack:
        try:
            process = stack.enter_context(
                started(
                    *COMMAND, "client", "--port", str(port), stdin=subprocess.PIPE, stdout=writer
                )
            )
        finally:
            os.close(writer)
        names = process.stdin
        assert names
        os.set_blocking(names.fileno(), False)
        fed = names.write(NAMES[:8]) or 0
        assert select.select([output], [], [], PATIENCE)[0]  # it prints
        while fed < len(NAMES) and select.select([], [names], [], 0.5)[1]:
            fed += names.write(NAMES[fed : fed + 65536]) or 0
        yield process, output.fileno(), NAMES[:fed]


def test_output_that_is_read_late(port: int) -> None:
    """While nobody reads the greetings the tool takes in few names; later all are printed, in order."""
    with deaf_reader(port) as (process, output, fed):
        assert len(fed) < 1_000_000
        assert process.stdin
        process.stdin.close()
        assert Output(output).rest() == b"".join(map(hello, fed.split()))
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_while_nobody_reads_the_output(port: int, number: int, status: int) -> None:
    """A signal ends the tool also while it waits for somebody to read what it prints."""
    with deaf_reader(port) as (process, _, _):
        process.send_signal(number)
        assert process.wait(PATIENCE) == status
        assert process.stderr
        assert process.stderr.read() == b""


def test_output_closed_early(port: int, tmp_path: Path) -> None:
    """When the reader of the output leaves, as `head` does, that is one line and exit status 1."""
    (tmp_path / "names.txt").write_bytes(NAMES)
    with (
        (tmp_path / "names.txt").open("rb") as names,
        started(*COMMAND, "client", "--port", str(port), stdin=names) as process,
    ):
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"Hello 0000000!\n"
        process.stdout.close()
        assert process.wait(PATIENCE) == 1
        assert process.stderr.read() == b"greeter: cannot write to standard output: Broken pipe\n"


def test_head(port: int, tmp_path: Path) -> None:
    """`client < names | head -n 3` shows three greetings and one line of complaint, and ends."""
    (tmp_path / "names.txt").write_bytes(NAMES)
    with (
        (tmp_path / "names.txt").open("rb") as names,
        started(*COMMAND, "client", "--port", str(port), stdin=names) as process,
        started("head", "-n", "3", stdin=process.stdout) as head,
    ):
        assert process.stdout
        process.stdout.close()
        assert head.wait(PATIENCE) == 0
        assert process.wait(PATIENCE) == 1
        assert head.stdout
        assert head.stdout.read() == b"".join(map(hello, ["0000000", "0000001", "0000002"]))
        assert process.stderr
        assert process.stderr.read() == b"greeter: cannot write to standard output: Broken pipe\n"


@pytest.mark.parametrize("arguments", [("Ada",), ()], ids=["arguments", "pipe"])
def test_output_is_full(port: int, arguments: tuple[str, ...]) -> None:
    """Greetings that cannot be written are one line that says why, and exit status 1."""
    if not os.path.exists("/dev/full"):  # noqa: PTH110 - it is no file
        pytest.skip("this machine has no /dev/full")
    done = run_client(port, *arguments, stdin=b"Ada\nBob", command=in_shell('exec "$@" >/dev/full'))
    assert_one_complaint(done, 1, "cannot write to standard output: No space left on device")


def test_output_closed(port: int) -> None:
    """Without standard output there is nothing that the tool could do: one line, exit status 1."""
    assert_one_complaint(
        run_client(port, "Ada", command=in_shell('exec "$@" >&-')), 1, "standard output is closed"
    )


def test_input_closed(port: int) -> None:
    """Without standard input NAMEs are greeted; without them, too, it is wrong usage."""
    command = in_shell('exec "$@" <&-')
    assert_greeted(run_client(port, "Ada", command=command), "Ada")
    assert_wrong_usage(run_client(port, command=command), "standard input is closed")


def test_input_that_cannot_be_read(port: int) -> None:
    """Standard input that is open for writing only is one line that says why, and exit status 1."""
    done = run_client(port, command=in_shell('exec "$@" 0>/dev/null'))
    assert_one_complaint(done, 1, "cannot read standard input: Bad file descriptor")


def test_complaints_have_nowhere_to_go(port: int) -> None:
    """Without standard error, greetings are printed and complaints are not, and the exit status is the same."""
    command = in_shell('exec "$@" 2>&-')
    assert_greeted(run_client(port, "Ada", command=command), "Ada")
    done = run_client(free_port(), "Ada", command=command)
    assert (done.stdout, done.returncode) == (b"", 1)


def test_complaints_that_nobody_can_read() -> None:
    """A standard error that breaks does not change the exit status."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with started(
            *COMMAND, "client", "--port", str(free_port()), "Ada", stderr=writer
        ) as process:
            assert process.wait(PATIENCE) == 1
    finally:
        os.close(writer)


# No server


def test_connection_refused() -> None:
    """A port that nobody listens on is one line with address, port and advice; exit status 1."""
    port = free_port()
    done = run_client(port, "Ada")
    assert_one_complaint(
        done,
        1,
        f"cannot connect to 127.0.0.1 port {port}: Connection refused",
        "is the server running",
    )


def test_connection_refused_by_all_addresses() -> None:
    """A host with several addresses, none of which answers, is one line, too."""
    assert_one_complaint(
        run_client(free_port(), "--host", "localhost", "Ada"), 1, "localhost", "Connection refused"
    )


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
def test_no_such_host(host: str) -> None:
    """A host that has no address is one line that names it and the option; exit status 1."""
    done = run_client(6000, "--host", host, "Ada")
    assert_one_complaint(done, 1, f"cannot connect to {host} port 6000: ", "--host")


def test_no_answer_to_connecting() -> None:
    """Connecting takes no longer than --timeout: one line, exit status 3."""
    with socket.create_server((HOST, 0), backlog=0) as listener, ExitStack() as stack:
        for _ in range(8):  # more than have a place
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        done = run_client(port, "--timeout", "0.3", "Ada", patience=LESS_THAN_DEFAULT)
    if b"did not answer" in done.stderr:
        pytest.skip("this machine connects more than it has places for")
    assert_one_complaint(
        done, 3, f"cannot connect to 127.0.0.1 port {port}: no answer within 0.3 s"
    )


# Servers that behave badly


def test_server_that_closes_at_once() -> None:
    """A server that closes at once is reported, and with it every name; exit status 1."""
    with scripted(lambda peer: peer.end()) as port:
        done = run_client(port, "Ada", "Bob")
    assert_complaints(
        done, 1, ("closed the connection",), ("not greeted: Ada",), ("not greeted: Bob",)
    )
    assert done.stdout == b""


def test_server_that_resets() -> None:
    """A connection that breaks is reported, and with it the names that were not greeted; exit status 1."""

    def server(peer: Peer) -> None:
        greet(peer, "Ada")
        peer.hear(b"Bob\n")
        peer.reset()

    with scripted(server) as port:
        done = run_client(port, "Ada", "Bob")
    assert_complaints(done, 1, ("connection to the server was lost",), ("not greeted: Bob",))


def test_server_that_resets_at_once() -> None:
    """A connection that breaks before it is used fails to connect or is lost, whichever comes first; exit status 1."""
    with scripted(Peer.reset) as port:
        done = run_client(port, "Ada")
    assert done.returncode == 1
    assert (done.stdout, done.stderr.count(b"greeter: ")) == (b"", done.stderr.count(b"\n"))
    assert b"Connection reset" in done.stderr or b"connection to the server was lost" in done.stderr


def test_server_that_is_none() -> None:
    """A server that speaks another protocol is quoted, on one line, with what it should have said; exit status 1."""
    with scripted(
        lambda peer: peer.say(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    ) as port:
        done = run_client(port, "Ada")
    assert_complaints(
        done, 1, ("no greeter", "HTTP/1.1 400 Bad Request", "Welcome!"), ("not greeted: Ada",)
    )


def test_server_that_changes_its_mind() -> None:
    """Garbage in the middle is quoted; what was greeted before is printed, the rest is reported; exit status 1."""

    def server(peer: Peer) -> None:
        greet(peer, "Ada")
        peer.hear(b"Bob\nCleo\n")
        peer.say(b"Hello Eve!\n")
        peer.hear_rest()

    with scripted(server) as port:
        done = run_client(port, "Ada", "Bob", "Cleo")
    assert_complaints(
        done,
        1,
        ("no greeter", "Hello Eve!", "Hello Bob!"),
        ("not greeted: Bob",),
        ("not greeted: Cleo",),
    )
    assert done.stdout == hello("Ada")


@pytest.mark.parametrize(
    "words", [ESCAPES + "\r\n", f"Sorry, {ESCAPES}.\n"], ids=["garbage", "refusal"]
)
def test_server_with_terminal_escapes(words: str) -> None:
    """What a server says is quoted so that no terminal obeys it, and so are the names."""

    def server(peer: Peer) -> None:
        peer.say(words.encode())
        peer.hear_rest()

    with scripted(server) as port:
        done = run_client(port, ESCAPES)
    assert_complaints(done, 1, (ESCAPES_SHOWN,), (f"not greeted: {ESCAPES_SHOWN}",))
    assert "".join(done.stderr.decode().splitlines()).isprintable()


def test_server_that_never_speaks() -> None:
    """A server that accepts and says nothing is reported after --timeout; exit status 3."""
    with scripted(Peer.hear_rest) as port:
        done = run_client(port, "--timeout", "0.3", "Ada", patience=LESS_THAN_DEFAULT)
    assert_complaints(done, 3, ("did not answer in time",), ("not greeted: Ada",))


def test_server_that_falls_silent() -> None:
    """A server that stops answering is reported after --timeout, with the names that wait; exit status 3."""

    def server(peer: Peer) -> None:
        greet(peer, "Ada")
        peer.hear_rest()

    with scripted(server) as port:
        done = run_client(port, "--timeout", "1", "Ada", "Bob", "Cleo", patience=LESS_THAN_DEFAULT)
    assert_complaints(
        done, 3, ("did not answer in time",), ("not greeted: Bob",), ("not greeted: Cleo",)
    )
    assert done.stdout == hello("Ada")


def test_server_that_refuses() -> None:
    """A refusal is quoted; what was greeted before it is printed, the rest is reported; exit status 1."""

    def server(peer: Peer) -> None:
        greet(peer, "Ada")
        peer.hear(b"Bob\n")
        peer.say(b"Sorry, no more names today.\n")

    with scripted(server) as port:
        done = run_client(port, "Ada", "Bob")
    assert_complaints(done, 1, ("refused", "Sorry, no more names today."), ("not greeted: Bob",))
    assert done.stdout == hello("Ada")


def test_server_that_says_goodbye_early() -> None:
    """A server that shuts down between two names is reported, with the names it did not greet; exit status 1."""

    def server(peer: Peer) -> None:
        greet(peer, "Ada")
        peer.hear(b"Bob\nCleo\nDora\n")
        peer.say(hello("Bob") + PROMPT + GOODBYE)

    with scripted(server) as port:
        done = run_client(port, "Ada", "Bob", "Cleo", "Dora")
    assert_complaints(done, 1, ("goodbye",), ("not greeted: Cleo",), ("not greeted: Dora",))
    assert done.stdout == hello("Ada") + hello("Bob")


@pytest.mark.parametrize("last", [b"", GOODBYE], ids=["end", "goodbye"])
def test_server_that_goes_while_no_name_is_there(last: bytes) -> None:
    """The tool notices that the server has gone while it waits for names itself; exit status 1."""

    def server(peer: Peer) -> None:
        greet(peer, "Ada")
        peer.say(last)

    with scripted(server) as port, talking(port) as (process, names, output, complaints):
        names.write(b"Ada\n")
        assert process.wait(PATIENCE) == 1
        assert output.read() == hello("Ada")
        assert complaints.read().count(b"\n") == 1


# Signals


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_signal_while_it_waits_for_names(port: int, number: int, status: int) -> None:
    """A signal ends the tool while it waits for names, without a word; the exit status tells which signal."""
    with talking(port) as (process, names, output, complaints):
        names.write(b"Ada\n")
        assert output.readline() == hello("Ada")
        process.send_signal(number)
        assert process.wait(PATIENCE) == status
        assert complaints.read() == b""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_while_it_waits_for_the_server(number: int, status: int) -> None:
    """A signal ends the tool while it waits for an answer, without a word; the exit status tells which signal."""
    with ExitStack() as stack:

        def server(peer: Peer) -> None:
            greet(peer)
            peer.hear(b"Ada\n")
            process.send_signal(number)
            peer.hear_rest()

        port = stack.enter_context(scripted(server))
        process = stack.enter_context(started(*COMMAND, "client", "--port", str(port), "Ada"))
        assert process.stderr
        assert process.wait(PATIENCE) == status
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    "numbers", [(signal.SIGINT, signal.SIGTERM), (signal.SIGHUP, signal.SIGINT)]
)
def test_two_signals_at_once(port: int, numbers: tuple[signal.Signals, ...]) -> None:
    """Two signals that come together end the tool by one or the other, without a word."""
    if sys.platform == "darwin":
        pytest.skip("Python has no waitid there before 3.13")
    with talking(port) as (process, names, output, complaints):
        names.write(b"Ada\n")
        assert output.readline() == hello("Ada")
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        for number in (*numbers, signal.SIGCONT):
            process.send_signal(number)
        assert process.wait(PATIENCE) in [
            *(128 + number for number in numbers),
            *(-number for number in numbers),
        ]
        assert complaints.read() == b""


def test_hangup_ignored(port: int) -> None:
    """Under `nohup` the tool goes on when the terminal is gone."""
    with talking(port, in_shell("trap '' HUP; exec \"$@\"")) as (process, names, output, _):
        for name in ("Ada", "Bob"):
            names.write(f"{name}\n".encode())
            assert output.readline() == hello(name)
            process.send_signal(signal.SIGHUP)
        names.close()
        assert process.wait(PATIENCE) == 0


# Options and environment


def test_environment(port: int) -> None:
    """GREETER_HOST and GREETER_PORT say where the server is."""
    env = environment(GREETER_HOST=HOST, GREETER_PORT=str(port))
    assert_greeted(run("client", "Ada", env=env), "Ada")
    env = environment(GREETER_HOST="no-such-host.invalid", GREETER_PORT="7")
    assert_one_complaint(
        run("client", "Ada", env=env), 1, "no-such-host.invalid port 7", "GREETER_HOST"
    )


def test_options_go_before_the_environment(port: int) -> None:
    """Where an option is given its variable is not looked at, even if it is wrong."""
    env = environment(GREETER_HOST="no-such-host.invalid", GREETER_PORT="http")
    assert_greeted(run_client(port, "--host", HOST, "Ada", env=env), "Ada")


def test_empty_environment(port: int) -> None:
    """A variable that is set but empty counts as unset."""
    assert_greeted(
        run_client(port, "Ada", env=environment(GREETER_HOST="", GREETER_PORT="")), "Ada"
    )


@pytest.mark.parametrize("value", ["0", "65536", "6000.0", "8" * 5000])
def test_wrong_port(value: str) -> None:
    """A --port that is none is named; exit status 2."""
    assert_wrong_usage(run("client", "--port", value, "Ada"), "--port", "1 to 65535", value)


def test_wrong_port_from_the_environment() -> None:
    """A GREETER_PORT that is none is named as that; exit status 2."""
    done = run("client", "Ada", env=environment(GREETER_PORT="٦٠٠٠"))
    assert_wrong_usage(done, "GREETER_PORT", "1 to 65535", "٦٠٠٠")


@pytest.mark.parametrize(
    ("option", "value"), [("--timeout", "0"), ("--timeout", "nan"), ("--framing", "words")]
)
def test_wrong_option(option: str, value: str) -> None:
    """A wrong value is named with its option; exit status 2."""
    assert_wrong_usage(run("client", option, value, "Ada"), option, value)


def test_timeout_may_be_infinite(port: int) -> None:
    """--timeout inf waits for ever, where it has to."""
    assert_greeted(run_client(port, "--timeout", "inf", "Ada"), "Ada")
