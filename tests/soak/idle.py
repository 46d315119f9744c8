"""Many who are silent, and some who are not."""

import time
from collections.abc import Iterator

from tests.benchmarks.load import expect
from tests.benchmarks.wire import exchange

from .clients import Chat, crowd, leave
from .finding import Command, Finding, Sizes, at_most, note
from .server import serving

KIB_PER_CONNECTION = 7


def idle(sizes: Sizes, command: Command) -> Iterator[Finding]:
    """Let most clients wait and the others talk for a while: no connection costs much, and all is said right."""
    with serving(command) as server:
        with crowd(server.port, 1) as first:
            leave(first)
        before = server.memory()
        with crowd(server.port, sizes.idle) as silent:
            quiet = server.memory()
            with Chat(server.port, sizes.active) as chat:
                time.sleep(sizes.idle_seconds)
                after = server.memory()
            for number, sock in enumerate(silent):
                line, reply = exchange(number)
                sock.sendall(line)
                expect(sock, reply)
            leave(silent)
        growth = (after - before) / (sizes.idle + sizes.active)
        yield at_most("memory for each connection", growth, KIB_PER_CONNECTION, "KiB")
        yield note("of this, before the others talked", f"{(quiet - before) / sizes.idle:.3g} KiB")
        yield from chat.findings()
        yield note("silent clients, each greeted in the end", f"{len(silent):,}")
        yield from server.farewell()
