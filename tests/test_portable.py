"""Server, client, library and command line need nothing but what all platforms have.

They run in processes where everything else is hidden (`tests/support/elsewhere.py`).
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support import elsewhere
from .support.certificates import Authority
from .support.clocks import PATIENCE

ROOT = Path(__file__).parents[1]
ELSEWHERE = (sys.executable, "-m", "tests.support.elsewhere")
UNIX = "Unix sockets are not available on this platform"
FD = "listening on a passed descriptor is not available on this platform"

if sys.platform == "win32":
    STOP, FLAGS = signal.CTRL_BREAK_EVENT, subprocess.CREATE_NEW_PROCESS_GROUP
else:
    STOP, FLAGS = signal.SIGTERM, 0


def run(*arguments: str, names: str | None = None) -> tuple[str, str, int]:
    """Run a command to its end; return its output, its messages and its exit status."""
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
    command = [*ELSEWHERE, "serve", "--port", "0", *options]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, creationflags=FLAGS
    ) as server:
        try:
            assert server.stderr
            line = server.stderr.readline().rstrip()
            where, _, port = line.rpartition(":")
            assert where == "Waiting for connection on 127.0.0.1", line
            yield port, server
        finally:
            server.kill()


def test_all_that_is_optional_is_hidden() -> None:
    """What the product asks for before it uses it is what some platform lacks."""
    hidden = {"readline", *elsewhere.MODULES.split()}
    for module, *names in map(str.split, elsewhere.NAMES.strip().splitlines()):
        hidden.update(f"{module}.{name}" for name in names)
    asked = set()
    for path in (ROOT / "greeter_trio").rglob("*.py"):
        text = path.read_text("utf-8")
        asked.update(re.findall(r'optional\("(\w+)"\)', text))
        asks = re.findall(r'(?:has|get)attr\(_?(os|select|signal|socket), "(\w+)"', text)
        asked.update(map(".".join, asks))
    assert {"fcntl", "select.epoll", "socket.SO_REUSEPORT"} < asked
    of_windows = {"socket.SO_EXCLUSIVEADDRUSE", "socket.errorTab"}
    assert asked - hidden == {"idna", *of_windows}  # the first comes with Trio, everywhere


def test_demonstration_and_replay(tmp_path: Path) -> None:
    """Segments cannot be captured, and states of TCP not asked for; everything else is there."""
    record = tmp_path / "record"
    shown, err, status = run("demo", "--clients", "1", "--record", str(record))
    assert (err, status) == ("", 0)
    assert "cannot be captured here: this platform has no AF_PACKET." in shown
    assert "Hello Alice!" in shown
    assert "rtt" not in shown
    replayed = "conversations, \\d+ steps: everything came out as it was recorded\n"
    out, err, status = run("replay", str(record))
    assert re.fullmatch(f"\\d+ {replayed}", out)
    assert (err, status) == ("", 0)


def test_the_command_line(authority: Authority, tmp_path: Path) -> None:
    """The server greets arguments and standard input of clients, and ends by a signal."""
    port_file = tmp_path / "port"
    cert = "--tls-cert", authority.issue("127.0.0.1")
    with serving("--port-file", str(port_file), *cert) as (port, server):
        assert port_file.read_text() == f"{port}\n"
        client = ["client", "--port", port, "--tls", "--ca", authority.path]
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
    greetings = ["Hello Ada!", "Hello Grace!", "Hello Hedy!"]
    errors = [f"cannot listen on unix:socket: {UNIX}", f"cannot listen on fd:3: {FD}"]
    errors.append(f"cannot connect to unix:socket: {UNIX}")
    said, messages, status = run("library", authority.issue("127.0.0.1"), authority.path)
    assert (said.splitlines(), messages, status) == (greetings * 2 + errors, "", 0)


@pytest.mark.parametrize(
    ("arguments", "message", "status"),
    [
        ("serve --listen unix:x", f"error: argument --listen: {UNIX}", 2),
        ("serve --listen fd:3", f"error: argument --listen: {FD}", 2),
        ("client --host unix:x Ada", f"error: --host: {UNIX}", 2),
        ("serve --port 0 --reuse-port", "servers cannot share a port on this platform", 1),
    ],
)
def test_what_is_not_available(arguments: str, message: str, status: int) -> None:
    said, messages, actual = run(*arguments.split())
    assert (said, actual) == ("", status)
    assert messages.splitlines()[-1].endswith(message)


@pytest.mark.parametrize("drawn", [True, False], ids=["terminal", "pipe"])
def test_the_terminal(*, drawn: bool) -> None:
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
