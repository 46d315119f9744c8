"""Connections that are idle, that are reset, and for which there are no descriptors."""

import contextlib
import resource
import select
import socket
import sys
import time
from collections.abc import Iterator
from typing import Final

from tests.support.accounting import Command
from tests.support.connections import dialogue
from tests.support.crowds import connect, crowd, exchange, expect, leave, reset
from tests.support.words import WELCOME

from .clients import chatting, transcript
from .finding import Finding, Sizes, at_most, exactly
from .server import serving, wait_until

KIB_PER_CONNECTION = 7
CPU_SHARE = 0.1  # of a server that waits for descriptors
DELAY = 0.5  # seconds until the last client is welcomed, when there are descriptors


def idle(sizes: Sizes, command: Command) -> Iterator[Finding]:
    """Let most clients wait while others talk: each costs little, and all replies are right."""
    with serving(command) as server:
        with crowd(server.port, 1) as first:
            leave(first)
        before = server.memory()
        with crowd(server.port, sizes.idle) as silent:
            quiet = server.memory()
            with chatting(server.port, sizes.active) as chat:
                time.sleep(sizes.idle_seconds)
                after = server.memory()
            for number, sock in enumerate(silent):
                line, reply = exchange(number)
                sock.sendall(line)
                expect(sock, reply)
            leave(silent)
        growth = (after - before) / (sizes.idle + sizes.active)
        yield at_most("memory for each connection", growth, KIB_PER_CONNECTION, "KiB")
        yield Finding(
            "of this, before the others talked", f"{(quiet - before) / sizes.idle:.3g} KiB"
        )
        yield from chat
        yield Finding("silent clients, each greeted in the end", f"{len(silent):,}")
        yield from server.farewell()


AT_ONCE = 50  # connections
STATES: Final = {
    "before anything": (b"", b""),
    "after WELCOME": (b"", WELCOME),
    "in a name": (b"Ada\nGra", transcript(b"Ada")),
    "with unread answers": (b"Ada\n" * 1000, transcript(b"Ada")),
    "while closing": (b"exit\n", dialogue()),
}
"""What to say first, and to hear then, before the connection is broken."""


def resets(sizes: Sizes, command: Command) -> Iterator[Finding]:
    """Reset connections: the server closes its descriptors, and other clients notice nothing."""
    with serving(command) as server:
        with chatting(server.port, 5, 0.005) as chat:
            descriptors = server.descriptors()
            for state, (words, replies) in STATES.items():
                for _ in range(0, sizes.resets, AT_ONCE):
                    _break([connect(server.port) for _ in range(AT_ONCE)], words, replies)
                with crowd(server.port, 1) as last:  # it is accepted after all of these
                    leave(last)
                wait_until(lambda: server.descriptors() == descriptors, sizes.patience)
                left = server.descriptors() - descriptors
                yield exactly(f"descriptors left by resets {state}", left, 0)
        yield from chat
        yield from server.farewell()


def _break(socks: list[socket.socket], words: bytes, replies: bytes) -> None:
    try:
        for sock in socks:
            sock.sendall(words)
        if replies:
            for sock in socks:
                expect(sock, replies)
    finally:
        for sock in socks:
            reset(sock)


def descriptors(sizes: Sizes, command: Command) -> Iterator[Finding]:
    """Connect more clients than there are descriptors: the server waits, and uses little CPU."""
    if sys.platform != "linux":
        raise NotImplementedError
    with serving(command) as server:
        with chatting(server.port, 10, 0.05) as chat, contextlib.ExitStack() as stack:
            limit = server.descriptors() + sizes.places
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, limit))
            with crowd(server.port, sizes.places):
                start, cpu = time.monotonic(), server.cpu_so_far()
                waiting = [stack.enter_context(connect(server.port)) for _ in range(sizes.places)]
                time.sleep(sizes.starved_seconds)
                cpu = server.cpu_so_far() - cpu
                complaints = server.logged("Cannot accept")
                seconds = time.monotonic() - start
                welcomed = len(select.select(waiting, [], [], 0)[0])
            start = time.monotonic()
            for sock in waiting:
                expect(sock, WELCOME)
            delay = time.monotonic() - start
        yield exactly("welcomed without a descriptor", welcomed, 0)
        yield at_most("CPU time for each second", cpu / 1e9 / seconds, CPU_SHARE, "s")
        lines, most = f"lines in the log, in {seconds:.1f} s", seconds + 1
        yield Finding(lines, str(complaints), f"1 to {most:.0f}", 1 <= complaints <= most)
        yield at_most("until the last was welcomed, with descriptors", delay, DELAY, "s")
        yield from chat
        yield from server.farewell()
