"""The sockets of gevent, with a greenlet for each client."""

import socket
from argparse import Namespace
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Final

from gevent.pool import Pool
from gevent.select import select
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
    sock.settimeout(options.send_timeout)
    conversation = Conversation(options.config, sock, monotonic())
    sources = [sock, stop]
    try:
        while True:
            send(sock, conversation)
            if conversation.finished:
                break
            # The second look is for what came while this greenlet was late (T3).
            seconds = conversation.timeout(monotonic())
            ready = select(sources, [], [], seconds)[0] or select(sources, [], [], 0)[0]
            if stop in ready:
                sources.remove(stop)
                conversation.shut_down()
            else:
                data = sock.recv(READ_SIZE) if ready else None
                conversation.give(data, monotonic())
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


def main(options: Namespace) -> None:
    """Serve until a signal comes, and all conversations are over."""
    stop, pool = stop_socket(), Pool()
    address = (options.host, options.port)
    server = StreamServer(address, partial(greet, options, stop), backlog=BACKLOG, spawn=pool)
    server.start()
    announce(*server.address)
    select([stop], [], [])
    server.close()
    pool.join()


if __name__ == "__main__":
    main(parser().parse_args())
