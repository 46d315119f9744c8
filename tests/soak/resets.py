"""A storm of RST, in every state of the conversation."""

import socket
from collections.abc import Iterator
from typing import Final

from tests.benchmarks.load import expect
from tests.benchmarks.wire import GOODBYE, PROMPT, WELCOME

from .clients import Chat, connect, crowd, leave, reset, transcript
from .finding import Command, Finding, Sizes, exactly
from .server import serving, wait_until

AT_ONCE = 50  # connections
STATES: Final = {
    "before anything": (b"", b""),
    "after WELCOME": (b"", WELCOME),
    "in a name": (b"Ada\nGra", transcript([b"Ada"])),
    "with unread answers": (b"Ada\n" * 1000, transcript([b"Ada"])),
    "while closing": (b"exit\n", WELCOME + PROMPT + GOODBYE),
}
"""What to say first, and to hear then, before the connection is broken."""


def resets(sizes: Sizes, command: Command) -> Iterator[Finding]:
    """Break one connection after another: the server has all its descriptors back, and others notice nothing."""
    with serving(command) as server:
        with Chat(server.port, 5, 0.005) as chat:
            descriptors = server.descriptors()
            for state, (words, replies) in STATES.items():
                for _ in range(0, sizes.resets, AT_ONCE):
                    _break([connect(server.port) for _ in range(AT_ONCE)], words, replies)
                with crowd(server.port, 1) as last:  # who is accepted after all of these
                    leave(last)
                wait_until(lambda: server.descriptors() == descriptors, sizes.patience)
                yield exactly(
                    f"descriptors left by resets {state}", server.descriptors() - descriptors, 0
                )
        yield from chat.findings()
        yield from server.farewell()


def _break(socks: list[socket.socket], words: bytes, replies: bytes) -> None:
    try:
        if words:
            for sock in socks:
                sock.sendall(words)
        if replies:
            for sock in socks:
                expect(sock, replies)
    finally:
        for sock in socks:
            reset(sock)
