"""Many original clients at once, in one loop.

When one `recv` brings two words, the original client waits forever for one that it has had. These
clients notice that at once. But if the machine has kept a client from reading for so long that the
words may have come apart, that proves nothing, and the client begins again.
"""

import contextlib
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence

from tests.support.originals import RECV_SIZE, original_client
from tests.support.processes import COMMAND, serving_at

from .path import Impairment, path

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
    clients = [_converse(connect, names, said) for names in lists_of_names]
    outcomes = [UNFINISHED] * len(clients)
    coming = [(began + number * apart, number) for number in range(len(clients))]
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for client in clients:
            stack.callback(client.close)

        def go_on(number: int, unreadable: float | None) -> None:
            try:
                sock = clients[number].send(unreadable)
                selector.register(sock, selectors.EVENT_READ, number)
            except StopIteration as ended:
                outcomes[number] = ended.value

        while (coming or selector.get_map()) and looked < began + patience:
            time.sleep(_TICK)
            before, looked = looked, time.monotonic()
            for key, _ in selector.select(0):
                selector.unregister(key.fileobj)
                go_on(key.data, before)
            while coming and coming[0][0] <= looked:
                go_on(coming.pop(0)[1], None)
    return outcomes


def _converse(
    connect: Connect, names: Sequence[bytes], said: Callable[[], object]
) -> Generator[socket.socket, float | None, str]:
    """Be one client; yield what to wait for, and take a time at which it was not readable."""
    for _ in range(_ATTEMPTS):
        try:
            with connect() as sock:
                for word, expected in original_client(names):
                    if word:
                        sock.send(word)
                        said()
                    unreadable = (yield sock) or 0.0
                    heard = sock.recv(RECV_SIZE)
                    if heard == expected:
                        continue
                    if not heard.startswith(expected):
                        return f"heard {heard!r} instead of {expected!r}"
                    if time.monotonic() - unreadable < _DISTANCE:
                        return HANGS
                    break
                else:
                    return WELL
        except OSError as exc:
            return str(exc)
    return HELD_UP


# A server, many clients, and a bad path between them

PATHS = {
    "RTT 300 ± 40 ms": Impairment(delay=0.15, jitter=0.02),
    "3 % lost each way": Impairment(delay=0.01, loss=0.03),
    "20 % reordered": Impairment(delay=0.03, ahead=0.2),
    "dead for 2.5 s": Impairment(delay=0.02, dead_from=0.4, dead_for=2.5),
}
NAMES = (b"Ada", "小明".encode(), b"Grace Hopper")
CLIENTS = 30


def trial(
    impairment: Impairment,
    *,
    seed: int = 1,
    command: Sequence[str] = COMMAND,
    names: Sequence[bytes] = NAMES,
) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many conversations ended in which way, and what happened to how many packets."""
    with path(impairment, seed) as between:
        number = between.listener.fileno()
        with serving_at("--listen", f"fd:{number}", command=command, pass_fds=[number]):
            # They come apart, so as not to be all at the same point.
            outcomes = converse(between.connect, [names] * CLIENTS, patience=60, apart=0.01)
            return Counter(outcomes), between.counted()
