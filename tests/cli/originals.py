"""Stand-ins for the two tutorial scripts that Greeter replaces.

They were written from a description of how the scripts behave: blocking sockets, no framing, and
whatever one `recv(1024)` returns is taken for one whole message.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterable
from typing import Self

from tests.cli.helpers import GOODBYE, HOST, PATIENCE, PROMPT, WELCOME, hello

PACE = 0.02  # seconds; the distance that our server keeps between two words


class HeldUpError(Exception):
    """The machine has kept the stand-in waiting for longer than the distance between two words."""


class OriginalClient:
    """The original client: it sends names as they are, and hears one word with each `recv`.

    The script itself hangs when one `recv` brings two words, because it then waits for a word that
    it has had. The stand-in says so at once: each word must be the one that is expected, and
    nothing else.
    """

    def __init__(self, port: int) -> None:
        self._acted = time.monotonic()
        self._socket = socket.create_connection((HOST, port), timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def converse(self, names: Iterable[bytes]) -> None:
        """Have these names greeted, and say exit."""
        self._hear(WELCOME)
        self._hear(PROMPT)
        for name in names:
            self._say(name)
            self._hear(hello(name))
            self._hear(PROMPT)
        self._say(b"exit")
        self._hear(GOODBYE)

    def _say(self, word: bytes) -> None:
        self._acted = time.monotonic()
        self._socket.send(word)

    def _hear(self, word: bytes) -> None:
        heard = self._socket.recv(1024)
        if heard == word + PROMPT and time.monotonic() - self._acted >= PACE:
            raise HeldUpError
        assert heard == word


def original_conversation(port: int, *names: bytes) -> None:
    """Have a conversation as the original client has it.

    Two words that are heard together long after the client's turn may have come apart: on a busy
    machine the stand-in can be held up for longer than their distance. That proves nothing, so it
    is tried again; but not for ever, because it also happens with a server that keeps no distance.
    """
    for more in (True, True, True, True, False):
        try:
            with OriginalClient(port) as client:
                client.converse(names)
        except HeldUpError:
            if not more:
                raise
        else:
            return


class OriginalServer:
    """The original server: one thread for each client, a `send` for each word, and each `recv` is a name.

    The script greets a client that is gone by the empty name, for ever. The stand-in stops there.
    """

    def __init__(self) -> None:
        self.took: list[bytes] = []
        """All that was taken for a name, and `exit`."""
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,))
                thread.start()
                self._threads.append(thread)

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(PATIENCE)
        with client, contextlib.suppress(OSError):  # the client may break the connection
            client.sendall(WELCOME)
            while True:
                client.sendall(PROMPT)
                name = client.recv(1024)
                if not name:
                    return
                self.took.append(name)
                if name == b"exit":
                    client.sendall(GOODBYE)
                    return
                client.sendall(hello(name))
