"""What is explored: which ends converse, what may happen to them, and what must hold."""

import math
import sys
import time
from collections.abc import Iterator
from itertools import product

import attrs

from greeter_core import ClientConnection, EndReason, Framing, ServerConnection

from .exploring import (
    End,
    OriginalClient,
    OriginalServer,
    World,
    client_config,
    explore,
    server_config,
)

AUTO, LINES, RAW = Framing


@attrs.frozen
class Scenario:
    """A world to begin with, and what is asked in it."""

    title: str
    world: World
    names: tuple[bytes, ...]
    is_certain: bool = False
    """Whether both ends were told that names are lines, so that no name can be mistaken."""

    def check(self, world: World) -> None:
        """Raise `AssertionError` for what must not be."""
        client, server = world.client, world.server
        script = client.connection
        if isinstance(script, OriginalClient):
            words = script.words[: len(script.heard)]
            assert script.heard == words, f"not one word in each recv: {script.heard[-1]!r}"
            assert not world.is_over or server.names == self.names
            return
        if client.ended:
            answered = (*client.names, *client.ended.unanswered)
            assert answered == self.names, "a name was lost silently"
            if client.ended.reason is EndReason.EXIT:
                assert client.names == self.names, "exit was answered before a name"
            assert client.connection.finished or client.says_eof, "the stream has no end"
        if self.is_certain:
            assert server.names == self.names[: len(server.names)], "a name was taken for another"
            assert client.names == server.names[: len(client.names)], "greeted, but not received"
        if server.ended and isinstance(server.connection, ServerConnection):
            assert server.says_eof or world.is_lost, "the stream has no end"


def pair(
    client: Framing,
    server: Framing,
    names: tuple[bytes, ...] = (),
    may: tuple[tuple[str, str], ...] = (),
    *,
    make_client: type[ClientConnection] = ClientConnection,
    make_server: type[ServerConnection] = ServerConnection,
    cuts_everywhere: bool = False,
) -> Scenario:
    """Return a scenario of a client that asks names and exit, and a server."""
    asks = make_client(client_config(client), now=0)
    asks.send_names(names, 0)
    asks.send_exit(0)
    answers = make_server(server_config(server), now=0)
    world = World(End(asks), End(answers), may=frozenset(may), cuts_everywhere=cuts_everywhere)
    happens = "".join(f", {who} {what}" for who, what in may)
    cuts = ", every cut" if cuts_everywhere else ""
    title = f"{client.name} client, {server.name} server, {len(names)} names{happens}{cuts}"
    return Scenario(title, world, names, is_certain=(client, server) == (LINES, LINES))


def of_original_client(
    framing: Framing,
    names: tuple[bytes, ...],
    make: type[ServerConnection] = ServerConnection,
    *,
    asks_kernel: bool = True,
) -> Scenario:
    """Return a scenario of the original client and a server with much patience."""
    server = make(server_config(framing, idle_timeout=math.inf), now=0)
    world = World(End(OriginalClient(names)), End(server), asks_kernel=asks_kernel)
    return Scenario(f"original client, {framing.name} server, {len(names)} names", world, names)


def of_original_server(
    framing: Framing,
    names: tuple[bytes, ...],
    make: type[ClientConnection] = ClientConnection,
) -> Scenario:
    """Return a scenario of a client and the original server."""
    client = make(client_config(framing), now=0)
    client.send_names(names, 0)
    client.send_exit(0)
    world = World(End(client), End(OriginalServer()), cuts_everywhere=True)
    return Scenario(f"{framing.name} client, original server, {len(names)} names", world, names)


ONE, TWO = (b"A",), (b"A", b"Bo")
SHUTDOWNS = (("client", "shutdown"), ("server", "shutdown"), ("both", "lost"))


def briefly() -> Iterator[Scenario]:
    """Yield what is explored whenever the tests run."""
    yield from (pair(*framings) for framings in product(Framing, Framing))
    yield pair(AUTO, AUTO, ONE)
    yield pair(AUTO, AUTO, (), SHUTDOWNS[1:2])
    yield from (of_original_client(framing, TWO) for framing in (AUTO, RAW))
    yield from (of_original_server(framing, TWO) for framing in (AUTO, RAW))


def wholly() -> Iterator[Scenario]:
    """Yield all that is explored, which takes an hour.

    One name is cut in every way. Of two, a byte or all arrive: every cut of them takes too long.
    """
    for framings in product(Framing, Framing):
        yield pair(*framings, ONE, cuts_everywhere=True)
        yield pair(*framings, TWO)
        for may in SHUTDOWNS:
            yield pair(*framings, ONE, (may,))
    yield from (of_original_client(framing, TWO) for framing in (AUTO, RAW))
    yield from (of_original_server(framing, TWO) for framing in (AUTO, RAW))


def main() -> None:
    total = 0
    for scenario in wholly() if "--all" in sys.argv else briefly():
        start = time.process_time()
        number = explore(scenario.world, scenario.check)
        total += number
        print(
            f"{number:9,} worlds, {time.process_time() - start:4.0f} s  {scenario.title}",
            flush=True,
        )
    print(f"{total:9,} worlds, and no violation")


if __name__ == "__main__":
    main()
