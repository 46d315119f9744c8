"""Blocking sockets, and a thread for each client."""

import contextlib
import socket
import threading

from tests.benchmarks.servers import BACKLOG, CHUNK_SIZE, HOST, IDLE_TIMEOUT, OPENING, answer


def converse(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(IDLE_TIMEOUT)
    reply, tail, over = OPENING, b"", False
    with contextlib.suppress(OSError), sock:
        while True:
            sock.sendall(reply)
            if over:
                sock.shutdown(socket.SHUT_WR)
            data = sock.recv(CHUNK_SIZE)
            if not data:
                return
            reply, tail, over = (b"", b"", True) if over else answer(tail + data)


def serve() -> None:
    with socket.create_server((HOST, 0), backlog=BACKLOG) as listener:
        while True:
            with contextlib.suppress(OSError):  # the client has given up already
                sock, _ = listener.accept()
                threading.Thread(target=converse, args=[sock], daemon=True).start()


if __name__ == "__main__":
    serve()
