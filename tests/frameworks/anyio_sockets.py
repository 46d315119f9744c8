"""Non-blocking sockets for which anyio waits, on asyncio or (`--backend trio`) on Trio."""

import socket
from argparse import Namespace
from contextlib import suppress

import anyio
from anyio.abc import TaskGroup

from .anyio_service import run
from .common import READ_SIZE, Conversation, disable_nagle, listen, parser, reset_at_close


class Greeter:
    """One conversation."""

    def __init__(self, sock: socket.socket, options: Namespace) -> None:
        disable_nagle(sock)
        sock.settimeout(0.0)
        self._sock, self._send_timeout = sock, options.send_timeout
        self._conversation = Conversation(options.config, sock, anyio.current_time())
        self._waiting = anyio.CancelScope()

    async def run(self) -> None:
        """Have the conversation, to its end."""
        with self._sock:
            try:
                await self._send()
                while not self._conversation.finished:
                    data = await self._receive()
                    self._conversation.give(data, anyio.current_time())
                    await self._send()
            except OSError:
                self._conversation.lose()

    async def _send(self) -> None:
        try:
            while data := self._conversation.data_to_send():
                with anyio.fail_after(self._send_timeout):
                    while data:
                        try:
                            data = data[self._sock.send(data) :]
                        except BlockingIOError:
                            await anyio.wait_writable(self._sock)
        except TimeoutError:
            reset_at_close(self._sock)
            raise
        if self._conversation.eof_to_send():
            with suppress(OSError):  # if the connection is broken, the next read says so
                self._sock.shutdown(socket.SHUT_WR)

    async def _receive(self) -> bytes | None:
        """Return what one read returns, or None for nothing in time."""
        wait = self._conversation.timeout(anyio.current_time())
        with anyio.move_on_after(wait) as self._waiting:
            await anyio.wait_readable(self._sock)
        with suppress(BlockingIOError):  # the read that comes before a judgement, too (T3)
            return self._sock.recv(READ_SIZE)
        return None

    def shut_down(self) -> None:
        """End the conversation in good order, when what has arrived is answered."""
        self._conversation.shut_down()
        self._waiting.cancel()


async def serve(options: Namespace) -> None:
    """Serve until a signal comes, and all conversations are over."""
    live = set[Greeter]()

    async def greet(greeter: Greeter) -> None:
        await greeter.run()
        live.remove(greeter)

    async def accept(conversations: TaskGroup) -> None:
        with listener:
            while True:
                await anyio.wait_readable(listener)
                with suppress(OSError):  # the client has given up already
                    live.add(greeter := Greeter(listener.accept()[0], options))
                    conversations.start_soon(greet, greeter)

    listener = listen(options)
    await run(live, accept)


if __name__ == "__main__":
    options = parser(backend=("asyncio", "trio")).parse_args()
    anyio.run(serve, options, backend=options.backend)
