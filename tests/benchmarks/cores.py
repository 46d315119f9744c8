"""Two servers on one port beside one: `python -m tests.benchmarks.cores`.

Each server is pinned to a core of its own. The load has as many processes, which run wherever there
is room. Where servers and load together need more cores than there are, the greetings a second say
nothing about the servers; what a greeting costs them does.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path

from tests.support.accounting import PATIENCE, Command, ServerProcess
from tests.support.crowds import HOST, exchange

from .load import Client, connect, leave, receive_welcome, run, send_names

CLIENTS = 50  # of each process of the load
NAMES = 400  # of each client, one at a time
ROUNDS = 3


def load(port: int) -> int:
    """Put one process's share of load on a port; return how many names were greeted."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(port)) for _ in range(CLIENTS)]

        def converse(number: int) -> Client:
            yield from receive_welcome(socks[number])
            yield from send_names(socks[number], map(exchange, range(NAMES)))
            yield from leave(socks[number])

        run(map(converse, range(CLIENTS)))
    return CLIENTS * NAMES


@contextlib.contextmanager
def servers(number: int) -> Iterator[list[ServerProcess]]:
    """Run so many servers on one port, each on a core of its own."""
    if sys.platform != "linux":
        raise NotImplementedError
    cpus = sorted(os.sched_getaffinity(0))
    options = ["serve", "--host", HOST, "--reuse-port", "--log-level", "warning", "--port"]
    with contextlib.ExitStack() as stack:
        found: list[ServerProcess] = []
        for cpu in cpus[:number]:
            port = found[0].port if found else 0
            popen = Command(["-m", "greeter_trio", *options, str(port)]).start()
            stack.callback(popen.wait, PATIENCE)
            stack.callback(popen.send_signal, signal.SIGTERM)
            os.sched_setaffinity(popen.pid, {cpu})
            found.append(ServerProcess(popen))
        yield found


def main() -> None:
    if not Path("/proc/self/stat").exists() or (os.cpu_count() or 1) < 2:
        sys.exit("This needs Linux, and a second core.")
    print("servers  greetings/s  us of CPU per greeting, of each server")
    for number in [1, 2] * ROUNDS:
        with servers(number) as processes, ProcessPoolExecutor(number) as pool:
            before, start = [each.cpu() for each in processes], time.perf_counter()
            greeted = sum(pool.map(load, repeat(processes[0].port, number)))
            rate = greeted / (time.perf_counter() - start)
            spent = [each.cpu() - cpu for each, cpu in zip(processes, before, strict=True)]
            total = sum(spent) / 1000 / greeted
            shares = ", ".join(f"{cpu / sum(spent):.0%}" for cpu in spent)
            print(f"{number:7}{rate:13,.0f}  {total:.1f} (shares {shares})", flush=True)


if __name__ == "__main__":
    main()
