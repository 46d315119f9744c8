"""What the end-to-end tests share: the real command in a process of its own, and the sockets that talk to it.

Every wait ends after `PATIENCE` seconds at the latest, and waits for something that happens: a
byte, a line, the end of a stream or of a process. Whatever is started here is ended where the block
that started it ends.
"""

import contextlib
import itertools
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Self, TypeAlias

import pytest

pty = pytest.importorskip("pty", reason="these tests use signals, terminals and a shell")
termios = pytest.importorskip("termios")

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "greeter_trio")
HOST = "127.0.0.1"
PATIENCE = 30.0  # seconds; far more than anything takes, so that a busy machine makes no test fail
LESS_THAN_DEFAULT = (
    8.0  # seconds; what is over by then cannot have waited for the default --timeout, which is 10
)

# The words are written out here, not imported: the tests have their own opinion of what is on the
# wire.
WELCOME = b"Welcome!\n"
PROMPT = b"What's your name?"
GOODBYE = b"Goodbye!\n"
ASK = b"Please input your name: "

# Names that nobody should have to think about.
SCRIPTS = ("小明", "Zoë", "\N{WOMAN}\u200d\N{MAN}\u200d\N{GIRL}", "Ἀριστοτέλης", "محمد", "नरेन्द्र")

# What would change a terminal's title, colour and cursor, or the order of its text.
ESCAPES = "\x1b]0;owned\x07\x1b[31m\x9b2J\x7f\b\u202e"
ESCAPES_SHOWN = r"\x1b]0;owned\x07\x1b[31m\x9b2J\x7f\x08\u202e"

Stdio: TypeAlias = "int | IO[bytes] | None"
Completed: TypeAlias = "subprocess.CompletedProcess[bytes]"


def hello(name: bytes | str) -> bytes:
    """Return the greeting of one name."""
    return b"Hello " + (name.encode() if isinstance(name, str) else name) + b"!\n"


def environment(**more: str) -> dict[str, str]:
    """Return all that the command gets to see of this machine's environment, and more."""
    basic = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/", "INPUTRC": os.devnull}
    return {**basic, "LANG": "C.UTF-8", "TERM": "xterm", **more}


# Processes


@contextlib.contextmanager
def started(
    *command: str,
    stdin: Stdio = subprocess.DEVNULL,
    stdout: Stdio = subprocess.PIPE,
    stderr: Stdio = subprocess.PIPE,
    env: dict[str, str] | None = None,
    session: bool = False,
    pass_fds: Sequence[int] = (),
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process, and kill it at the end if it is still there."""
    with subprocess.Popen(
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=ROOT,
        env=environment() if env is None else env,
        start_new_session=session,
        pass_fds=pass_fds,
        bufsize=0,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # does nothing to one that has ended


def in_shell(script: str) -> tuple[str, ...]:
    """Return a command that runs a shell script, in which `"$@"` is the command under test with its arguments."""
    return ("/bin/sh", "-c", script, "sh", *COMMAND)


def run(
    *arguments: str,
    stdin: bytes = b"",
    command: tuple[str, ...] = COMMAND,
    env: dict[str, str] | None = None,
    patience: float = PATIENCE,
) -> Completed:
    """Run the command to its end, with these bytes on standard input."""
    return subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env=environment() if env is None else env,
        input=stdin,
        capture_output=True,
        timeout=patience,
        check=False,
    )


def run_client(
    port: int,
    *arguments: str,
    stdin: bytes = b"",
    command: tuple[str, ...] = COMMAND,
    env: dict[str, str] | None = None,
    patience: float = PATIENCE,
) -> Completed:
    """Run the client to its end, against the server on this port."""
    return run(
        "client",
        "--port",
        str(port),
        *arguments,
        stdin=stdin,
        command=command,
        env=env,
        patience=patience,
    )


def assert_one_complaint(done: Completed, status: int, *parts: str) -> None:
    """Check that the command ended with this status and one line on standard error, which has all these parts."""
    assert_complaints(done, status, parts)


def assert_complaints(done: Completed, status: int, *lines: tuple[str, ...]) -> None:
    """Check that the command ended with this status and these lines on standard error, each given by its parts."""
    said = done.stderr.decode().splitlines()
    for line, parts in itertools.zip_longest(said, lines):
        assert line is not None, f"{parts} is missing in {said}"
        assert parts is not None, f"{line!r} is too much in {said}"
        assert line.startswith("greeter: "), said
        for part in parts:
            assert part in line, f"{part!r} is missing in {said}"
    assert done.returncode == status, said


class Output:
    """What comes out of a descriptor, gathered by a thread as it comes, so that a test can wait for any part of it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(
            descriptor
        )  # the thread's own, so that nobody can close it too early
        self._gathered = bytearray()
        self._taken = 0
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._gather, daemon=True)
        self._thread.start()

    def _gather(self) -> None:
        while not self._ended:
            try:
                data = os.read(self._descriptor, 65536)
            except OSError:  # what a pseudo-terminal says when nobody is at its other side any more
                data = b""
            with self._changed:
                self._gathered += data
                self._ended = not data
                self._changed.notify_all()
        os.close(self._descriptor)

    def expect(self, wanted: bytes) -> bytes:
        """Wait for these bytes, after those that were expected before; return what came before them, and them."""

        def is_there() -> bool:
            return self._gathered.find(wanted, self._taken) >= 0

        with self._changed:
            self._changed.wait_for(lambda: self._ended or is_there(), PATIENCE)
            assert is_there(), (
                f"{wanted!r} never came; this did: {bytes(self._gathered[self._taken :])!r}"
            )
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
        """Wait for the thread, once nobody can write any more."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "somebody can still write"


# The server


class Server:
    """A running server."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Output, listeners: int = 1) -> None:
        self.process = process
        self.log = log
        self.names: list[str] = []
        """Where it listens."""
        for _ in range(listeners):
            line = log.line()
            self.names.append(line.removeprefix("Waiting for connection on "))
            assert self.names[-1] != line, line
        ports = [re.fullmatch(r"(?:127\.0\.0\.1|\[::1\]):(\d+)", name) for name in self.names]
        self.port = next((int(port[1]) for port in ports if port), 0)
        """The first TCP port of these."""

    def stop(self, number: int = signal.SIGTERM) -> str:
        """End it by a signal, see that it ends well, and return what it has logged and nobody has looked at."""
        self.process.send_signal(number)
        assert self.process.wait(PATIENCE) == 0
        return self.log.rest().decode()


@contextlib.contextmanager
def serving(
    *options: str, command: tuple[str, ...] = COMMAND, env: dict[str, str] | None = None
) -> Iterator[Server]:
    """Run a server on a free port; at the end it must still be able to end well."""
    with serving_at("--port", "0", *options, command=command, env=env) as server:
        assert server.port
        yield server


@contextlib.contextmanager
def serving_at(
    *options: str,
    listeners: int = 1,
    command: tuple[str, ...] = COMMAND,
    env: dict[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[Server]:
    """Run a server in the same way, where the options say; it has so many listeners."""
    with started(
        *command, "serve", *options, stdout=subprocess.DEVNULL, env=env, pass_fds=pass_fds
    ) as process:
        assert process.stderr
        log = Output(process.stderr.fileno())
        try:
            server = Server(process, log, listeners)
            yield server
            if process.poll() is None:
                assert "Traceback" not in server.stop()
        finally:
            process.kill()
            process.wait(PATIENCE)
            log.join()


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

    def say(self, data: bytes) -> None:
        """Send all of this."""
        self.socket.sendall(data)

    def end(self) -> None:
        """End this side of the connection (half-close)."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def hear(self, words: bytes) -> None:
        """Receive exactly these bytes, in whatever pieces; what comes after them stays there."""
        heard = b""
        while len(heard) < len(words):
            data = self.socket.recv(min(len(words) - len(heard), 65536))
            assert data, f"the connection ended after {heard!r} where {words!r} was expected"
            heard += data
            assert words.startswith(heard), f"{heard!r} came where {words!r} was expected"

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

    What goes wrong in a script is raised at the end of the block, unless the block itself has
    failed.
    """
    failures: list[BaseException] = []

    def play(listener: socket.socket) -> None:
        try:
            for script in scripts:
                with Peer(listener.accept()[0]) as peer:
                    script(peer)
        except BaseException as exc:  # noqa: BLE001 - it is raised in the test's own thread
            failures.append(exc)

    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=play, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1]
        except BaseException:
            listener.shutdown(socket.SHUT_RDWR)  # nobody else will come
            raise
        finally:
            thread.join()
    if failures:
        raise failures[0]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


# Terminals

# A terminal becomes a session's when the session's leader asks for it, so the process must do that
# by itself. It stays the same process when it becomes the command.
_TAKE_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


@contextlib.contextmanager
def started_on_terminal(
    *arguments: str, stdout: Stdio = None, stderr: Stdio = None, env: dict[str, str] | None = None
) -> Iterator[tuple["subprocess.Popen[bytes]", IO[bytes]]]:
    """Start the command on a pseudo-terminal, or with some of its output elsewhere; yield the terminal's other end."""
    master, slave = pty.openpty()
    with (
        os.fdopen(master, "rb+", buffering=0) as keyboard,
        os.fdopen(slave, "rb+", buffering=0) as line,
    ):
        termios.tcsetwinsize(line, (24, 80))
        command = (sys.executable, "-S", "-c", _TAKE_TERMINAL, *COMMAND, *arguments)
        out, err = stdout or line, stderr or line
        with started(
            *command, stdin=line, stdout=out, stderr=err, env=env, session=True
        ) as process:
            line.close()
            yield process, keyboard


class Terminal:
    """The person in front of a pseudo-terminal, on which the command runs."""

    def __init__(self, process: "subprocess.Popen[bytes]", keyboard: IO[bytes]) -> None:
        self.process = process
        self.screen = Output(keyboard.fileno())
        self._keyboard = keyboard
        self._settings = termios.tcgetattr(keyboard)

    def type(self, keys: bytes | str) -> None:
        """Press these keys."""
        self._keyboard.write(keys.encode() if isinstance(keys, str) else keys)

    def expect(self, *wanted: bytes | str) -> None:
        """Wait until all this was shown, in this order."""
        for each in wanted:
            self.screen.expect(each.encode() if isinstance(each, str) else each)

    def answer(self, keys: bytes | str) -> None:
        """Wait until a name is asked for, and type."""
        self.expect(ASK)
        self.type(keys)

    def end(self, status: int) -> str:
        """Wait for the end of the process, and return what was shown last and nobody has looked at.

        The process must end with this status, and leave the terminal as it found it.
        """
        ended = self.process.wait(PATIENCE)
        rest = self.screen.rest().decode(errors="replace").replace("\r\n", "\n")
        assert ended == status, f"it ended with {ended}, and {rest!r}"
        assert termios.tcgetattr(self._keyboard) == self._settings, (
            "the terminal's settings are not put back"
        )
        shown = self.screen.all()
        assert shown.count(b"\x1b[?2004h") == shown.count(b"\x1b[?2004l"), (
            "bracketed paste stays on"
        )
        return rest


@contextlib.contextmanager
def on_terminal(
    *arguments: str, stdout: Stdio = None, stderr: Stdio = None, env: dict[str, str] | None = None
) -> Iterator[Terminal]:
    """Run the command on a pseudo-terminal, or with some of its output elsewhere."""
    with started_on_terminal(*arguments, stdout=stdout, stderr=stderr, env=env) as (
        process,
        keyboard,
    ):
        terminal = Terminal(process, keyboard)
        try:
            yield terminal
        finally:
            process.kill()
            process.wait(PATIENCE)
            terminal.screen.join()
