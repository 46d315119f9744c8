"""One loop over `selectors`, in one thread; each conversation is a generator."""

import math
import selectors
import socket
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic

from .common import (
    READ_SIZE,
    Conversation,
    disable_nagle,
    listen,
    parser,
    reset_at_close,
    stop_socket,
)

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Client:
    """One conversation."""

    when = 0.0  # when to go on, though the socket is not ready

    def __init__(self, sock: socket.socket, options: Namespace) -> None:
        disable_nagle(sock)
        sock.settimeout(0.0)
        self.sock, self._send_timeout = sock, options.send_timeout
        self.conversation = Conversation(options.config, sock, monotonic())
        self.steps = self._run()

    def _run(self) -> Iterator[int]:
        """Have the conversation; yield the event to wait for. To go on early is harmless."""
        conversation = self.conversation
        try:
            while True:
                yield from self._send()
                if conversation.finished:
                    return
                now = monotonic()
                self.when = now + conversation.timeout(now)
                yield READ
                data = None
                with suppress(BlockingIOError):
                    data = self.sock.recv(READ_SIZE)
                conversation.give(data, monotonic())
        except OSError:
            conversation.lose()

    def _send(self) -> Iterator[int]:
        while data := self.conversation.data_to_send():
            self.when = monotonic() + self._send_timeout
            while data:
                try:
                    data = data[self.sock.send(data) :]
                except BlockingIOError:
                    if self.when <= monotonic():
                        reset_at_close(self.sock)
                        raise
                    yield WRITE
        if self.conversation.eof_to_send():
            with suppress(OSError):  # if the connection is broken, the next read says so
                self.sock.shutdown(socket.SHUT_WR)


def main(options: Namespace) -> None:
    """Serve until a signal comes, and all conversations are over."""
    clients: set[Client] = set()
    first = math.inf  # when the first timer is due, at the earliest
    stop = stop_socket()
    with listen(options) as listener, selectors.DefaultSelector() as selector:
        selector.register(listener, READ)
        selector.register(stop, READ)
        while clients or listener.fileno() >= 0:
            ready = selector.select(None if first == math.inf else first - monotonic())
            due = {key.data for key, _ in ready if key.data}
            sources = [key.fileobj for key, _ in ready if not key.data]
            if stop in sources:
                for sock in stop, listener:
                    selector.unregister(sock)
                listener.close()
                for client in clients:
                    client.conversation.shut_down()
                due = clients.copy()
            elif listener in sources:
                with suppress(OSError):  # the client has given up already
                    clients.add(client := Client(listener.accept()[0], options))
                    selector.register(client.sock, READ, client)
                    due.add(client)
            if first <= (now := monotonic()):  # to look at all only then makes many clients cheap
                due.update(client for client in clients if client.when <= now)
                first = min((client.when for client in clients - due), default=math.inf)
            for client in due:
                if events := next(client.steps, 0):
                    first = min(first, client.when)
                    if events != selector.get_key(client.sock).events:
                        selector.modify(client.sock, events, client)
                else:
                    selector.unregister(client.sock)
                    client.sock.close()
                    clients.remove(client)


if __name__ == "__main__":
    main(parser().parse_args())
