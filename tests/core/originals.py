"""The well-known tutorial scripts, without sockets: they take one `recv(1024)` for one message."""

import itertools
import math
from collections import deque
from collections.abc import Sequence

import attrs

from tests.support.laws import cut
from tests.support.virtual import Client, Server
from tests.support.words import GOODBYE, PROMPT, WELCOME, hello

RECV_SIZE = 1024


@attrs.frozen
class Circumstances:
    """What stands between the original client and a server. Several values are taken in turn."""

    busy: float = 0
    """How long the client takes after each `recv`; meanwhile more may arrive."""
    thinks: float = 0
    """How long typing a name takes."""
    stops: Sequence[float] = (0,)
    """How late the server's process notices that something has arrived, or is due."""
    delays: Sequence[float] = (0,)
    """How long bytes and acknowledgements take on their way; they never overtake each other."""
    asks_kernel: bool = False
    """Whether the adapter asks the server's kernel if all was acknowledged (S2.7)."""


class _Words:
    """The way of the server's words to the client's kernel, and of the acknowledgements back."""

    def __init__(self, server: Server, delays: Sequence[float]) -> None:
        self._server = server
        self._delays = itertools.cycle(delays)
        self._sent = 0
        self.under_way: deque[tuple[float, bytes]] = deque()
        self.last = self.acknowledged = 0.0
        """When the last word arrives, and when the server's kernel learns that it has."""

    def send(self) -> None:
        """Put on the way what the server has said since the last time."""
        for when, data in self._server.said[self._sent :]:
            self.last = max(self.last, when + next(self._delays))
            self.acknowledged = self.last + next(self._delays)
            self.under_way.append((self.last, data or b""))
        self._sent = len(self._server.said)

    def recv(self, now: float) -> bytes:
        """Return all that has arrived."""
        received = b""
        while self.under_way and self.under_way[0][0] <= now:
            received += self.under_way.popleft()[1]
        assert len(received) <= RECV_SIZE
        return received


def talk_to_original_client(
    server: Server, names: Sequence[bytes], circumstances: Circumstances = Circumstances()
) -> list[bytes]:
    """Let the original client talk to a server; return what each of its `recv` calls returned.

    The adapter reads before it judges (T3): what has arrived when it notices something comes first.
    """
    heard: list[bytes] = []
    stops, delays = itertools.cycle(circumstances.stops), itertools.cycle(circumstances.delays)
    words = _Words(server, circumstances.delays)
    now, late = 0.0, next(stops)

    def notice() -> None:
        """Let the server notice its next deadline, some time after it."""
        nonlocal late
        server.now = max(server.now, server.connection.deadline + late)
        late = next(stops)
        owed = server.connection.prompt_owed
        if circumstances.asks_kernel and owed and server.now < words.acknowledged:
            server.does("data_in_flight")
        else:
            server.looks(server.now)
        words.send()

    words.send()
    # Before each `recv`, whose result is one message, the script sends nothing or a name.
    for sends in [b"", *(word for name in [*names, b"exit"] for word in (b"", name))]:
        if sends:
            arrival = now + circumstances.thinks + next(delays)
            while server.connection.deadline + late < arrival:
                notice()
            server.hears(sends, max(server.now, arrival + next(stops)), late=True)
            words.send()
        while not words.under_way or server.connection.deadline + late <= max(
            now, words.under_way[0][0]
        ):
            if server.connection.deadline == math.inf:
                return heard  # it waits forever
            notice()
        now = max(now, words.under_way[0][0])
        heard.append(words.recv(now))
        now += circumstances.busy
    server.hears_eof(at=max(server.now, now))
    return heard


def talk_to_original_server(client: Client, sizes: Sequence[int]) -> list[bytes]:
    """Let a client talk to the original server, whose words are cut; return the names it took."""
    names: list[bytes] = []
    taken, says = 0, WELCOME + PROMPT
    while says:
        for piece in cut(says, sizes):
            client.hears(piece)
        received = client.said[taken][1] if taken < len(client.said) else b""
        taken, says = taken + 1, b""
        assert len(received or b"") <= RECV_SIZE
        if received == b"exit":
            client.hears(GOODBYE)
            client.hears_eof()
        elif received:
            names.append(received)
            says = hello(received) + PROMPT
    return names
