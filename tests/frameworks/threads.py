"""Blocking sockets, with a thread for each client."""

import selectors
import socket
import threading
from argparse import Namespace
from contextlib import suppress
from time import monotonic
from typing import Any

from .common import (
    READ_SIZE,
    Conversation,
    disable_nagle,
    listen,
    parser,
    reset_at_close,
    stop_socket,
)


def greet(sock: socket.socket, options: Namespace, stop: socket.socket) -> None:
    """Serve one client; end in good order when `stop` can be read."""
    with sock, watching(sock, stop) as selector:
        disable_nagle(sock)
        sock.settimeout(options.send_timeout)
        conversation = Conversation(options.config, sock, monotonic())
        try:
            while True:
                send(sock, conversation)
                if conversation.finished:
                    break
                ready = wait(selector, conversation.timeout(monotonic()))
                if stop in ready:
                    selector.unregister(stop)
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


def watching(*socks: socket.socket) -> selectors.BaseSelector:
    """Return a selector that waits until one of these sockets can be read."""
    selector = selectors.DefaultSelector()
    for sock in socks:
        selector.register(sock, selectors.EVENT_READ)
    return selector


def wait(selector: selectors.BaseSelector, seconds: float | None = None) -> set[Any]:
    """Return which sockets can be read."""
    # The second look is for what came while this thread was late (T3).
    ready = selector.select(seconds) or selector.select(0)
    return {key.fileobj for key, _ in ready}


def main(options: Namespace) -> None:
    """Accept clients until a signal comes; Python waits for the threads."""
    stop = stop_socket()
    with listen(options) as listener, watching(listener, stop) as selector:
        while stop not in wait(selector):
            with suppress(OSError):  # the client has given up already
                arguments = (listener.accept()[0], options, stop)
                threading.Thread(target=greet, args=arguments).start()


if __name__ == "__main__":
    main(parser().parse_args())
