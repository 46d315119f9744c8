"""Many clients that send a byte every now and then.

Half of them send lines that never end. The others' bytes are names without a terminator, which are
answered, and the answers are not read. With the drippers silent and dripping in turn, honest
clients are served beside them.
"""

import contextlib
import itertools
import os
import socket
import statistics
import threading
import time
from collections.abc import Iterator, Sequence

from tests.support.accounting import Command, Process
from tests.support.crowds import crowd, exchange, expect

from .finding import Finding, Sizes, at_most, none_of
from .server import serving

HONEST = 10  # clients
INTERVAL = 1.5  # seconds between two bytes of one dripper
RATIO = 2


def drippers(sizes: Sizes, command: Command) -> Iterator[Finding]:
    """Let others drip: honest clients do not wait much longer for their replies."""
    with (
        serving(command) as server,
        crowd(server.port, HONEST) as honest,
        crowd(server.port, sizes.drippers) as crowded,
    ):
        for sock in crowded[::2]:
            sock.sendall(b"\n")
        processes = [server, Process(os.getpid())]
        silent, dripping = [], []
        failures: list[str] = []
        start, waited = time.monotonic(), sum(process.waited() for process in processes)
        for _ in range(sizes.drip_turns):
            silent.append(_latencies(honest, sizes.drip_seconds))
            with _dripping(crowded, failures):
                dripping.append(_latencies(honest, sizes.drip_seconds))
        waited = sum(process.waited() for process in processes) - waited
        noise = waited / 1e9 / (time.monotonic() - start)
        for what, latencies in ("they are silent", silent), ("they drip", dripping):
            median, slow = map(statistics.median, zip(*latencies, strict=True))
            p99s = [p99 for _, p99 in latencies]
            figure = f"{median:.0f} and {slow:.0f} µs (p99 {min(p99s):.0f} - {max(p99s):.0f})"
            yield Finding(f"reply while {what}, p50 and p99", figure)
        ratios = [drip[1] / quiet[1] for quiet, drip in zip(silent, dripping, strict=True)]
        yield Finding("ratio of p99, least and greatest", f"{min(ratios):.2f} - {max(ratios):.2f}")
        yield Finding("time that server and load waited for a CPU", f"{noise:.0%}")
        yield at_most("ratio of p99, median", statistics.median(ratios), RATIO)
        yield none_of("drippers that lost their connection", failures, len(crowded))
        yield from server.farewell()


def _latencies(socks: Sequence[socket.socket], seconds: float) -> tuple[float, float]:
    """Have names greeted, one by one; return median and 99th percentile of the waits, in µs."""
    latencies: list[float] = []
    end = time.monotonic() + seconds
    while len(latencies) < 2 or time.monotonic() < end:
        number = len(latencies)
        line, reply = exchange(number)
        sock = socks[number % len(socks)]
        start = time.perf_counter_ns()
        sock.sendall(line)
        expect(sock, reply)
        latencies.append((time.perf_counter_ns() - start) / 1000)
    return statistics.median(latencies), statistics.quantiles(latencies, n=100)[98]


@contextlib.contextmanager
def _dripping(socks: Sequence[socket.socket], failures: list[str]) -> Iterator[None]:
    """Have each of these send a byte in each interval, evenly spread."""
    over = threading.Event()

    def drip() -> None:
        for sock in itertools.cycle(socks):
            if over.wait(INTERVAL / len(socks)):
                return
            try:
                sock.sendall(b"x")
            except OSError as exc:
                failures.append(str(exc))

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
