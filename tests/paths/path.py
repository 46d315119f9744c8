"""A bad path between two hosts, for the kernel's own TCP to go over.

A process of its own (`router.py`) makes two network namespaces, the hosts, each with one TUN
device. What one host sends comes out of its device, and goes into the other's: late, out of order,
or never.

No other process has to be *in* a namespace. The router opens sockets there and passes them to the
process that uses it: a socket stays in the namespace in which it was opened. So nothing has a name
outside, the rest of the machine sees nothing of it, and it is gone as soon as the router and the
sockets are. The router ends with the process that uses it, because their channel ends then.

A server that shuts down looks at its namespace's connections, and for that it has to be in it
(`Path.inside`, `inside.py`).
"""

import contextlib
import json
import math
import os
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
        answer, descriptors = self._answer()
        if not descriptors:
            raise Unavailable(answer or "the router has ended")
        number, *self.namespaces = descriptors
        """Descriptors of the namespaces that make the server's host."""
        self.listener = socket.socket(fileno=number)
        """A listening socket of the server's host."""
        self.host: str = self.listener.getsockname()[0]
        """The address of the server's host."""

    def close(self) -> None:
        self.listener.close()
        for number in self.namespaces:
            os.close(number)

    def inside(self, *command: str) -> tuple[str, ...]:
        """Return a command that runs this one on the server's host; pass it the `namespaces`."""
        numbers = ",".join(map(str, self.namespaces))
        return (sys.executable, "-m", f"{__package__}.inside", numbers, *command)

    def connect(self, port: int | None = None) -> socket.socket:
        """Return a non-blocking socket of the client's host, which connects to the listener.

        With `port` it connects to that of the server's host.
        """
        self._channel.send(b"socket")
        _, (number,) = self._answer()
        sock = socket.socket(fileno=number)
        sock.settimeout(0)
        sock.connect_ex((self.host, port) if port else self.listener.getsockname())
        return sock

    def cut(self) -> None:
        """Lose all packets from the server to the client from now on."""
        self._channel.send(b"cut")
        self._answer()

    def counted(self) -> dict[str, int]:
        """Return how many packets there were so far, and what happened to how many of them."""
        self._channel.send(b"count")
        counted: dict[str, int] = json.loads(self._answer()[0])
        return counted

    def _answer(self) -> tuple[str, list[int]]:
        """Return the router's next message, and the descriptors that come with it."""
        if sys.platform == "win32":
            raise NotImplementedError
        data, descriptors, _, _ = socket.recv_fds(self._channel, 4096, 3)
        return data.decode(), descriptors


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
                with contextlib.closing(Path(ours)) as made:
                    yield made
            finally:
                process.kill()
