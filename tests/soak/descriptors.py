"""More clients than descriptors."""

import contextlib
import resource
import select
import sys
import time
from collections.abc import Iterator

from tests.benchmarks.load import expect
from tests.benchmarks.wire import WELCOME

from .clients import Chat, connect, crowd
from .finding import Command, Finding, Sizes, at_most, exactly
from .server import serving

COMPLAINT = "Cannot accept"  # what the server logs
CPU_SHARE = 0.1
DELAY = 0.5  # seconds


def descriptors(sizes: Sizes, command: Command) -> Iterator[Finding]:
    """Let a server have few descriptors, and more clients: it waits for better times, with patience."""
    if sys.platform != "linux":
        raise NotImplementedError
    with serving(command) as server:
        with Chat(server.port, 10, 0.05) as chat, contextlib.ExitStack() as stack:
            limit = server.descriptors() + sizes.places
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (limit, limit))
            with crowd(server.port, sizes.places):
                start, cpu = time.monotonic(), server.cpu_so_far()
                waiting = [stack.enter_context(connect(server.port)) for _ in range(sizes.places)]
                time.sleep(sizes.starved_seconds)
                cpu = server.cpu_so_far() - cpu
                complaints = server.logged(COMPLAINT)
                seconds = time.monotonic() - start
                welcomed = len(select.select(waiting, [], [], 0)[0])
            start = time.monotonic()
            for sock in waiting:
                expect(sock, WELCOME)
            delay = time.monotonic() - start
        yield exactly("welcomed without a descriptor", welcomed, 0)
        yield at_most("CPU time for each second", cpu / seconds, CPU_SHARE, "s")
        yield Finding(
            f"lines in the log, in {seconds:.1f} s",
            str(complaints),
            f"1 to {seconds + 1:.0f}",
            1 <= complaints <= seconds + 1,
        )
        yield at_most("until the last was welcomed, with descriptors", delay, DELAY, "s")
        yield from chat.findings()
        yield from server.farewell()
