"""The real command in processes of its own, and blocking sockets that talk to it.

Every wait is for something that happens (a byte, a line, the end of a stream or of a process), and
ends after `PATIENCE` seconds at the latest. Whatever a context manager starts ends with its block.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Self, TypeAlias

from .peers import NO_LINGER
from .words import PROMPT, WELCOME

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "greeter_trio")
HOST = "127.0.0.1"
PATIENCE = 30.0
"""Seconds; far more than anything takes, so that a busy machine makes no test fail."""

Stdio: TypeAlias = "int | IO[bytes] | None"
Process: TypeAlias = "subprocess.Popen[bytes]"
Completed: TypeAlias = "subprocess.CompletedProcess[bytes]"


def environment(**more: str) -> dict[str, str]:
    """Return all that the command gets to see of this machine's environment, and more."""
    basic = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/", "INPUTRC": os.devnull}
    return {**basic, "LANG": "C.UTF-8", "TERM": "xterm", **more}


@contextlib.contextmanager
def started(
    *command: str,
    env: dict[str, str] | None = None,
    session: bool = False,
    pass_fds: Sequence[int] = (),
    **streams: Stdio,
) -> Iterator[Process]:
    """Start a process, and kill it at the end if it is still there."""
    pipe = subprocess.PIPE
    options: Any = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, **streams}
    options |= {"env": env or environment(), "start_new_session": session, "pass_fds": pass_fds}
    with subprocess.Popen(command, cwd=ROOT, bufsize=0, **options) as process:
        try:
            yield process
        finally:
            process.kill()  # does nothing to one that has ended


def in_shell(script: str) -> tuple[str, ...]:
    """Return a command that runs a shell script; `"$@"` is the command with its arguments."""
    return ("/bin/sh", "-c", script, "sh", *COMMAND)


def run(
    *arguments: str,
    stdin: bytes = b"",
    command: Sequence[str] = COMMAND,
    env: dict[str, str] | None = None,
) -> Completed:
    """Run the command to its end, with these bytes on standard input."""
    return subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env=env or environment(),
        input=stdin,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def run_client(port: int, *arguments: str, **options: Any) -> Completed:
    """Run the client in the same way, against the server on this port."""
    return run("client", "--port", str(port), *arguments, **options)


class Output:
    """What comes out of a descriptor, gathered by a thread, so that a test can wait for a part."""

    def __init__(self, stream: int | IO[bytes] | None) -> None:
        assert stream is not None
        fd = stream if isinstance(stream, int) else stream.fileno()
        self._fd = os.dup(fd)  # the thread's own, so that it is not closed too early
        self._gathered = bytearray()
        self._taken = 0
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._gather, daemon=True)
        self._thread.start()

    def _gather(self) -> None:
        while not self._ended:
            try:
                data = os.read(self._fd, 65536)
            except OSError:  # the end of a pseudo-terminal
                data = b""
            with self._changed:
                self._gathered += data
                self._ended = not data
                self._changed.notify_all()
        os.close(self._fd)

    def expect(self, wanted: bytes) -> bytes:
        """Wait for these bytes, after those that were expected before; return all up to there."""

        def is_there() -> bool:
            return self._gathered.find(wanted, self._taken) >= 0

        with self._changed:
            self._changed.wait_for(lambda: self._ended or is_there(), PATIENCE)
            rest = bytes(self._gathered[self._taken :])
            assert is_there(), f"{wanted!r} never came; this did: {rest!r}"
            end = self._gathered.find(wanted, self._taken) + len(wanted)
            taken, self._taken = self._gathered[self._taken : end], end
            return bytes(taken)

    def line(self) -> str:
        """Wait for the end of a line; return the line without it."""
        return self.expect(b"\n").decode().rstrip("\r\n")

    def rest(self) -> bytes:
        """Wait for the end of the stream, and return what was not expected before."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._ended, PATIENCE), "the stream does not end"
            taken, self._taken = self._gathered[self._taken :], len(self._gathered)
            return bytes(taken)

    def all(self) -> bytes:
        """Return everything that has come."""
        return bytes(self._gathered)

    def join(self) -> None:
        """Wait for the thread, once all writers are closed."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "a process can still write"


# Servers


class Server:
    """A running server."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.log = Output(process.stderr)
        _, waiting, name = self.log.line().partition("Waiting for connection on ")
        assert waiting, self.log.all()
        self.port = 0 if name.startswith("unix:") else int(name.rpartition(":")[2])

    def wait(self, status: int = 0) -> str:
        """Wait for its end, with this status; return what it has logged since the last look."""
        assert self.process.wait(PATIENCE) == status
        return self.log.rest().decode()

    def stop(self, number: int = signal.SIGTERM) -> str:
        """End it by a signal, and do the same."""
        self.process.send_signal(number)
        return self.wait()


@contextlib.contextmanager
def serving(*options: str, **how: Any) -> Iterator[Server]:
    """Run a server on a free port; at the end it must still be able to end well."""
    with serving_at("--port", "0", *options, **how) as server:
        assert server.port
        yield server


@contextlib.contextmanager
def serving_at(*options: str, command: Sequence[str] = COMMAND, **how: Any) -> Iterator[Server]:
    """Run a server in the same way, where the options say."""
    with started(*command, "serve", *options, stdout=subprocess.DEVNULL, **how) as process:
        server = Server(process)
        yield server
        if process.poll() is None:
            assert "Traceback" not in server.stop()
        server.log.join()


# Sockets


class Peer:
    """One end of a connection, in plain blocking calls that give up after a while."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.socket.settimeout(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, data: bytes) -> Self:
        self.socket.sendall(data)
        return self

    def end(self) -> Self:
        """End this side of the connection (half-close)."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def reset(self) -> None:
        """Break the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.socket.close()

    def hear(self, words: bytes) -> Self:
        """Receive exactly these bytes, in whatever pieces; what comes after them stays there."""
        heard = b""
        while len(heard) < len(words):
            data = self.socket.recv(min(len(words) - len(heard), 65536))
            assert data, f"the connection ended after {heard!r} where {words!r} was expected"
            heard += data
            assert words.startswith(heard), f"{heard!r} came where {words!r} was expected"
        return self

    def hear_rest(self) -> bytes:
        """Receive everything up to the other side's end of the connection."""
        return b"".join(iter(lambda: self.socket.recv(65536), b""))


def connected(port: int, host: str = HOST) -> Peer:
    """Connect to a server."""
    return Peer(socket.create_connection((host, port), timeout=PATIENCE))


def connected_to_file(path: str) -> Peer:
    """Connect to a server's Unix socket."""
    assert hasattr(socket, "AF_UNIX")
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(path)
    return Peer(sock)


def met(port: int) -> Peer:
    """Connect to a greeter, and hear it out: it waits for the first name now."""
    peer = connected(port)
    peer.hear(WELCOME + PROMPT)
    return peer


@contextlib.contextmanager
def scripted(*scripts: Callable[[Peer], object]) -> Iterator[int]:
    """Run a server that plays one script for each connection, in turn; yield its port.

    What goes wrong in a script is raised at the end of the block, unless the block itself fails.
    """

    def play() -> None:
        for script in scripts:
            with Peer(listener.accept()[0]) as peer:
                script(peer)

    with socket.create_server((HOST, 0)) as listener, ThreadPoolExecutor(1) as thread:
        listener.settimeout(PATIENCE)
        played = thread.submit(play)
        try:
            yield listener.getsockname()[1]
        except BaseException:
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            raise
        played.result()


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
