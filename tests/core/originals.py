"""The well-known pair of tutorial scripts, without their sockets: one `recv(1024)` is one message for both of them."""

import math
from collections.abc import Generator, Sequence

from .helpers import GOODBYE, PROMPT, WELCOME, Client, Server, cut, hello

RECV_SIZE = 1024


def original_client(names: Sequence[bytes], heard: list[bytes]) -> Generator[bytes | None, bytes, None]:
    """Yield what the script sends, or None, before each of its `recv` calls, whose results it takes for messages."""
    heard.append((yield None))  # WELCOME
    for name in [*names, b"exit"]:
        heard.append((yield None))  # PROMPT
        heard.append((yield name))  # HELLO or GOODBYE


def talk_to_original_client(server: Server, names: Sequence[bytes], *, busy: float, thinks: float) -> list[bytes]:
    """Let the original client talk to a server; return what each of its `recv` calls returned.

    It is `busy` for a while after each `recv`, during which more may arrive, and whoever types the names `thinks`.
    """
    heard: list[bytes] = []
    client = original_client(names, heard)
    now, taken = 0.0, 0
    try:
        sends = next(client)
        while True:
            if sends is not None:
                now += thinks
                server.hears(sends, at=now)
            while len(server.said) == taken:  # it blocks
                if server.connection.deadline == math.inf:
                    return heard  # for ever
                server.waits(server.connection.deadline)
                now = server.now
            server.waits(now)
            received = b"".join(data or b"" for _, data in server.said[taken:])
            assert len(received) <= RECV_SIZE
            taken = len(server.said)
            now += busy
            sends = client.send(received)
    except StopIteration:
        server.hears_eof(at=now)
    return heard


def talk_to_original_server(client: Client, sizes: Sequence[int]) -> list[bytes]:
    """Let a client talk to the original server, whose words are cut on their way; return the names that it took."""
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
