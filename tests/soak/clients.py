"""What clients of several scenarios have in common."""

import contextlib
import threading
import time
from collections.abc import Iterator

from tests.support.connections import dialogue
from tests.support.crowds import WrongReplyError, crowd, exchange, expect, leave
from tests.support.words import GOODBYE

from .finding import Finding, none_of


def transcript(*names: bytes) -> bytes:
    """Return all that is said to a client that sends these names in lines, up to the next name."""
    return dialogue(*names).removesuffix(GOODBYE)


@contextlib.contextmanager
def chatting(port: int, clients: int, pause: float = 0.0) -> Iterator[list[Finding]]:
    """Have honest clients: each sends a name, and the next one when all have their replies.

    They do so in a thread of their own, until the context ends, and pause so many seconds after
    each round. What they found is in the list after that.
    """
    greeted, slowest = 0, 0.0
    failures: list[str] = []
    found: list[Finding] = []
    over = threading.Event()

    def chat() -> None:
        nonlocal greeted, slowest
        try:
            while not over.wait(pause):
                start = time.monotonic()
                exchanges = [exchange(greeted + number) for number in range(clients)]
                for sock, (line, _) in zip(socks, exchanges, strict=True):
                    sock.sendall(line)
                for sock, (_, reply) in zip(socks, exchanges, strict=True):
                    expect(sock, reply)
                greeted += clients
                slowest = max(slowest, time.monotonic() - start)
            leave(socks)
        except (OSError, WrongReplyError) as exc:
            failures.append(str(exc))

    with crowd(port, clients) as socks:
        thread = threading.Thread(target=chat)
        thread.start()
        try:
            yield found
        finally:
            over.set()
            thread.join()
    found.append(none_of("wrong replies to honest clients", failures, greeted))
    found.append(Finding("slowest of these", f"{slowest * 1000:,.3g} ms"))
