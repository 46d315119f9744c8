"""The workloads: what clients do with one server, and what that costs the server."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
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
    exchanges: int = 60  # of each client, one name each
    crowd: int = 1000  # clients
    crowd_exchanges: int = 20  # of each of them, one name each
    blocks: int = 8  # of each client
    names: int = 1000  # in each block
    conversations: int = 100
    conversations_at_once: int = 20
    connections: int = 2000


@attrs.frozen(kw_only=True)
class Measured:
    cost: float  # of one greeting, conversation or connection, in the workload's unit
    count: int  # how many there were, all of them verified


Measure: TypeAlias = Callable[[], Measured]
"""Put the server under load once, and measure that."""
Workload: TypeAlias = Callable[[ServerProcess, Sizes], AbstractContextManager[Measure]]
"""Connect clients to the server, warm it up, and return how to measure it."""


def ping_pong(server: ServerProcess, sizes: Sizes) -> AbstractContextManager[Measure]:
    """Let each client send a name, and the next one after the reply: CPU in µs per greeting."""
    return _single_names(server, sizes.clients, sizes.exchanges)


def ping_pong_crowd(server: ServerProcess, sizes: Sizes) -> AbstractContextManager[Measure]:
    """Do the same with many clients."""
    return _single_names(server, sizes.crowd, sizes.crowd_exchanges)


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
    "ping-pong": ping_pong,
    "ping-pong-1000": ping_pong_crowd,
    "pipelined": pipelined,
    "churn": churn,
    "idle": idle,
}


def _single_names(
    server: ServerProcess, clients: int, each: int
) -> AbstractContextManager[Measure]:
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
            before = server.cpu()
            run(map(send_names, socks, exchanges))
            return Measured(cost=(server.cpu() - before) / 1000 / count, count=count)

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
