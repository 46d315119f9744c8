"""Many original clients at once, in one loop.

The original client takes what one `recv(1024)` returns for one word, whatever it is, and then says
its name, or waits for the next word. When one `recv` brings two words, it waits for one that it has
had, for ever. These clients notice that at once, and are careful whom they blame: a client that the
machine has kept from reading for so long that the words may have come apart begins again.
"""

import selectors
import socket
import time
from collections.abc import Callable, Iterable, Sequence

from tests.cli.helpers import GOODBYE, PROMPT, WELCOME, hello

# How a conversation ends, if it is not by an error
WELL = "ended well"
HANGS = "hangs: heard two words at once"
HELD_UP = "held up again and again: the machine is too busy"
UNFINISHED = "did not end in time"

_DISTANCE = 0.015  # seconds; less than words are apart that are said as they should be
_TICK = 0.005  # seconds between two looks; a client that sleeps in `recv` often comes in between
_ATTEMPTS = 20

Connect = Callable[[], socket.socket]


def converse(
    connect: Connect,
    lists_of_names: Iterable[Sequence[bytes]],
    *,
    patience: float,
    apart: float = 0.0,
    said: Callable[[], object] = lambda: None,
) -> list[str]:
    """Have a conversation for each list of names, all together; return how each of them ended.

    `connect` returns a new socket, which is non-blocking and may still be connecting. The clients
    come so many seconds `apart`. `said` is called whenever one has said a name.
    """
    looked = began = time.monotonic()
    with selectors.DefaultSelector() as selector:
        clients = [_Client(connect, names, selector, said) for names in lists_of_names]
        coming = [(began + i * apart, client) for i, client in enumerate(clients)]
        while (coming or selector.get_map()) and looked < began + patience:
            time.sleep(_TICK)
            before, looked = looked, time.monotonic()
            for key, _ in selector.select(0):
                key.data.go_on(before)  # at that time there was nothing to be read
            while coming and coming[0][0] <= looked:
                coming.pop(0)[1].begin()
        for client in clients:
            client.end(UNFINISHED)  # has no effect on those that have ended
    return [client.outcome for client in clients]


class _Client:
    """One client."""

    def __init__(
        self,
        connect: Connect,
        names: Sequence[bytes],
        selector: selectors.BaseSelector,
        said: Callable[[], object],
    ) -> None:
        self._connect, self._selector, self._said = connect, selector, said
        # What it says, and what it hears then
        self._turns = [(b"", WELCOME), (b"", PROMPT)]
        for name in names:
            self._turns += [(name, hello(name)), (b"", PROMPT)]
        self._turns.append((b"exit", GOODBYE))
        self._attempts = 0
        self._socket: socket.socket | None = None
        self.outcome = ""

    def begin(self) -> None:
        """Connect."""
        self._attempts += 1
        self._rest = iter(self._turns)
        _, self._expected = next(self._rest)
        self._socket = self._connect()
        self._selector.register(self._socket, selectors.EVENT_READ, self)

    def go_on(self, unreadable: float) -> None:
        """Hear what is there, and say what comes next. At the time `unreadable` nothing was."""
        assert self._socket
        try:
            heard = self._socket.recv(1024)
            waited = time.monotonic() - unreadable
            if heard == self._expected:
                self._take_turn(self._socket)
            elif not heard.startswith(self._expected):
                self.end(f"heard {heard!r} instead of {self._expected!r}")
            elif waited < _DISTANCE:
                self.end(HANGS)
            elif self._attempts < _ATTEMPTS:
                self._close()
                self.begin()
            else:
                self.end(HELD_UP)
        except OSError as exc:
            self.end(str(exc))

    def _take_turn(self, sock: socket.socket) -> None:
        turn = next(self._rest, None)
        if turn is None:
            self.end(WELL)
            return
        say, self._expected = turn
        if say:
            sock.send(say)
            self._said()

    def end(self, outcome: str) -> None:
        """End the conversation in this way, if it has not ended."""
        if not self.outcome:
            self.outcome = outcome
            self._close()

    def _close(self) -> None:
        if self._socket:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None
