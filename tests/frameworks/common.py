"""What the adapters in this folder share, and what is the business of no framework.

Each of them is a server: `python -m tests.frameworks.threads --port 6000`.
"""

import argparse
import json
import math
import signal
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from greeter_core import ServerConfig, ServerConnection, read_transcript, write_header

_fcntl: Any = None
_termios: Any = None
if sys.platform != "win32":
    import fcntl as _fcntl
    import termios as _termios

READ_SIZE: Final = 16384  # bytes
BACKLOG: Final = 1024  # connections

_SLICE = 65536  # bytes that a peer has to take within the time limit for sends
_READ_AHEAD = 2**20  # bytes, more than a framework has read and not handed over yet
_LONGEST_WAIT = 86400.0  # seconds; some frameworks fail with very large numbers
_INET = (socket.AF_INET, socket.AF_INET6)
_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)  # SO_LINGER


class Conversation:
    """A server connection that knows the rules of INTEGRATING.md which are no framework's business.

    After each call of `give`, and before the first: send `data_to_send` again and again, each time
    within the time limit for sends, until there is nothing; half-close if `eof_to_send` says so;
    close if it is `finished`; else wait for something to read, but no longer than `timeout`.
    """

    def __init__(self, config: ServerConfig, sock: socket.socket, now: float) -> None:
        self._server = ServerConnection(config, now=now)
        self._sock = sock
        self._unsent = memoryview(b"")
        # Before a shutdown: how many bytes to wait for at most, because they may have arrived.
        self._unread = math.inf

    def data_to_send(self) -> bytes:
        """Return what a peer has to take within the time limit for sends; `b""` for nothing."""
        if not self._unsent:
            data = self._server.data_to_send()
            if len(data) <= _SLICE:
                return data
            self._unsent = memoryview(data)
        data, self._unsent = bytes(self._unsent[:_SLICE]), self._unsent[_SLICE:]
        return data

    def eof_to_send(self) -> bool:
        """Return True, once, when the stream is to be ended: all bytes have been handed out."""
        return not self._unsent and self._server.eof_to_send()

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen, and all output has been handed out."""
        return not self._unsent and self._server.finished

    def timeout(self, now: float) -> float:
        """Return how long to wait; a number that any framework takes."""
        return min(max(self._deadline - now, 0.0), _LONGEST_WAIT)

    def give(self, data: bytes | memoryview | None, now: float) -> None:
        """Hand over what one read returned; `b""` is the end of the stream.

        None is for nothing: the time to wait was over, and then nothing could be read (T3).
        """
        server = self._server
        server.receive(data, now, lambda: is_in_flight(self._sock))
        self._unread -= len(data or b"")
        if self._unread < 0 or (data is None and self._unread < math.inf):
            server.shutdown(now)
        server.events()  # nobody here wants to know

    def shut_down(self) -> None:
        """Have the conversation ended when what has arrived is answered; do not wait any more."""
        if self._unread == math.inf:
            self._unread = _bytes_arrived(self._sock) + _READ_AHEAD

    def lose(self) -> None:
        """Say that a read or a write failed."""
        self._unsent = memoryview(b"")
        self._server.connection_lost()
        self._server.events()

    @property
    def _deadline(self) -> float:
        ending = self._unread < math.inf and self._server.state.is_open
        return -math.inf if ending else self._server.deadline


# The kernel


def disable_nagle(sock: socket.socket) -> None:
    """Have each word sent in a segment of its own."""
    if sock.family in _INET:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def reset_at_close(sock: socket.socket) -> None:
    """Have the peer find a reset: it must not take a part of the output for the whole."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def is_in_flight(sock: socket.socket) -> bool:
    """Return whether the peer has yet to acknowledge something; False where that is unknown."""
    if sys.platform == "linux" and sock.family in _INET:
        return _ask(sock, _termios.TIOCOUTQ) > 0
    return False


def _bytes_arrived(sock: socket.socket) -> int:
    return _ask(sock, _termios.FIONREAD) if _termios else 0


def _ask(sock: socket.socket, request: int) -> int:
    if sock.fileno() < 0:
        return 0  # the framework has closed it, and has not said so yet
    (number,) = struct.unpack("i", _fcntl.ioctl(sock.fileno(), request, bytes(4)))
    return int(number)


# The command


def parser(**choices: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of the options that all adapters have, and of choices that one has."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--config", type=config, default=ServerConfig(), help="as in a transcript")
    parser.add_argument("--send-timeout", type=float, default=30.0, metavar="SECONDS")
    for name, values in choices.items():
        parser.add_argument(f"--{name}", choices=values, default=values[0])
    return parser


def config(text: str) -> ServerConfig:
    """Read the `config` of a transcript's `open` (TRANSCRIPT.md)."""
    what = {"id": 1, "at": 0, "input": "open", "role": "server", "config": json.loads(text)}
    line = json.dumps({**what, "state": "open", "framing": "auto"}) + "\n"
    step: Any
    ((_, step),) = read_transcript([write_header().encode(), line.encode()])
    config: ServerConfig = step.opening.config
    return config


def listen(options: argparse.Namespace) -> socket.socket:
    """Return a socket that listens, non-blocking, and say so."""
    listener = socket.create_server((options.host, options.port), backlog=BACKLOG)
    listener.settimeout(0.0)
    announce(*listener.getsockname())
    return listener


def announce(host: str, port: int) -> None:
    """Say where the server listens."""
    sys.stdout.write(f"listening on {host}:{port}\n")
    sys.stdout.flush()


def on_stop(stop: Callable[[], object]) -> None:
    """Have this called when a signal says that the program should end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop())


def stop_socket() -> socket.socket:
    """Return a socket that can be read from the moment on when the program should end.

    Nobody is to take out what can be read, so that all who wait for it see it.
    """
    reader, writer = socket.socketpair()
    writer.settimeout(0.0)
    # A handler in Python would not wake the main thread, if another thread gets the signal.
    signal.set_wakeup_fd(writer.detach())
    on_stop(lambda: None)
    return reader
