"""The README's server over plain blocking sockets does what it promises."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.readme import code_blocks

PROMPT = b"What's your name?"


def readme_greet() -> Callable[[socket.socket], None]:
    """Return the function of the README's snippet."""
    (source,) = [block for block in code_blocks("python") if "def greet(" in block]
    assert len(source[source.index("def greet(") :].splitlines()) <= 24, "about twenty lines, the README says"
    namespace: dict[str, Callable[[socket.socket], None]] = {}
    exec(compile(source, "README.md", "exec"), namespace)
    return namespace["greet"]


@contextmanager
def conversation() -> Iterator[socket.socket]:
    """Yield a client's socket, connected over TCP to a thread that runs the snippet."""
    greet = readme_greet()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=20)
        accepted, _ = listener.accept()
    with accepted, client:
        thread = threading.Thread(target=greet, args=[accepted])
        thread.start()
        yield client
        thread.join(timeout=20)
        assert not thread.is_alive()


def read_all(sock: socket.socket) -> bytes:
    """Return what comes until the end of the stream."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_lines() -> None:
    """Lines are answered, and exit ends the conversation."""
    with conversation() as client:
        client.sendall(b"Ada\r\nGrace\nexit\n")
        said = read_all(client)
        assert said == b"Welcome!\n" + PROMPT + b"Hello Ada!\n" + PROMPT + b"Hello Grace!\n" + PROMPT + b"Goodbye!\n"
        client.shutdown(socket.SHUT_WR)


def test_original_client() -> None:
    """A client that takes each recv for one word, and sends names without terminator, finds one word in each."""
    with conversation() as client:
        assert client.recv(1024) == b"Welcome!\n"
        assert client.recv(1024) == PROMPT
        for name in (b"Ada", b"Grace"):
            client.sendall(name)
            assert client.recv(1024) == b"Hello " + name + b"!\n"
            assert client.recv(1024) == PROMPT
        client.sendall(b"exit")
        assert client.recv(1024) == b"Goodbye!\n"
        client.shutdown(socket.SHUT_WR)


def test_half_close() -> None:
    """The end of the client's stream ends its last name."""
    with conversation() as client:
        client.sendall(b"Ada\nBob")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).endswith(PROMPT + b"Hello Bob!\n")
