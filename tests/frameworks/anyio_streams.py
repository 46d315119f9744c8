"""The streams of anyio, on asyncio or (`--backend trio`) on Trio."""

from argparse import Namespace
from contextlib import suppress
from typing import Final

import anyio
from anyio import CancelScope
from anyio.abc import SocketAttribute, SocketStream, TaskGroup
from anyio.lowlevel import checkpoint

from .anyio_service import run
from .common import BACKLOG, READ_SIZE, Conversation, announce, parser, reset_at_close

TURNS: Final = 5  # of the loop; a stream hands over within fewer what can be read


class Greeter:
    """One conversation."""

    _waiting: CancelScope | None = None

    def __init__(self, stream: SocketStream, options: Namespace) -> None:
        self._stream, self._options = stream, options  # the stream has TCP_NODELAY set
        self._sock = stream.extra(SocketAttribute.raw_socket)
        self._conversation = Conversation(options.config, self._sock, anyio.current_time())

    async def run(self) -> None:
        """Have the conversation, to its end."""
        try:
            while True:
                await self._send()
                if self._conversation.finished:
                    break
                data = await self._receive()
                self._conversation.give(data, anyio.current_time())
        except* (anyio.BrokenResourceError, TimeoutError):
            self._conversation.lose()

    async def _send(self) -> None:
        try:
            while data := self._conversation.data_to_send():
                with anyio.fail_after(self._options.send_timeout):
                    await self._stream.send(data)
        except TimeoutError:
            reset_at_close(self._sock)
            raise
        if self._conversation.eof_to_send():
            with suppress(OSError):  # if the connection is broken, the next read says so
                await self._stream.send_eof()

    async def _receive(self) -> bytes | None:
        """Return what one read returns, or None for nothing in time."""
        with anyio.move_on_after(self._conversation.timeout(anyio.current_time())) as self._waiting:
            return await self._read()
        data = None
        async with anyio.create_task_group() as group:  # once more, for what has come by now (T3)
            group.start_soon(cancel_soon, group.cancel_scope)
            data = await self._read()
            group.cancel_scope.cancel()
        return data

    async def _read(self) -> bytes:
        try:
            data: bytes = await self._stream.receive(READ_SIZE)
        except anyio.EndOfStream:
            return b""
        return data

    def shut_down(self) -> None:
        """End the conversation in good order, when what has arrived is answered."""
        self._conversation.shut_down()
        if self._waiting:
            self._waiting.cancel()


async def cancel_soon(scope: CancelScope) -> None:
    """Cancel a read that finds nothing."""
    for _ in range(TURNS):
        await checkpoint()
    scope.cancel()


async def serve(options: Namespace) -> None:
    """Serve until a signal comes, and all conversations are over."""
    live = set[Greeter]()

    async def greet(stream: SocketStream) -> None:
        async with stream:
            live.add(greeter := Greeter(stream, options))
            await greeter.run()
            live.remove(greeter)

    async def accept(conversations: TaskGroup) -> None:
        async with listener:
            await listener.serve(greet, conversations)

    address = {"local_host": options.host, "local_port": options.port}
    listener = await anyio.create_tcp_listener(**address, backlog=BACKLOG)
    announce(*listener.extra(SocketAttribute.local_address))
    await run(live, accept)


if __name__ == "__main__":
    options = parser(backend=("asyncio", "trio")).parse_args()
    anyio.run(serve, options, backend=options.backend)
