"""What only the asyncio adapter of INTEGRATING.md has: shutting down, TLS."""

import socket
import ssl

import pytest

from greeter_core import EndReason, Framing, ServerConfig
from tests.support.certificates import Authority
from tests.support.connections import LINES, dialogue
from tests.support.processes import Peer
from tests.support.words import ADA, GOODBYE, PROMPT, WELCOME, hello

from .helpers import AsyncioServer


def test_shutdown() -> None:
    """What has arrived is answered first: names that come with the shutdown are not lost."""
    names = [b"%d" % number for number in range(10_000)]  # more than one read
    with AsyncioServer(LINES) as server:
        client = server.connect()
        assert client.socket.recv(1024).startswith(WELCOME)

        def be_busy() -> None:
            client.say(b"\n".join(names) + b"\n")
            server.protocols[0].shut_down()

        server.loop.call_soon_threadsafe(be_busy)
        last = b"".join(PROMPT + hello(name) for name in names[-100:])
        assert client.hear_rest().endswith(last + PROMPT + GOODBYE)
        client.socket.close()
        assert server.ending() is EndReason.SHUTDOWN


def test_shutdown_while_a_send_is_blocked() -> None:
    """It waits for the send."""
    with AsyncioServer(LINES, send_buffer=4096) as server:
        client = server.connect(receive_buffer=4096)
        client.say(b"Ada\n" * 4096)
        client.hear(WELCOME)
        while not server.protocols[0]._sending:
            pass
        server.loop.call_soon_threadsafe(server.protocols[0].shut_down)
        assert WELCOME + client.hear_rest() == dialogue(*[b"Ada"] * 4096)


@pytest.mark.parametrize("words", [b"Ada\nexit\n", b"Ada\n"], ids=["exit", "end of stream"])
def test_tls(authority: Authority, words: bytes) -> None:
    """There is no half-close: the server closes instead, after its last word."""
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(authority.issue("localhost"))
    theirs = ssl.create_default_context(cafile=authority.path)
    config = ServerConfig(framing=Framing.LINES, linger=1000)  # it does not wait for that
    with AsyncioServer(config, tls=ours) as server:
        sock = theirs.wrap_socket(server.connect().socket, server_hostname="localhost")
        with Peer(sock) as client:
            client.say(words)
            if words.endswith(b"exit\n"):
                assert client.hear_rest() == dialogue(b"Ada")
            else:
                client.hear(WELCOME + PROMPT + ADA + PROMPT)
                sock.unwrap().shutdown(socket.SHUT_WR)
        assert server.ending() is (EndReason.EXIT if words.endswith(b"exit\n") else EndReason.EOF)
