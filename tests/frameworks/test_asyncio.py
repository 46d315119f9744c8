"""What only the asyncio adapter of INTEGRATING.md has: shutting down, TLS."""

import socket
import ssl

import pytest
import trustme

from greeter_core import EndReason, Framing, ServerConfig

from .helpers import (
    GOODBYE,
    PATIENCE,
    PROMPT,
    WELCOME,
    AsyncioServer,
    dialogue,
    hello,
    receive_all,
    serving,
)

LINES = ServerConfig(framing=Framing.LINES)


def test_shutdown() -> None:
    """What has arrived is answered first: names that come in one piece with the shutdown are not lost."""
    names = [b"%d" % number for number in range(10_000)]  # more than one read
    with serving(AsyncioServer, LINES) as server:
        client = server.connect()
        assert client.recv(1024).startswith(WELCOME)

        def be_busy() -> None:
            client.sendall(b"\n".join(names) + b"\n")
            server.protocols[0].shut_down()

        server.loop.call_soon_threadsafe(be_busy)
        said = receive_all(client)
        assert said.endswith(
            b"".join(PROMPT + hello(name) for name in names[-100:]) + PROMPT + GOODBYE
        )
        client.close()
        assert server.ending() is EndReason.SHUTDOWN


def test_shutdown_while_a_send_is_blocked() -> None:
    """It waits for the send."""
    with serving(AsyncioServer, LINES, send_buffer=4096) as server:
        client = server.connect(receive_buffer=4096)
        client.sendall(b"Ada\n" * 4096)
        assert client.recv(len(WELCOME)) == WELCOME
        while not server.protocols[0]._sending:
            pass
        server.loop.call_soon_threadsafe(server.protocols[0].shut_down)
        assert WELCOME + receive_all(client) == dialogue(*[b"Ada"] * 4096)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Return a CA."""
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.mark.parametrize("words", [b"Ada\nexit\n", b"Ada\n"], ids=["exit", "end of stream"])
def test_tls(authority: trustme.CA, words: bytes) -> None:
    """There is no half-close: the server closes instead, after its last word."""
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(ours)
    authority.configure_trust(theirs)
    with serving(AsyncioServer, LINES, ssl_context=ours) as server:
        client = theirs.wrap_socket(server.connect(), server_hostname="localhost")
        with client:
            client.settimeout(PATIENCE)
            client.sendall(words)
            if words.endswith(b"exit\n"):
                assert receive_all(client) == dialogue(b"Ada")
            else:
                said = dialogue(b"Ada")[: -len(GOODBYE)]
                while said:
                    said = said.removeprefix(client.recv(len(said)))
                client.unwrap().shutdown(socket.SHUT_WR)
        assert server.ending() is (EndReason.EXIT if words.endswith(b"exit\n") else EndReason.EOF)
