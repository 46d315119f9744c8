"""The sockets of gevent, with a greenlet for each client."""

import socket
from argparse import Namespace
from contextlib import suppress
from time import monotonic
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer
from gevent.socket import cancel_wait, wait, wait_read

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

READ = 1  # as in libev


class Conversations:
    """Those of one server, by what each waits for: that its socket can be read."""

    def __init__(self, options: Namespace) -> None:
        self._options = options
        self._live: dict[Any, Conversation] = {}

    def greet(self, sock: socket.socket, _: object) -> None:
        """Serve one client."""
        disable_nagle(sock)
        conversation = Conversation(self._options.config, sock, monotonic())
        readable = gevent.get_hub().loop.io(sock.fileno(), READ)
        self._live[readable] = conversation
        try:
            while True:
                sock.settimeout(self._options.send_timeout)
                send(sock, conversation)
                if conversation.finished:
                    break
                with suppress(TimeoutError):
                    wait(readable, conversation.timeout(monotonic()))
                sock.settimeout(0.0)
                conversation.give(receive(sock), monotonic())
        except OSError:
            conversation.lose()
        finally:
            del self._live[readable]
            readable.close()

    def shut_down(self) -> None:
        """Have all of them end in good order."""
        for readable, conversation in self._live.items():
            conversation.shut_down()
            cancel_wait(readable, TimeoutError())


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


def main(options: Namespace) -> None:
    """Serve until a signal comes, and all conversations are over."""
    stop, pool, conversations = stop_socket(), Pool(), Conversations(options)
    address, greet = (options.host, options.port), conversations.greet
    server = StreamServer(address, greet, backlog=BACKLOG, spawn=pool)
    server.start()
    announce(*server.address)
    wait_read(stop.fileno())
    server.close()
    gevent.sleep(0)  # the greenlets of the clients that were accepted last begin
    conversations.shut_down()
    pool.join()


if __name__ == "__main__":
    main(parser().parse_args())
