"""Server, client, library and command line need nothing but what all platforms have.

They run in processes where everything else is hidden (`elsewhere.py`).
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .certificates import Authority
from .helpers import PATIENCE

ROOT = Path(__file__).parents[2]
ELSEWHERE = (sys.executable, "-m", "tests.trio.elsewhere")
UNIX = "Unix sockets are not available on this platform"
FD = "listening on a passed descriptor is not available on this platform"

if sys.platform == "win32":
    STOP, FLAGS = signal.CTRL_BREAK_EVENT, subprocess.CREATE_NEW_PROCESS_GROUP
else:
    STOP, FLAGS = signal.SIGTERM, 0


def run(*arguments: str, names: str | None = None) -> tuple[str, str, int]:
    """Run a command to its end; return its output, its complaints and its exit status."""
    done = subprocess.run(
        [*ELSEWHERE, *arguments],
        cwd=ROOT,
        input=names,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.stdout, done.stderr, done.returncode


@contextlib.contextmanager
def serving(*options: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run a server on a free port; yield the port, and the process."""
    with subprocess.Popen(
        [*ELSEWHERE, "serve", "--port", "0", *options],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        creationflags=FLAGS,
    ) as server:
        try:
            assert server.stderr
            line = server.stderr.readline().rstrip()
            where, _, port = line.rpartition(":")
            assert where == "Waiting for connection on 127.0.0.1", line
            yield port, server
        finally:
            server.kill()


@pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])
def test_the_command_line(authority: Authority, tmp_path: Path, *, tls: bool) -> None:
    """The server greets arguments and standard input of clients, and ends by a signal."""
    cert = ["--tls-cert", authority.issue("127.0.0.1")] if tls else []
    trust = ["--tls", "--ca", authority.path] if tls else []
    port_file = tmp_path / "port"
    with serving("--port-file", str(port_file), *cert) as (port, server):
        assert port_file.read_text() == f"{port}\n"
        client = ["client", "--port", port, *trust]
        assert run(*client, "Ada", "Grace") == ("Hello Ada!\nHello Grace!\n", "", 0)
        assert run(*client, names="Hedy\n") == ("Hello Hedy!\n", "", 0)
        server.send_signal(STOP)
        assert server.stderr
        log = server.stderr.read()
        assert server.wait(PATIENCE) == 0
    assert log.count("the client said exit; ") == 2
    assert "Traceback" not in log


def test_the_library(authority: Authority) -> None:
    """Names are greeted over TCP and over TLS; what is not available is an OSError."""
    said, complaints, status = run("library", authority.issue("127.0.0.1"), authority.path)
    greetings = ["Hello Ada!", "Hello Grace!", "Hello Hedy!"]
    errors = [f"cannot listen on unix:socket: {UNIX}", f"cannot listen on fd:3: {FD}", UNIX]
    assert (said.splitlines(), complaints, status) == (greetings * 2 + errors, "", 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("serve --listen unix:x", f"argument --listen: {UNIX}"),
        ("serve --listen fd:3", f"argument --listen: {FD}"),
        ("client --host unix:x Ada", f"--host: {UNIX}"),
    ],
)
def test_what_is_not_available_is_wrong_usage(arguments: str, message: str) -> None:
    """Whoever asks for what this platform does not have is told so in a sentence."""
    _, complaints, status = run(*arguments.split())
    assert complaints.splitlines()[-1].endswith(f"error: {message}")
    assert status == 2


def test_a_port_that_cannot_be_shared() -> None:
    """A server that is to share its port does not start where that is impossible."""
    sentence = "cannot listen on 127.0.0.1:0: servers cannot share a port on this platform"
    assert run("serve", "--port", "0", "--reuse-port") == ("", f"greeter: {sentence}\n", 1)


@pytest.mark.parametrize("drawn", [True, False], ids=["terminal", "pipe"])
def test_the_console(*, drawn: bool) -> None:
    """A person has a conversation without `termios`, also where the output goes elsewhere."""
    pty = pytest.importorskip("pty", reason="there are no pseudo-terminals")
    keyboard, line = pty.openpty()
    with serving() as (port, _), os.fdopen(keyboard, "rb+", buffering=0) as terminal:
        command = [*ELSEWHERE, "client", "--port", port]
        output = line if drawn else subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, stdin=line, stdout=output) as client:
            os.close(line)
            try:
                terminal.write("Zoë\n\x04".encode())
                assert client.wait(PATIENCE) == 0
                shown = client.stdout.read() if client.stdout else terminal.read(65536)
            finally:
                client.kill()
    assert "Hello Zoë!" in shown.decode()
    assert "Goodbye!" in shown.decode()
