"""A server that dies in the midst of conversations, and the next one at its place."""

import signal
import sys
import time
from collections.abc import Iterator

from tests.benchmarks.wire import LF

from .clients import crowd, leave
from .finding import Command, Finding, Sizes, exactly, none_of, note
from .server import serving

CONNECTIONS = 100


def restart(sizes: Sizes, command: Command) -> Iterator[Finding]:
    """Kill servers, and start others on the same ports while the clients of the first are still there."""
    if sys.platform != "linux":
        raise NotImplementedError
    ports, seconds = [], []
    hanging: list[str] = []
    for _ in range(sizes.restarts):
        with serving(command) as first, crowd(first.port, CONNECTIONS) as left_alone:
            for sock in left_alone[::2]:
                sock.sendall(b"Ada" + LF + b"Gra")
            first.send_signal(signal.SIGKILL)
            first.wait()
            start = time.monotonic()
            with (
                serving(command, "--port", str(first.port)) as second,
                crowd(second.port, CONNECTIONS) as newcomers,
            ):
                seconds.append(time.monotonic() - start)
                leave(newcomers)
            ports.append(second.port == first.port)
            for sock in left_alone:
                try:
                    while sock.recv(65536):
                        pass
                except ConnectionResetError:
                    pass
                except BlockingIOError:
                    hanging.append(str(sock.getsockname()))
    yield exactly("servers that came back on their port", sum(ports), sizes.restarts)
    yield none_of(
        "connections to dead servers that did not end", hanging, sizes.restarts * CONNECTIONS
    )
    yield note("until all newcomers were asked for a name", f"{max(seconds):.3g} s, the longest")
