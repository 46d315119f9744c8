"""A bad path between two hosts, for the kernel's own TCP to go over.

A process of its own (`router.py`) makes two network namespaces, the hosts, each with one TUN
device. What one host sends comes out of its device, and goes into the other's: late, out of order,
or never.

No other process has to be *in* a namespace. The router opens sockets there and passes them to the
process that uses it: a socket stays in the namespace in which it was opened. So nothing has a name
outside, the rest of the machine sees nothing of it, and it is gone as soon as the router and the
sockets are. The router ends with the process that uses it, because their channel ends then.
"""

import contextlib
import json
import math
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path as File

import attrs


@attrs.frozen
class Impairment:
    """What happens to packets, in each direction by itself."""

    delay: float = 0.0  # seconds
    jitter: float = 0.0  # seconds; the delay varies by this, up and down, but the order remains
    loss: float = 0.0  # the part that is lost, 0 to 1
    ahead: float = 0.0  # the part that is not delayed, and so overtakes others, 0 to 1
    dead_from: float = math.inf  # seconds after the first packet; then all packets are lost
    dead_for: float = 0.0  # seconds


class Unavailable(Exception):
    """Paths cannot be made here; the message says why."""


class Path:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        answer, listener = self._answer()
        if not listener:
            raise Unavailable(answer or "the router has ended")
        self.listener = listener
        """A listening socket of the server's host."""

    def connect(self) -> socket.socket:
        """Return a non-blocking socket of the client's host, which connects to the listener."""
        self._channel.send(b"socket")
        _, sock = self._answer()
        assert sock
        sock.settimeout(0)
        sock.connect_ex(self.listener.getsockname())
        return sock

    def counted(self) -> dict[str, int]:
        """Return how many packets there were so far, and what happened to how many of them."""
        self._channel.send(b"count")
        counted: dict[str, int] = json.loads(self._answer()[0])
        return counted

    def _answer(self) -> tuple[str, socket.socket | None]:
        """Return the router's next message, and the socket that comes with it, if one does."""
        if sys.platform == "win32":
            raise NotImplementedError
        data, descriptors, _, _ = socket.recv_fds(self._channel, 4096, 1)
        return data.decode(), socket.socket(fileno=descriptors[0]) if descriptors else None


@contextlib.contextmanager
def path(impairment: Impairment, seed: int) -> Iterator[Path]:
    """Make a path, for as long as the context lasts.

    Raises `Unavailable` where that is not possible.
    """
    if sys.platform != "linux":
        raise Unavailable("paths can be made on Linux alone")
    arguments = [json.dumps(attrs.asdict(impairment)), str(seed)]
    command = [sys.executable, "-m", f"{__package__}.router", *arguments]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            root = File(__file__).parents[2]
            process = subprocess.Popen(command, stdin=theirs.fileno(), cwd=root)
        with process:
            try:
                made = Path(ours)
                with made.listener:
                    yield made
            finally:
                process.kill()
