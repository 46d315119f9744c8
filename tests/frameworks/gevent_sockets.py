"""The sockets of gevent, with a greenlet for each client."""

import socket
from argparse import Namespace
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Final

from gevent import select
from gevent.pool import Pool
from gevent.server import StreamServer

from .common import (
    BACKLOG,
    READ_SIZE,
    Conversation,
    announce,
    disable_nagle,
    parser,
    reset_at_close,
    stop_socket,
)

LIMITS: Final = ""


def greet(options: Namespace, stop: socket.socket, sock: socket.socket, _: object) -> None:
    """Serve one client; end in good order when `stop` can be read."""
    disable_nagle(sock)
    conversation = Conversation(options.config, sock, monotonic())
    poller = watching(sock, stop)
    try:
        while True:
            sock.settimeout(options.send_timeout)
            send(sock, conversation)
            if conversation.finished:
                break
            ready = poller.poll(1000 * conversation.timeout(monotonic()))
            if (stop.fileno(), select.POLLIN) in ready:
                poller.unregister(stop)
                conversation.shut_down()
            else:
                sock.settimeout(0.0)
                conversation.give(receive(sock), monotonic())
    except OSError:
        conversation.lose()


def send(sock: socket.socket, conversation: Conversation) -> None:
    """Send everything."""
    try:
        while data := conversation.data_to_send():
            sock.sendall(data)
    except TimeoutError:
        reset_at_close(sock)
        raise
    if conversation.eof_to_send():
        with suppress(OSError):  # if the connection is broken, the next read says so
            sock.shutdown(socket.SHUT_WR)


def receive(sock: socket.socket) -> bytes | None:
    """Return what can be read now, even if it came when the time to wait was over (T3)."""
    try:
        return sock.recv(READ_SIZE)
    except BlockingIOError:
        return None


def watching(*socks: socket.socket) -> select.poll:
    """Return what waits until one of these sockets can be read."""
    # Not `select.select`, which looks with select(2) first; that takes no descriptor above 1023.
    poller = select.poll()
    for sock in socks:
        poller.register(sock, select.POLLIN)
    return poller


def main(options: Namespace) -> None:
    """Serve until a signal comes, and all conversations are over."""
    stop, pool = stop_socket(), Pool()
    address = (options.host, options.port)
    server = StreamServer(address, partial(greet, options, stop), backlog=BACKLOG, spawn=pool)
    server.start()
    announce(*server.address)
    watching(stop).poll()
    server.close()
    pool.join()


if __name__ == "__main__":
    main(parser().parse_args())
