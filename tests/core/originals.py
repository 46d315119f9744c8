"""The well-known tutorial scripts, without sockets: they take one `recv(1024)` for one message."""

import itertools
import math
from collections import deque
from collections.abc import Generator, Sequence

import attrs

from .helpers import GOODBYE, PROMPT, WELCOME, Client, Server, cut, hello

RECV_SIZE = 1024


def original_client(names: Sequence[bytes], heard: list[bytes]) -> Generator[bytes | None, bytes, None]:
    """Yield what the script sends, or None, before each `recv`, whose result is one message."""
    heard.append((yield None))  # WELCOME
    for name in [*names, b"exit"]:
        heard.append((yield None))  # PROMPT
        heard.append((yield name))  # HELLO or GOODBYE


@attrs.frozen
class Circumstances:
    """What stands between the original client and a server. Several values are taken in turn."""

    busy: float = 0
    """How long the client takes after each `recv`; meanwhile more may arrive."""
    thinks: float = 0
    """How long somebody takes to type a name."""
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
        self._last = 0.0
        self.under_way: deque[tuple[float, bytes]] = deque()
        self.acknowledged = 0.0
        """When the server's kernel learns that the last word has arrived."""

    def send(self) -> None:
        """Put on the way what the server has said since the last time."""
        for when, data in self._server.said[self._sent :]:
            self._last = max(self._last, when + next(self._delays))
            self.acknowledged = self._last + next(self._delays)
            self.under_way.append((self._last, data or b""))
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
    client = original_client(names, heard)
    stops, delays = itertools.cycle(circumstances.stops), itertools.cycle(circumstances.delays)
    words = _Words(server, circumstances.delays)
    now = 0.0
    late = next(stops)

    def notice() -> None:
        """Let the server notice its next deadline, some time after it."""
        nonlocal late
        server.now = max(server.now, server.connection.deadline + late)
        late = next(stops)
        owed = server.connection.prompt_owed
        if circumstances.asks_kernel and owed and server.now < words.acknowledged:
            server.is_unacknowledged()
        else:
            server.late(server.now)
        words.send()

    words.send()
    try:
        sends = next(client)
        while True:
            if sends is not None:
                arrival = now + circumstances.thinks + next(delays)
                while server.connection.deadline + late < arrival:
                    notice()
                server.hears_late(sends, max(server.now, arrival + next(stops)))
                words.send()
            while not words.under_way or server.connection.deadline + late <= max(now, words.under_way[0][0]):
                if server.connection.deadline == math.inf:
                    return heard  # it waits for ever
                notice()
            now = max(now, words.under_way[0][0])
            received = words.recv(now)
            now += circumstances.busy
            sends = client.send(received)
    except StopIteration:
        server.hears_eof(at=max(server.now, now))
    return heard


def talk_to_original_server(client: Client, sizes: Sequence[int]) -> list[bytes]:
    """Let a client talk to the original server, whose words are cut; return the names it took."""
    names: list[bytes] = []
    taken = 0

    def says(word: bytes) -> None:
        for piece in cut(word, sizes):
            client.hears(piece)

    says(WELCOME)
    says(PROMPT)
    while taken < len(client.said):
        _, received = client.said[taken]
        taken += 1
        if not received:
            break
        assert len(received) <= RECV_SIZE
        if received == b"exit":
            says(GOODBYE)
            client.hears_eof()
            break
        names.append(received)
        says(hello(received))
        says(PROMPT)
    return names
