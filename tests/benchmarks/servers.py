"""The servers that Greeter is measured against: `python -m tests.benchmarks.servers epoll|asyncio`.

Both speak Greeter's line framing, ask for the first name at once, and end a conversation as Greeter does: GOODBYE, the
end of the stream, and then they wait for the client's. Both handle one chunk as a straightforward program does, name by
name, and answer it with one write. They leave out what the loads do not use: names without a terminator, pacing, a
limit on the size of a name, a log. The epoll loop also leaves out every time limit. So it is about the least that a
single-threaded Python server can do, and therefore the measure for the others.
"""

import argparse
import asyncio
import contextlib
import select
import socket
import sys

from .wire import BANG, GOODBYE, HELLO, HOST, LF, PROMPT, WELCOME

BACKLOG = 1024  # connections
CHUNK_SIZE = 65536  # bytes; what Greeter reads at once, too
PATIENCE = 300  # seconds; how long the asyncio server waits, Greeter's default

_ANSWER_END = BANG + PROMPT


def answer(data: bytes) -> tuple[bytes, bytes, bool]:
    """Return the reply to all whole lines of `data`, what follows the last of them, and whether there was an `exit`."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    names = data.split(LF)
    tail = names.pop()
    words = []
    for name in names:
        if name == b"exit":
            words.append(GOODBYE)
            return b"".join(words), b"", True
        words.append(HELLO + name + _ANSWER_END if name else PROMPT)
    return b"".join(words), tail, False


def serve_epoll() -> None:
    """Greet whoever connects, with one bare loop over `select.epoll`."""
    clients: dict[int, _Client] = {}
    with socket.create_server((HOST, 0), backlog=BACKLOG) as listener, select.epoll() as epoll:
        listener.settimeout(0)
        epoll.register(listener, select.EPOLLIN)
        _announce(listener)
        while True:
            for fd, _ in epoll.poll():
                client = clients.get(fd)
                if client is None:
                    with contextlib.suppress(OSError):  # the client has given up already
                        sock, _ = listener.accept()
                        clients[sock.fileno()] = _Client(sock, epoll)
                elif not client.take_turn():
                    del clients[fd]


class _Client:
    """One connection of the epoll loop."""

    __slots__ = ("_epoll", "_over", "_sock", "_tail", "_unsent")

    def __init__(self, sock: socket.socket, epoll: "select.epoll") -> None:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        epoll.register(sock, select.EPOLLIN)
        self._sock = sock
        self._epoll = epoll
        self._tail = b""
        self._unsent = b""
        self._over = False  # GOODBYE is said, or waits to be
        self._send(WELCOME + PROMPT)

    def take_turn(self) -> bool:
        """Do what can be done now; return whether the client is still there."""
        try:
            if self._unsent:  # as long as the client does not read, nothing is read from it
                self._send(self._unsent)
                if not self._unsent:
                    self._epoll.modify(self._sock, select.EPOLLIN)
                return True
            data = self._sock.recv(CHUNK_SIZE)
            if data and not self._over:
                reply, self._tail, self._over = answer(self._tail + data)
                if reply:
                    self._send(reply)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            self._sock.close()
        return bool(data)

    def _send(self, data: bytes) -> None:
        """Send what the kernel takes; keep the rest for when it takes more."""
        try:
            self._unsent = data[self._sock.send(data) :]
        except BlockingIOError:
            self._unsent = data
        if self._unsent:
            self._epoll.modify(self._sock, select.EPOLLOUT)
        elif self._over:
            self._sock.shutdown(socket.SHUT_WR)


async def serve_asyncio() -> None:
    """Greet whoever connects, with asyncio streams; no read and no drain may take longer than `PATIENCE`."""
    server = await asyncio.start_server(_converse, HOST, 0, backlog=BACKLOG)  # which sets TCP_NODELAY
    _announce(server.sockets[0])
    async with server:
        await server.serve_forever()


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    reply, tail, over = WELCOME + PROMPT, b"", False
    with contextlib.suppress(OSError, TimeoutError), contextlib.closing(writer):
        while True:
            if reply:
                writer.write(reply)
                async with asyncio.timeout(PATIENCE):
                    await writer.drain()
            if over:
                writer.write_eof()
            async with asyncio.timeout(PATIENCE):
                data = await reader.read(CHUNK_SIZE)
            if not data:
                break
            reply, tail, over = (b"", b"", True) if over else answer(tail + data)


def _announce(listener: socket.socket) -> None:
    host, port = listener.getsockname()
    sys.stdout.write(f"Waiting for connection on {host}:{port}\n")
    sys.stdout.flush()


def main() -> None:
    """Run the server that the command line names, until a signal ends it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.servers", description=__doc__)
    parser.add_argument("server", choices=["epoll", "asyncio"])
    with contextlib.suppress(KeyboardInterrupt):
        if parser.parse_args().server == "epoll":
            serve_epoll()
        else:
            asyncio.run(serve_asyncio())


if __name__ == "__main__":
    main()
