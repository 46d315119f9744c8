"""A client and a server on both ends of a path whose delays and cuts the test chooses."""

import itertools
import math
from collections import deque
from collections.abc import Sequence

import attrs

from greeter_core import ClientConfig, ClientConnection, EndReason, ServerConfig, ServerConnection
from tests.support.virtual import EOF, Driven

WHOLE: Sequence[int] = [10**9]
"""Cut nothing."""


@attrs.frozen
class Path:
    """One direction: what is said is cut into pieces of these sizes, each delayed by its gap.

    Sizes and gaps are taken in turn, again and again. Bytes never overtake each other, and pieces
    that come at the same time are one arrival if the path merges.
    """

    latency: float = 0
    sizes: Sequence[int] = WHOLE
    gaps: Sequence[float] = (0,)
    merges: bool = True


class _Way:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._sizes = itertools.cycle(path.sizes)
        self._gaps = itertools.cycle(path.gaps)
        self._pieces: deque[tuple[float, bytes | None]] = deque()
        self._last = -math.inf

    def put(self, when: float, data: bytes | None) -> None:
        arrival = max(self._last, when + self._path.latency)
        while data:
            size = next(self._sizes)
            arrival += next(self._gaps)
            self._pieces.append((arrival, data[:size]))
            data = data[size:]
        if data is EOF:
            self._pieces.append((arrival, EOF))
        self._last = arrival

    @property
    def next_arrival(self) -> float:
        return self._pieces[0][0] if self._pieces else math.inf

    def take(self) -> bytes | None:
        when, data = self._pieces.popleft()
        if data is EOF:
            return EOF
        while self._path.merges and self.next_arrival == when and self._pieces[0][1] is not EOF:
            data += self._pieces.popleft()[1] or b""
        return data


class Pair:
    """A client and a server, and the two ways between them."""

    def __init__(
        self,
        client: ClientConfig,
        server: ServerConfig,
        *,
        to_server: Path = Path(),
        to_client: Path = Path(),
        full: bool = False,
    ) -> None:
        self.now = 0.0
        self.client = Driven(ClientConnection(client, now=0))
        self.server = Driven(ServerConnection(server, now=0, full=full))
        self._to_server, self._to_client = _Way(to_server), _Way(to_client)
        self._sent_by_client = self._sent_by_server = 0

    def _send(self) -> None:
        for when, data in self.client.said[self._sent_by_client :]:
            self._to_server.put(when, data)
        for when, data in self.server.said[self._sent_by_server :]:
            self._to_client.put(when, data)
        self._sent_by_client, self._sent_by_server = len(self.client.said), len(self.server.said)

    def asks(self, names: Sequence[bytes], *, exits: bool = True) -> None:
        """Let the client ask for names and, unless told otherwise, for `exit`."""
        self.client.connection.send_names(names, self.now)
        if exits:
            self.client.connection.send_exit(self.now)
        self.client.take()

    @property
    def ends(self) -> tuple[EndReason | None, EndReason | None]:
        """The reasons with which both sides have finished."""
        assert self.client.connection.finished
        assert self.server.connection.finished
        return self.client.end, self.server.end

    @property
    def answered_and_unanswered(self) -> list[bytes]:
        return [*self.client.names, *self.client.connection.unanswered]

    def runs(self, until: float = math.inf) -> None:
        """Let everything happen, until it is so late or until nothing happens any more."""
        for _ in range(100_000):
            self._send()
            deadline = min(self.client.connection.deadline, self.server.connection.deadline)
            event = min(self._to_server.next_arrival, self._to_client.next_arrival, deadline)
            if event == until == math.inf:
                return
            self.now = min(event, until)
            self.client.waits(self.now)
            self.server.waits(self.now)
            if event > until:
                return
            for way, to in ((self._to_server, self.server), (self._to_client, self.client)):
                if way.next_arrival == self.now:
                    data = way.take()
                    to.hears_eof() if data is EOF else to.hears(data)
                    break
        msg = "this conversation does not end"
        raise AssertionError(msg)
