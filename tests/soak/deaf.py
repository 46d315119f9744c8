"""Many who pipeline and never read.

What that can cost: the server reads nothing from a client as long as that client takes nothing. So
it keeps the output for one read, which PROTOCOL.md (M2) makes 13 times as much where all names have
one byte, and the connection itself.
"""

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence

from .clients import Chat, connect
from .finding import Command, Finding, Sizes, at_most, exactly, note
from .idle import KIB_PER_CONNECTION
from .server import Server, serving, wait_until

BLOCK = b"a\n" * 8192  # as much as the server reads at once, 16 KiB
FACTOR = (
    13  # bytes that are said for each byte of this: `Hello a!` LF `What's your name?` for `a` LF
)
KIB_PER_DEAF = KIB_PER_CONNECTION + (FACTOR * len(BLOCK) + 1024 + 128) / 1024
GROWTH = 1.05  # of what is called flat


def deaf(sizes: Sizes, command: Command) -> Iterator[Finding]:
    """Let clients pipeline without end: there is a bound to the memory that takes, and it can be used again."""
    yield from _stuck(sizes, command)
    yield from _cut(sizes, command)


def _stuck(sizes: Sizes, command: Command) -> Iterator[Finding]:
    with serving(command, "--send-timeout", "60") as server, Chat(server.port, 5, 0.01) as chat:
        before = server.memory()
        with _deaf(server.port, sizes.deaf) as socks:
            settled = _pipeline(socks, server, sizes.send_timeout)[-1]
            most = max(_pipeline(socks, server, sizes.deaf_seconds))
        yield at_most(
            "memory for each deaf client", (most - before) / len(socks), KIB_PER_DEAF, "KiB"
        )
        yield at_most("the most memory while they go on, to the first", most / settled, GROWTH, "")
    yield from chat.findings()


def _cut(sizes: Sizes, command: Command) -> Iterator[Finding]:
    with serving(command, "--send-timeout", str(sizes.send_timeout)) as server:
        with Chat(server.port, 5, 0.01) as chat:
            descriptors = server.descriptors()
            peaks, left = [], []
            for _ in range(2):
                start = time.monotonic()
                with _deaf(server.port, sizes.deaf) as socks:
                    peaks.append(max(_pipeline(socks, server, sizes.send_timeout)))
                    wait_until(lambda: server.descriptors() <= descriptors, 2 * sizes.send_timeout)
                    left.append(server.descriptors() - descriptors)
                yield note("a wave, until the last was cut", f"{time.monotonic() - start:.3g} s")
        yield exactly("deaf clients who were not cut, in each wave", left, [0, 0])
        yield at_most("memory at the peak, second wave to first", peaks[1] / peaks[0], GROWTH, "")
        yield from chat.findings()
        yield from server.farewell()


@contextlib.contextmanager
def _deaf(port: int, number: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(port, receive_buffer=4096)) for _ in range(number)]
        for sock in socks:
            sock.setblocking(False)  # noqa: FBT003 - the standard library has no keyword for it
        yield socks


def _pipeline(socks: Sequence[socket.socket], server: Server, seconds: float) -> list[int]:
    """Send as much as can be sent, for so many seconds; return the server's memory meanwhile, in KiB."""
    samples: list[int] = []
    end = time.monotonic() + seconds
    while not samples or time.monotonic() < end:
        for sock in socks:
            with contextlib.suppress(OSError):  # there is no room, or it was cut already
                sock.send(BLOCK)
        samples.append(server.memory())
        time.sleep(0.02)
    return samples
