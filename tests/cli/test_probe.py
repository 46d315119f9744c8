"""`client` as a probe: how it gets to a server, what it tells about it, and when it tries again."""

import json
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import (
    COMMAND,
    GOODBYE,
    HOST,
    LESS_THAN_DEFAULT,
    PATIENCE,
    PROMPT,
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
    on_terminal,
    run,
    run_client,
    scripted,
    serving,
    started,
)
from tests.trio.certificates import Authority

Script = Callable[[Peer], object]

FIELDS = ["name", "greeting", "peer", "tls", "connect_ms", "first_byte_ms", "greeting_ms"]


def objects(output: bytes) -> list[dict[str, Any]]:
    """Return the objects in what --json has printed, of which each must have all fields."""
    lines = [json.loads(line) for line in output.splitlines()]
    for line in lines:
        assert list(line) == (FIELDS if line["greeting"] else [*FIELDS, "error"])
    return lines


def greetings(output: bytes) -> list[tuple[str | None, str | None]]:
    """Return the names and greetings in what --json has printed."""
    return [(each["name"], each["greeting"]) for each in objects(output)]


def refuse(peer: Peer) -> None:
    """Say that there is no place, as a full server does."""
    peer.say(b"Sorry, the server is full.\n")


def greet(peer: Peer, *names: str) -> None:
    """Welcome a client, and greet these names, which must come as lines."""
    peer.say(WELCOME + PROMPT)
    for name in names:
        peer.hear(name.encode() + b"\n")
        peer.say(hello(name) + PROMPT)


def greet_and_part(peer: Peer, *names: str) -> None:
    """Welcome a client, greet these names, and then it must say exit."""
    greet(peer, *names)
    peer.hear(b"exit\n")
    peer.say(GOODBYE)


def greet_ada(peer: Peer) -> None:
    """Have a conversation in which one name is greeted."""
    greet_and_part(peer, "Ada")


def assert_wrong_usage(done: Completed, *parts: str) -> None:
    """Check that the last line says what is wrong; exit status 2."""
    assert (done.stdout, done.returncode) == (b"", 2)
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("python -m greeter_trio client: error: ")
    for part in parts:
        assert part in last


# JSON


def test_json_of_names_that_are_not_greeted() -> None:
    """When the conversation fails, the names that were not greeted have objects, too, with the reason; in order."""

    def server(peer: Peer) -> None:
        greet(peer, "Ada")
        peer.hear(b"Bob\nCleo\n")

    with scripted(server) as port:
        done = run_client(port, "--json", "Ada", "Bob", "Cleo")
    message = "the server closed the connection without saying goodbye"
    assert_complaints(done, 1, (message,), ("not greeted: Bob",), ("not greeted: Cleo",))
    assert greetings(done.stdout) == [("Ada", "Hello Ada!"), ("Bob", None), ("Cleo", None)]
    for each in objects(done.stdout)[1:]:
        assert each["error"] == message
        assert each["peer"] == f"{HOST}:{port}"
        assert each["first_byte_ms"] is not None
        assert each["greeting_ms"] is None


def test_json_of_lines_that_are_no_names(port: int) -> None:
    """A line that cannot be a name has its object where it stands among the others."""
    done = run_client(port, "--json", stdin=b"a\rb\nAda\n\nc\rd\nBob\ne\rf")
    assert_complaints(done, 1, ("line 1",), ("line 4",), ("line 6",))
    assert greetings(done.stdout) == [
        ("a\rb", None),
        ("Ada", "Hello Ada!"),
        ("c\rd", None),
        ("Bob", "Hello Bob!"),
        ("e\rf", None),
    ]
    assert objects(done.stdout)[2]["error"].startswith(
        "line 4 is left out: a name cannot contain CR or LF"
    )


@pytest.mark.parametrize(
    ("arguments", "names"),
    [(("Ada", "Bob", "exit"), ["Ada", "Bob"]), (("exit",), [None]), ((), [None])],
    ids=["names", "exit", "standard input"],
)
def test_json_without_a_server(arguments: tuple[str, ...], names: list[str | None]) -> None:
    """Without a connection each NAME has an object; if there is none, the failure has one."""
    port = free_port()
    done = run_client(port, "--json", *arguments, stdin=b"Grace\n")
    assert_one_complaint(done, 1, "Connection refused")
    assert greetings(done.stdout) == [(name, None) for name in names]
    for each in objects(done.stdout):
        assert f"greeter: {each['error']}\n" == done.stderr.decode()
        assert [each[field] for field in FIELDS[1:]] == [None] * 6


@pytest.mark.parametrize("arguments", [("Ada",), ()], ids=["argument", "standard input"])
def test_json_without_a_welcome(arguments: tuple[str, ...]) -> None:
    """What is known of a server that does not welcome the client is told; no name was asked."""
    with scripted(refuse) as port:
        done = run_client(port, "--json", *arguments, stdin=b"Ada\n")
    complaints = [
        ("the server refused: Sorry, the server is full.",),
        *[(f"not greeted: {name}",) for name in arguments],
    ]
    assert_complaints(done, 1, *complaints)
    (only,) = objects(done.stdout)
    assert only["name"] == (arguments[0] if arguments else None)
    assert only["peer"] == f"{HOST}:{port}"
    assert None not in (only["connect_ms"], only["first_byte_ms"])


def test_json_of_a_failure_without_names() -> None:
    """A server that goes before a name has come has an object for that alone."""

    def server(peer: Peer) -> None:
        greet(peer)

    with (
        scripted(server) as port,
        started(
            *COMMAND, "client", "--port", str(port), "--json", stdin=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout
        assert process.wait(PATIENCE) == 1
        assert greetings(process.stdout.read()) == [(None, None)]


def test_json_of_a_failure_after_names() -> None:
    """A server that goes when all names are greeted has no object: each one belongs to a name."""
    with scripted(lambda peer: greet(peer, "Ada")) as port:
        done = run_client(port, "--json", "Ada")
    assert_one_complaint(done, 1, "closed the connection")
    assert greetings(done.stdout) == [("Ada", "Hello Ada!")]


def test_json_of_input_that_cannot_be_read(port: int) -> None:
    """Standard input that cannot be read is a failure without a name."""
    done = run_client(port, "--json", command=in_shell('exec "$@" 0>/dev/null'))
    assert_one_complaint(done, 1, "cannot read standard input: Bad file descriptor")
    (only,) = objects(done.stdout)
    assert (only["name"], only["error"]) == (
        None,
        "cannot read standard input: Bad file descriptor",
    )


def test_json_of_no_names(port: int) -> None:
    """Where nothing was asked and nothing has failed, nothing is printed."""
    done = run_client(port, "--json")
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)


def test_json_on_a_terminal(port: int) -> None:
    """On a terminal --json is the tool as well: nothing is asked for, and each line that is typed is a name."""
    with on_terminal("client", "--port", str(port), "--json") as terminal:
        terminal.type("Ada\n")
        terminal.expect("Ada\r\n")
        shown = json.loads(terminal.screen.line())
        assert (shown["name"], shown["greeting"]) == ("Ada", "Hello Ada!")
        terminal.type("\x04")
        assert terminal.end(0) == ""
    assert b"name?" not in terminal.screen.all()


@pytest.mark.parametrize("server", [None, refuse], ids=["no server", "full"])
def test_json_that_cannot_be_written(server: Script | None) -> None:
    """Objects of names that nobody was there to greet, too, are one line and status 1 if they cannot be written."""
    if not Path("/dev/full").exists():
        pytest.skip("this machine has no /dev/full")
    command = in_shell('exec "$@" >/dev/full')
    if server:
        with scripted(server) as port:
            done = run_client(port, "--json", command=command)
    else:
        done = run_client(free_port(), "--json", command=command)
    assert_complaints(done, 1, (), ("cannot write to standard output: No space left on device",))


# Trying again


@pytest.mark.parametrize("server", [Peer.end, Peer.reset, refuse, lambda peer: peer.say(GOODBYE)])
def test_retry_until_a_welcome(server: Script) -> None:
    """With --retry-for whatever happens before the welcome is forgotten, and each name is asked once."""
    with scripted(server, server, greet_ada) as port:
        done = run_client(port, "--retry-for", "20", stdin=b"Ada\n")
    assert (done.stdout, done.stderr, done.returncode) == (hello("Ada"), b"", 0)


def test_retry_until_a_server_listens() -> None:
    """With --retry-for a client can be started before its server."""
    with socket.socket() as closed:
        closed.bind((HOST, 0))
        port = closed.getsockname()[1]
        with started(*COMMAND, "client", "--port", str(port), "--retry-for", "30", "Ada") as client:
            assert client.stdout
            closed.listen()
            with Peer(closed.accept()[0]) as peer:
                greet_ada(peer)
                assert client.wait(PATIENCE) == 0
                assert client.stdout.read() == hello("Ada")


def test_names_are_not_read_before_a_welcome() -> None:
    """Names on standard input are still there, for whoever comes next, if no server has welcomed the client."""
    with scripted(refuse) as port:
        done = run_client(port, stdin=b"Ada\nBob\n", command=in_shell('"$@"; exec cat'))
    assert done.stdout == b"Ada\nBob\n"
    assert b"the server is full" in done.stderr


def test_retry_in_vain() -> None:
    """When the time is over the last failure is told, with the number of attempts, and its exit status."""
    done = run_client(free_port(), "--retry-for", "0.5", "--json", "Ada")
    assert_one_complaint(
        done, 1, "Connection refused (is the server running, and on this port?), after "
    )
    (only,) = objects(done.stdout)
    assert re.search(", after [2-9] attempts$", only["error"])


def test_retry_is_not_for_what_is_no_greeter() -> None:
    """What answers and is no greeter is told at once."""
    with scripted(lambda peer: peer.say(b"HTTP/1.1 400 Bad Request\r\n")) as port:
        done = run_client(port, "--retry-for", "600", "Ada")
    assert_complaints(done, 1, ("the server is no greeter",), ("not greeted: Ada",))


def test_a_conversation_that_breaks_is_not_tried_again() -> None:
    """After the welcome nothing is asked twice."""
    with scripted(lambda peer: greet(peer, "Ada")) as port:
        done = run_client(port, "--retry-for", "600", "Ada", "Bob")
    assert_complaints(done, 1, ("closed the connection",), ("not greeted: Bob",))
    assert done.stdout == hello("Ada")


@pytest.mark.parametrize("arguments", [("Ada",), ()], ids=["arguments", "standard input"])
def test_server_that_ends_with_its_welcome(arguments: tuple[str, ...]) -> None:
    """A server that is gone as soon as it has welcomed the client is a conversation that failed."""
    with scripted(lambda peer: peer.say(WELCOME + b"Sorry, not today.\n")) as port:
        done = run_client(port, *arguments, stdin=b"Bob\n")
    complaints = [
        ("the server refused: Sorry, not today.",),
        *[(f"not greeted: {name}",) for name in arguments],
    ]
    assert_complaints(done, 1, *complaints)


def test_interrupt_between_attempts() -> None:
    """Ctrl-C ends the client while it tries again, without a word; status 130."""
    with ExitStack() as stack:

        def server(peer: Peer) -> None:
            peer.end()
            process.send_signal(signal.SIGINT)

        port = stack.enter_context(scripted(refuse, server))
        process = stack.enter_context(
            started(*COMMAND, "client", "--port", str(port), "--retry-for", "600", "Ada")
        )
        assert process.stderr
        assert process.wait(PATIENCE) == 130
        assert process.stderr.read() == b""


@pytest.mark.parametrize("value", ["-1", "inf", "nan", "soon"])
def test_wrong_retry_for(value: str) -> None:
    """A time that is none, or for ever, is wrong usage."""
    assert_wrong_usage(run("client", f"--retry-for={value}", "Ada"), "--retry-for", value)


# TLS, PROXY and Unix sockets


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Return a CA."""
    return Authority(tmp_path)


def test_tls(authority: Authority) -> None:
    """With --tls and --ca the conversation goes over TLS, and --json tells the version."""
    with serving("--tls-cert", authority.issue(HOST)) as server:
        done = run_client(server.port, "--tls", "--ca", authority.path, "--json", "Ada", "Bob")
    assert (done.stderr, done.returncode) == (b"", 0)
    assert greetings(done.stdout) == [("Ada", "Hello Ada!"), ("Bob", "Hello Bob!")]
    assert {each["tls"] for each in objects(done.stdout)} == {"TLSv1.3"}


def test_tls_in_a_conversation(authority: Authority) -> None:
    """A person can speak over TLS, too."""
    with (
        serving("--tls-cert", authority.issue(HOST)) as server,
        on_terminal(
            "client", "--port", str(server.port), "--tls", "--ca", authority.path
        ) as terminal,
    ):
        terminal.answer("Ada\r")
        terminal.expect("Hello Ada!\r\n")
        terminal.answer("exit\r")
        assert terminal.end(0).endswith("Goodbye!\n")


@pytest.mark.parametrize("with_certificate", [True, False])
def test_client_certificate(authority: Authority, with_certificate: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """--cert shows a certificate to a server that demands one; without it the connection is lost, and why is told."""
    shown = ("--cert", authority.issue("client.example")) if with_certificate else ()
    with serving("--tls-cert", authority.issue(HOST), "--tls-client-ca", authority.path) as server:
        done = run_client(server.port, "--tls", "--ca", authority.path, *shown, "Ada")
    if with_certificate:
        assert (done.stdout, done.stderr, done.returncode) == (hello("Ada"), b"", 0)
    else:
        assert_complaints(
            done,
            1,
            ("connection to the server was lost (the server demands a client certificate",),
            ("not greeted: Ada",),
        )


@pytest.mark.parametrize(
    ("host", "ca", "part"),
    [("localhost", True, "localhost"), (HOST, False, "--ca")],
    ids=["another host", "another CA"],
)
def test_certificate_that_is_not_accepted(
    authority: Authority, host: str, ca: bool, part: str
) -> None:
    """A certificate for another host, or of an unknown CA, is told at once, even with --retry-for."""
    trusted = ("--ca", authority.path) if ca else ()
    with serving("--tls-cert", authority.issue(HOST)) as server:
        done = run_client(
            server.port, "--host", host, "--tls", *trusted, "--retry-for", "600", "Ada"
        )
    assert_one_complaint(
        done, 1, f"cannot connect to {host} port {server.port} with TLS: the server's", part
    )


def test_tls_to_a_plain_port() -> None:
    """A server that does not speak TLS is told as that, and not tried again."""
    with scripted(greet) as port:
        done = run_client(port, "--tls", "--retry-for", "600", "Ada")
    assert_one_complaint(done, 1, "the server does not speak TLS on this port")


def test_plain_to_a_tls_port(authority: Authority) -> None:
    """A server that waits for TLS says nothing, and the client asks whether it is that."""
    with serving("--tls-cert", authority.issue(HOST)) as server:
        done = run_client(server.port, "--timeout", "0.5", "Ada", patience=LESS_THAN_DEFAULT)
    message = "the server did not answer in time (does it want TLS or a PROXY header? try --tls or --send-proxy)"
    assert_complaints(done, 3, (message,), ("not greeted: Ada",))


def test_ca_that_cannot_be_read(tmp_path: Path) -> None:
    """A file of certificates that is not there is one line; with --json each name has its object; exit status 1."""
    path = tmp_path / "ca.pem"
    done = run("client", "--tls", "--ca", str(path), "--retry-for", "600", "--json", "Ada")
    assert_one_complaint(done, 1, f"{path}: No such file or directory")
    assert greetings(done.stdout) == [("Ada", None)]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_send_proxy(version: str) -> None:
    """With --send-proxy the server is told the client's address, in either version."""
    with serving("--proxy-protocol", "require") as server:
        done = run_client(server.port, "--send-proxy", version, "Ada")
    assert (done.stdout, done.stderr, done.returncode) == (hello("Ada"), b"", 0)


def test_send_proxy_with_tls(authority: Authority) -> None:
    """The header goes before TLS."""
    with serving("--proxy-protocol", "require", "--tls-cert", authority.issue(HOST)) as server:
        done = run_client(server.port, "--send-proxy", "v2", "--tls", "--ca", authority.path, "Ada")
    assert (done.stdout, done.stderr, done.returncode) == (hello("Ada"), b"", 0)


def test_unix_socket(tmp_path: Path) -> None:
    """A server at a Unix socket is called by --host or GREETER_HOST, and the port does not matter."""
    where = f"unix:{tmp_path}/greeter.sock"
    with started(*COMMAND, "serve", "--listen", where, stdout=subprocess.DEVNULL) as process:
        assert process.stderr
        log = Output(process.stderr.fileno())
        log.expect(where.encode())
        done = run("client", "--host", where, "--json", "Ada", env=environment(GREETER_PORT="7"))
        assert (done.stderr, done.returncode) == (b"", 0)
        assert [(each["greeting"], each["peer"]) for each in objects(done.stdout)] == [
            ("Hello Ada!", where)
        ]
        done = run("client", "Bob", env=environment(GREETER_HOST=where))
        assert (done.stdout, done.stderr, done.returncode) == (hello("Bob"), b"", 0)
        process.terminate()
        assert process.wait(PATIENCE) == 0
        log.join()


def test_no_unix_socket(tmp_path: Path) -> None:
    """A Unix socket that is not there is told by its path."""
    where = f"unix:{tmp_path}/greeter.sock"
    done = run("client", "--host", where, "Ada")
    assert_one_complaint(
        done, 1, f"cannot connect to {where}: No such file or directory", "is the server running"
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--ca", "x"), ("--ca needs --tls",)),
        (("--cert", "x"), ("--cert needs --tls",)),
        (("--tls", "--key", "x"), ("--key needs --cert",)),
        (("--tls", "--host", "unix:x"), ("--tls needs a host", "unix:x")),
        (("--host", "unix:"), ("--host", "1 to 107 bytes")),
        (("--host", "unix:" + 108 * "x"), ("--host", "1 to 107 bytes")),
        (("--send-proxy", "v3"), ("--send-proxy", "v3")),
    ],
    ids=lambda value: " ".join(value)[:20],
)
def test_wrong_usage(arguments: tuple[str, ...], parts: tuple[str, ...]) -> None:
    """Options that make no sense, or none without each other, are named; exit status 2."""
    assert_wrong_usage(run("client", *arguments, "Ada"), *parts)
