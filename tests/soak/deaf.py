"""Many clients that pipeline and never read.

What that can cost: the server reads nothing from a client as long as that client takes nothing. So
it keeps the answers to one read, which have at most 17 times as many bytes (PROTOCOL.md, M2), and
the connection itself.
"""

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence

from tests.support.accounting import Command
from tests.support.crowds import connect

from .clients import chatting
from .connections import KIB_PER_CONNECTION
from .finding import Finding, Sizes, at_most, exactly
from .server import Server, serving, wait_until

BLOCK = b"\n" * 16384  # as much as the server reads at once; each LF is answered with PROMPT
KIB_PER_DEAF = KIB_PER_CONNECTION + (17 * len(BLOCK) + 1024 + 128) / 1024
GROWTH = 1.05  # of what is called flat


def deaf(sizes: Sizes, command: Command) -> Iterator[Finding]:
    """Let clients pipeline without end and never read: each costs a bounded amount of memory."""
    with serving(command, "--send-timeout", "60") as server, chatting(server.port, 5, 0.01) as chat:
        before, descriptors = server.memory(), server.descriptors()
        with _deaf(server.port, sizes.deaf) as socks:
            settled = _pipeline(socks, server, sizes.send_timeout)[-1]
            most = max(_pipeline(socks, server, sizes.deaf_seconds))
            served = server.descriptors() - descriptors
        yield exactly("deaf clients at the same time", served, sizes.deaf)
        yield at_most("memory for each of them", (most - before) / served, KIB_PER_DEAF, "KiB")
        yield at_most("the most memory while they go on, to the first", most / settled, GROWTH)
    yield from chat
    yield from _cut(sizes, command)


def _cut(sizes: Sizes, command: Command) -> Iterator[Finding]:
    with serving(command, "--send-timeout", str(sizes.send_timeout)) as server:
        with chatting(server.port, 5, 0.01) as chat:
            descriptors = server.descriptors()
            peaks, left = [], []
            for _ in range(2):
                start = time.monotonic()
                with _deaf(server.port, sizes.deaf) as socks:
                    peaks.append(max(_pipeline(socks, server, sizes.send_timeout)))
                    wait_until(lambda: server.descriptors() <= descriptors, 2 * sizes.send_timeout)
                    left.append(server.descriptors() - descriptors)
                yield Finding("a wave, until the last was cut", f"{time.monotonic() - start:.3g} s")
        yield exactly("deaf clients that were not cut, in each wave", left, [0, 0])
        yield at_most("memory at the peak, second wave to first", peaks[1] / peaks[0], GROWTH)
        yield from chat
        yield from server.farewell()


@contextlib.contextmanager
def _deaf(port: int, number: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(port, receive_buffer=4096)) for _ in range(number)]
        for sock in socks:
            sock.settimeout(0)
        yield socks


def _pipeline(socks: Sequence[socket.socket], server: Server, seconds: float) -> list[int]:
    """Send what can be sent, for so many seconds; return the server's memory meanwhile, in KiB."""
    samples: list[int] = []
    end = time.monotonic() + seconds
    while not samples or time.monotonic() < end:
        for sock in socks:
            with contextlib.suppress(OSError):  # there is no room, or it was cut already
                sock.send(BLOCK)
        samples.append(server.memory())
        time.sleep(0.02)
    return samples
