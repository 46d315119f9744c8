"""The workloads: what clients do with one server, and what that costs the server."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import repeat
from socket import socket
from typing import Final, TypeAlias

import attrs

from tests.support.accounting import ServerProcess
from tests.support.crowds import Exchange, exchange

from .load import Client, connect, converse, leave, receive_welcome, run, send_names


@attrs.frozen(kw_only=True)
class Sizes:
    """How much of each workload is one measurement."""

    clients: int = 50
    names_in_turn: int = 3000  # of all clients together, where each sends one name at a time
    crowd: int = 1000  # clients
    multitude: int = 8000  # clients
    blocks: int = 4  # of each client
    names: int = 1000  # in each block
    conversations: int = 100
    conversations_at_once: int = 20
    connections: int = 2000
    piped: int = 1_000_000  # names


@attrs.frozen(kw_only=True)
class Measured:
    cost: float  # of one greeting, conversation or connection, in the workload's unit
    count: int  # how many there were, all of them verified
    rate: float | None = None  # of them in a second of wall time
    p50: float | None = None  # milliseconds from a name to its greeting, as the load saw it
    p99: float | None = None


Measure: TypeAlias = Callable[[], Measured]
"""Put the server under load once, and measure that."""
Workload: TypeAlias = Callable[[ServerProcess, Sizes], AbstractContextManager[Measure]]
"""Connect clients to the server, warm it up, and return how to measure it."""


def alone(server: ServerProcess, sizes: Sizes) -> AbstractContextManager[Measure]:
    """Let one client send a name, and the next one after the reply: CPU in µs per greeting."""
    return _single_names(server, 1, sizes.names_in_turn)


def ping_pong(server: ServerProcess, sizes: Sizes) -> AbstractContextManager[Measure]:
    """Let several clients do that."""
    return _single_names(server, sizes.clients, sizes.names_in_turn)


def ping_pong_crowd(server: ServerProcess, sizes: Sizes) -> AbstractContextManager[Measure]:
    """Let many do it."""
    return _single_names(server, sizes.crowd, 3 * sizes.names_in_turn)


def ping_pong_multitude(server: ServerProcess, sizes: Sizes) -> AbstractContextManager[Measure]:
    """Let very many do it."""
    return _single_names(server, sizes.multitude, 5 * sizes.names_in_turn)


def pipelined(server: ServerProcess, sizes: Sizes) -> AbstractContextManager[Measure]:
    """Let each client send a block of names, and the next one after all replies: as above."""
    blocks = [exchange(client * sizes.names, sizes.names) for client in range(sizes.clients)]
    return _greetings(server, [[block] * sizes.blocks for block in blocks], sizes.names)


@contextmanager
def churn(server: ServerProcess, sizes: Sizes) -> Iterator[Measure]:
    """Let clients connect, be greeted once, send `exit` and close: CPU in µs per conversation."""

    def measure() -> Measured:
        count = sizes.conversations
        clients = (converse(server.port, [exchange(number)]) for number in range(count))
        before = server.cpu()
        run(clients, sizes.conversations_at_once)
        return Measured(cost=(server.cpu() - before) / 1000 / count, count=count)

    measure()
    yield measure


@contextmanager
def idle(server: ServerProcess, sizes: Sizes) -> Iterator[Measure]:
    """Let clients connect, wait for PROMPT, and stay: growth in KiB per connection.

    This can be measured only once for each process, which keeps the memory for later connections.
    """

    def measure() -> Measured:
        before = server.memory()
        with _connected(server.port, sizes.connections) as socks:
            after = server.memory()
            # They are all still served.
            run(send_names(sock, [exchange(number)]) for number, sock in enumerate(socks))
        return Measured(cost=(after - before) / len(socks), count=len(socks))

    run([converse(server.port, [exchange(0)])])
    yield measure


WORKLOADS: Final[Mapping[str, Workload]] = {
    "ping-pong-1": alone,
    "ping-pong-50": ping_pong,
    "ping-pong-1000": ping_pong_crowd,
    "ping-pong-8000": ping_pong_multitude,
    "pipelined": pipelined,
    "churn": churn,
    "idle": idle,
}


def _single_names(
    server: ServerProcess, clients: int, names: int
) -> AbstractContextManager[Measure]:
    each = max(names // clients, 1)
    starts = range(0, clients * each, each)
    return _greetings(server, [[*map(exchange, range(start, start + each))] for start in starts])


@contextmanager
def _greetings(
    server: ServerProcess, exchanges: Sequence[Sequence[Exchange]], names: int = 1
) -> Iterator[Measure]:
    """Measure the exchanges of each client, of so many names each."""
    count = sum(map(len, exchanges)) * names
    with _connected(server.port, len(exchanges)) as socks:

        def measure() -> Measured:
            took: list[float] = []
            before, start = server.cpu(), time.perf_counter()
            run(map(send_names, socks, exchanges, repeat(took)))
            rate = count / (time.perf_counter() - start)
            cost = (server.cpu() - before) / 1000 / count
            if names > 1:
                return Measured(cost=cost, count=count, rate=rate)
            took.sort()
            p50, p99 = (1000 * took[int(len(took) * part)] for part in (0.5, 0.99))
            return Measured(cost=cost, count=count, rate=rate, p50=p50, p99=p99)

        measure()
        yield measure


@contextmanager
def _connected(port: int, number: int) -> Iterator[list[socket]]:
    """Have connections that have received PROMPT; unless something fails, end them in order."""
    with ExitStack() as stack:
        socks: list[socket] = []

        def clients() -> Iterator[Client]:
            for _ in range(number):
                socks.append(stack.enter_context(connect(port)))
                yield receive_welcome(socks[-1])

        run(clients(), at_once=50)  # fewer than any server's backlog
        yield socks
        run(map(leave, socks))
