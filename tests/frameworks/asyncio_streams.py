"""The streams of asyncio."""

import asyncio
from argparse import Namespace
from asyncio import StreamReader, StreamWriter
from contextlib import suppress

from .asyncio_service import run
from .common import READ_SIZE, Conversation, listen, parser, reset_at_close


class Greeter:
    """One conversation."""

    _waiting: asyncio.Timeout | None = None

    def __init__(self, reader: StreamReader, writer: StreamWriter, options: Namespace) -> None:
        self._reader, self._writer, self._options = reader, writer, options
        self._loop = asyncio.get_running_loop()
        self._sock = writer.get_extra_info("socket")  # it has TCP_NODELAY set
        self._conversation = Conversation(options.config, self._sock, self._loop.time())
        self.closed = self._loop.create_future()

    async def run(self) -> None:
        """Have the conversation, to its end."""
        self._writer.transport.set_write_buffer_limits(high=0)  # drain waits until all is sent
        try:
            while True:
                await self._send()
                if self._conversation.finished:
                    break
                data = await self._receive()
                self._conversation.give(data, self._loop.time())
        except OSError:
            self._conversation.lose()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
        self.closed.set_result(None)

    async def _send(self) -> None:
        try:
            while data := self._conversation.data_to_send():
                self._writer.write(data)
                async with asyncio.timeout(self._options.send_timeout):
                    await self._writer.drain()
        except TimeoutError:
            reset_at_close(self._sock)
            self._writer.transport.abort()
            raise
        if self._conversation.eof_to_send():
            with suppress(OSError):  # if the connection is broken, the next read says so
                self._writer.write_eof()

    async def _receive(self) -> bytes | None:
        """Return what one read returns, or None for nothing in time.

        The loop looks at the sockets before the second try ends, and what it finds can be too late
        for that try, but is there for the third one (T3).
        """
        for seconds in (self._conversation.timeout(self._loop.time()), 0, 0):
            self._waiting = waiting = asyncio.timeout(seconds)
            try:
                async with waiting:
                    return await self._reader.read(READ_SIZE)
            except TimeoutError:
                if not waiting.expired():  # it comes from the network
                    raise
        return None

    def shut_down(self) -> None:
        """End the conversation in good order, when what has arrived is answered."""
        self._conversation.shut_down()
        with suppress(RuntimeError):  # it is not waiting
            if self._waiting:
                self._waiting.reschedule(self._loop.time())


async def serve(options: Namespace) -> None:
    """Serve until a signal comes, and all conversations are over."""
    live = set[Greeter]()

    async def greet(reader: StreamReader, writer: StreamWriter) -> None:
        live.add(greeter := Greeter(reader, writer, options))
        await greeter.run()
        live.remove(greeter)

    await run(await asyncio.start_server(greet, sock=listen(options), limit=READ_SIZE), live)


if __name__ == "__main__":
    asyncio.run(serve(parser().parse_args()))
