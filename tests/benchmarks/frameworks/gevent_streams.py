"""A handler under gevent's `StreamServer`."""

import contextlib
import socket

import gevent
from gevent.server import StreamServer

from tests.benchmarks.servers import BACKLOG, CHUNK_SIZE, HOST, IDLE_TIMEOUT, OPENING, answer


def converse(sock: socket.socket, _address: object) -> None:
    """`StreamServer` closes the socket."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reply, tail, over = OPENING, b"", False
    with contextlib.suppress(OSError):
        while True:
            data = b""
            with gevent.Timeout(IDLE_TIMEOUT, exception=False):  # it leaves the block silently
                sock.sendall(reply)
                if over:
                    sock.shutdown(socket.SHUT_WR)
                data = sock.recv(CHUNK_SIZE)
            if not data:
                return
            reply, tail, over = (b"", b"", True) if over else answer(tail + data)


if __name__ == "__main__":
    StreamServer((HOST, 0), converse, backlog=BACKLOG).serve_forever()
