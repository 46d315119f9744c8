"""What a probe tells of what it meets: exit status, code, stage and hint, with real listeners."""

import contextlib
import datetime as dt
import json
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import attrs
import pytest

from tests.support.certificates import Authority
from tests.support.processes import (
    HOST,
    PATIENCE,
    Output,
    Peer,
    free_port,
    met,
    run,
    serving,
    started,
)
from tests.support.words import ADA, GOODBYE, HELLO, PROMPT, WELCOME, hello

if sys.platform == "win32":
    pytest.skip("these tests start servers that need signals", allow_module_level=True)

Target: TypeAlias = contextlib.AbstractContextManager[list[str]]
"""Something to connect to; it yields the options that lead there."""

SILENT = "or does a proxy on the way wait for the client to speak first"
NO_SERVER = "or does a load balancer on the way have no server"
IN_TIME = "the server did not answer in time"
PAST = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
CLOSED = "the server closed the connection without saying goodbye"


# Targets that talk


@contextlib.contextmanager
def answering(act: Callable[[Peer], object]) -> Iterator[list[str]]:
    """Have this done with each connection, until the end of the block."""

    def serve() -> None:
        with contextlib.suppress(OSError):  # the listener is shut down
            while True:
                peers.append(Peer(listener.accept()[0]))
                threads.append(threading.Thread(target=play, args=(peers[-1],)))
                threads[-1].start()

    def play(peer: Peer) -> None:
        with peer, contextlib.suppress(OSError, AssertionError):
            act(peer)

    peers: list[Peer] = []
    with socket.create_server((HOST, 0)) as listener:
        threads = [threading.Thread(target=serve)]
        threads[0].start()
        yield at(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(PATIENCE)


def at(port: int) -> list[str]:
    return ["--port", str(port)]


def silence(peer: Peer) -> object:
    return peer.hear_rest()


@contextlib.contextmanager
def greeter(*options: str) -> Iterator[list[str]]:
    with serving(*options) as server:
        yield at(server.port)


@contextlib.contextmanager
def nobody() -> Iterator[list[str]]:
    yield at(free_port())


@contextlib.contextmanager
def full_greeter() -> Iterator[list[str]]:
    with (
        serving("--max-connections", "1", "--when-full", "reject") as server,
        met(server.port),
    ):
        yield at(server.port)


@contextlib.contextmanager
def waiting_proxy() -> Iterator[list[str]]:
    """Connect to the server only when the client has said something, as some proxies do."""

    def pass_on(client: Peer) -> None:
        first = client.socket.recv(1024)
        with socket.create_connection((HOST, server.port)) as other:
            other.sendall(first)
            while data := other.recv(1024):
                client.say(data)

    with serving() as server, answering(pass_on) as options:
        yield options


_HAPROXY = """
defaults
  mode tcp
  retries 0
  timeout connect 1s
  timeout client 10s
  timeout server 10s
listen greeters
  bind {where}
  server one {dead}
"""


@contextlib.contextmanager
def balancer() -> Iterator[list[str]]:
    """HAProxy, whose only server is not there."""
    if not shutil.which("haproxy"):
        pytest.skip("there is no haproxy on PATH")
    port = free_port()
    text = _HAPROXY.format(where=f"{HOST}:{port}", dead=f"{HOST}:{free_port()}")
    with started("haproxy", "-db", "-f", "/dev/stdin", stdin=-1) as process:
        assert process.stdin
        process.stdin.write(text.encode())
        process.stdin.close()
        log = Output(process.stderr)
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection((HOST, port)).close()
                break
            assert process.poll() is None, log.all()
        yield at(port)
        process.terminate()
        process.wait(PATIENCE)
        log.join()


def says(*words: bytes) -> Callable[[], Target]:
    """Say these words, and then nothing."""
    return lambda: answering(lambda peer: peer.say(b"".join(words)).hear_rest())


def says_and_ends(*words: bytes) -> Callable[[], Target]:
    return lambda: answering(lambda peer: peer.say(b"".join(words)).end().hear_rest())


def greets_and(act: Callable[[Peer], object]) -> Callable[[], Target]:
    return lambda: answering(lambda peer: act(peer.say(WELCOME + PROMPT).hear(b"Ada\n")))


def resets(peer: Peer) -> None:
    time.sleep(0.1)  # the client has looked to whom it is connected by then
    peer.reset()


@attrs.frozen
class Case:
    target: Callable[[], Target]
    status: int
    code: str
    stage: str
    said: str
    """A part of the message."""
    options: str = ""
    is_reached: bool = True
    """Whether there was a connection."""
    is_final: bool = False
    """Whether --retry-for gives up at once."""


CASES = {
    "closed port": Case(
        nobody, 4, "cannot_connect", "connect", "is the server running", is_reached=False
    ),
    "unknown host": Case(
        lambda: contextlib.nullcontext(["--host", "nohost.invalid"]),
        *(4, "cannot_connect", "resolve", "check --host"),
        is_reached=False,
    ),
    "no host": Case(
        lambda: contextlib.nullcontext(["--host", "a..b"]),
        *(4, "cannot_connect", "resolve", "cannot be the name of a host"),
        is_reached=False,
        is_final=True,
    ),
    "silent": Case(says(), 3, "timed_out", "welcome", SILENT),
    "SSH": Case(
        says(b"SSH-2.0-OpenSSH_9.2\r\n"),
        *(7, "no_greeter", "welcome", 'it said "SSH-2.0-OpenSSH_9.2'),
        is_final=True,
    ),
    "closes at once": Case(says_and_ends(), 6, "connection_lost", "welcome", NO_SERVER),
    "resets at once": Case(
        lambda: answering(resets), 6, "connection_lost", "welcome", "Connection reset by peer"
    ),
    "closes in a word": Case(says_and_ends(b"Welc"), 6, "connection_lost", "welcome", CLOSED),
    "stuck": Case(says(WELCOME), 3, "timed_out", "prompt", IN_TIME),
    "balancer": Case(balancer, 6, "connection_lost", "welcome", NO_SERVER),
    "waiting proxy": Case(waiting_proxy, 3, "timed_out", "welcome", SILENT),
    "wants PROXY": Case(
        lambda: greeter("--proxy-protocol", "require"),
        *(3, "timed_out", "welcome", "does it want TLS or a PROXY header"),
    ),
    "wants no PROXY v1": Case(
        greeter,
        *(7, "no_greeter", "greeting", "the server wants no PROXY header"),
        options="--send-proxy v1",
    ),
    "wants no PROXY v2": Case(
        greeter,
        *(7, "no_greeter", "greeting", "the server wants no PROXY header"),
        options="--send-proxy v2",
    ),
    "full": Case(full_greeter, 8, "refused", "welcome", "Sorry, the server is full."),
    "goodbye": Case(says(GOODBYE), 8, "refused", "welcome", "goodbye before it was asked"),
    "goodbye at the prompt": Case(
        greets_and(lambda peer: peer.say(GOODBYE).end().hear_rest()),
        *(8, "refused", "greeting", "goodbye before it was asked"),
    ),
    "another greeting": Case(
        greets_and(lambda peer: peer.say(hello("Bob")).hear_rest()),
        *(7, "no_greeter", "greeting", 'and not "Hello Ada!"'),
    ),
    "no greeting": Case(greets_and(silence), 3, "timed_out", "greeting", IN_TIME),
    "reset": Case(greets_and(resets), 6, "connection_lost", "greeting", "Connection reset by peer"),
    "half a greeting": Case(
        greets_and(lambda peer: peer.say(HELLO).end().hear_rest()),
        *(6, "connection_lost", "greeting", CLOSED),
    ),
    "no goodbye": Case(
        greets_and(lambda peer: peer.say(ADA + PROMPT).hear(b"exit\n").hear_rest()),
        *(3, "timed_out", "goodbye", IN_TIME),
    ),
    "TLS to a plain port": Case(
        greeter, 5, "tls", "tls", "does not speak TLS", options="--tls", is_final=True
    ),
    "TLS to a silent port": Case(says(), 3, "timed_out", "tls", "with TLS", options="--tls"),
    "TLS to one that closes": Case(
        says_and_ends(), 5, "tls", "tls", "hung up during the handshake", options="--tls"
    ),
}
"""What is there, and what the client says of it; the rest of what is needed comes by itself."""


def probe(case: Case, options: list[str], *more: str) -> tuple[int, str, str]:
    done = run("client", *options, "--timeout", "0.5", *case.options.split(), *more, "Ada")
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_told_of_a_target(case: Case) -> None:
    with case.target() as options:
        status, out, err = probe(case, options, "--json")
        *greeted, found = map(json.loads, out.splitlines())
        assert len(greeted) == (case.stage == "goodbye")
        assert (status, found["error"]["code"]) == (case.status, case.code)
        assert found["error"]["stage"] == case.stage
        assert case.said in found["error"]["message"]
        assert (found["peer"] is not None) is case.is_reached
        assert (found["connect_ms"] is not None) is case.is_reached
        message, *rest = err.splitlines()
        assert message == f"greeter: {found['error']['message']}"
        was_greeted = case.stage == "goodbye"
        assert rest == ["greeter: not greeted: Ada"] * (case.is_reached and not was_greeted)


RETRIED = {name: case for name, case in CASES.items() if case.stage not in ("greeting", "goodbye")}


@pytest.mark.parametrize("case", RETRIED.values(), ids=RETRIED)
def test_what_is_told_after_retries(case: Case) -> None:
    """The same, after all the time or, where another attempt could only fail again, at once."""
    with case.target() as options:
        retry_for = "60" if case.is_final else "0.8"
        status, out, err = probe(case, options, "--json", "--retry-for", retry_for)
    (found,) = map(json.loads, out.splitlines())
    assert (status, found["error"]["code"]) == (case.status, case.code)
    assert found["error"]["stage"] == case.stage
    if case.stage != "prompt":  # where it was welcomed there is no other attempt
        assert ("attempts)" in err) is not case.is_final


def test_a_target_that_is_live() -> None:
    with greeter() as options:
        assert run("client", *options, "Ada").stdout == ADA
        done = run("client", *options, "--json", "Ada")
    (found,) = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, done.stderr, found["greeting"]) == (0, b"", "Hello Ada!")


# TLS


@attrs.frozen
class Tls:
    """What the files of a TLS server and client are."""

    client: str
    """Options of the client."""
    said: str
    names: tuple[str, ...] = (HOST,)
    """What the server's certificate is for."""
    demands: bool = False
    """Whether the server wants a certificate of the client."""


TLS_CASES = {
    "CA": Tls("--ca {foreign}/ca.pem", "signed by no CA that is trusted here (--ca)"),
    "name": Tls(
        "--ca {ca}",
        "is not valid for '127.0.0.1'; it is for other.example and *.more.example",
        names=("other.example", "*.more.example"),
    ),
    "none": Tls("--ca {ca}", "demands a certificate", demands=True),
    "foreign": Tls("--ca {ca} --cert {theirs}", "does not trust the CA", demands=True),
    "expired": Tls("--ca {ca} --cert {expired}", "has expired", demands=True),
}


@pytest.mark.parametrize("case", TLS_CASES.values(), ids=TLS_CASES)
def test_what_is_told_of_tls(case: Tls, authority: Authority, tmp_path: Path) -> None:
    """It is hopeless, so there is no other attempt: also in TLS 1.3, after the handshake."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    foreign = Authority(folder)
    assert foreign.path
    expired = authority.save(authority.ca.issue_cert("client", not_after=PAST))
    files = {"ca": authority.path, "theirs": foreign.issue("client"), "expired": expired}
    options = ["--tls-cert", authority.issue(*case.names)]
    options += ["--tls-client-ca", authority.path] if case.demands else []
    with serving(*options) as server:
        words = case.client.format(**files, foreign=folder).split()
        done = run(
            *("client", "--port", str(server.port), "--tls", *words),
            *("--json", "--retry-for", "60", "Ada"),
        )
    (found,) = map(json.loads, done.stdout.splitlines())
    assert (done.returncode, found["error"]["code"], found["error"]["stage"]) == (5, "tls", "tls")
    assert case.said in found["error"]["message"]
    assert "attempts" not in found["error"]["message"]


def test_what_is_told_of_an_expired_server(authority: Authority) -> None:
    leaf = authority.ca.issue_cert(HOST, not_after=PAST)
    with serving("--tls-cert", authority.save(leaf)) as server:
        done = run("client", *at(server.port), "--tls", "--ca", authority.path, "Ada")
    assert (done.returncode, b"has expired" in done.stderr) == (5, True)


def test_a_plain_client_of_a_tls_port(authority: Authority) -> None:
    with serving("--tls-cert", authority.issue(HOST)) as server:
        done = run("client", *at(server.port), "--timeout", "0.5", "Ada")
        assert (done.returncode, b"does it want TLS" in done.stderr) == (3, True)


# Unix sockets


def test_unix_sockets(tmp_path: Path) -> None:
    """Missing, stale, and with a full backlog."""
    path = tmp_path / "socket"
    host = ["--host", f"unix:{path}", "--timeout", "0.5"]
    done = run("client", *host, "--json", "Ada")
    assert done.returncode == 4
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert run("client", *host, "Ada").returncode == 4
        listener.listen(0)
        with socket.socket(socket.AF_UNIX) as guest:
            guest.connect(str(path))
            done = run("client", *host, "--json", "Ada")
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"], error["stage"]) == (3, "timed_out", "connect")
