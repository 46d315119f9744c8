"""Stand-ins for the two tutorial scripts that Greeter replaces.

They have blocking sockets and no framing: what one `recv(1024)` returns is one whole message.
"""

import socket
import time
from collections.abc import Callable, Iterator, Sequence

from .processes import HOST, PATIENCE, Peer
from .words import GOODBYE, PROMPT, WELCOME, hello

RECV_SIZE = 1024
PACE = 0.02
"""Seconds; the distance that our server keeps between two messages."""


def original_client(names: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield, for each `recv`, what is sent before it (maybe nothing), and what it should return."""
    yield b"", WELCOME
    for name in [*names, b"exit"]:
        yield b"", PROMPT
        yield name, GOODBYE if name == b"exit" else hello(name)


def original_server(took: list[bytes]) -> Callable[[Peer], None]:
    """Return a script for `scripted`; it notes what each `recv` returns.

    The original greets a client that is gone by the empty name, forever. The stand-in stops there.
    """

    def converse(peer: Peer) -> None:
        peer.say(WELCOME)
        while True:
            peer.say(PROMPT)
            name = peer.socket.recv(RECV_SIZE)
            took.append(name)
            if name in (b"exit", b""):
                break
            peer.say(hello(name))
        peer.say(GOODBYE)

    return converse


class HeldUpError(Exception):
    """The stand-in was kept waiting for longer than the distance between two messages."""


def original_conversation(port: int, *names: bytes) -> None:
    """Have a conversation with a server as the original client has it.

    The script hangs when one `recv` brings two messages, because it then waits for one that it has
    had. The stand-in says so at once. But two messages that are heard together long after the
    client's turn may have come apart: on a busy machine the stand-in can be held up for longer than
    their distance. That proves nothing, so it is tried again, a few times.
    """
    for more in (True, True, True, True, False):
        try:
            _converse(port, names)
        except HeldUpError:
            if not more:
                raise
        else:
            break


def _converse(port: int, names: Sequence[bytes]) -> None:
    acted = time.monotonic()
    with socket.create_connection((HOST, port), timeout=PATIENCE) as sock:
        for word, answer in original_client(names):
            if word:
                acted = time.monotonic()
                sock.send(word)
            heard = sock.recv(RECV_SIZE)
            if heard == answer + PROMPT and time.monotonic() - acted >= PACE:
                raise HeldUpError
            assert heard == answer
