"""An `asyncio.BufferedProtocol`; with `--loop uvloop`, on the event loop of uvloop."""

import asyncio
import importlib
from argparse import Namespace
from contextlib import suppress
from typing import cast

from .asyncio_service import run
from .common import READ_SIZE, Conversation, listen, parser, reset_at_close


class Greeter(asyncio.BufferedProtocol):
    """One conversation."""

    _buffer = bytearray(READ_SIZE)  # for all: the core copies what it is given

    def __init__(self, options: Namespace, live: "set[Greeter]") -> None:
        self._options, self._live = options, live
        self._loop = asyncio.get_running_loop()
        self.closed = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # which sets TCP_NODELAY itself
        self._transport.set_write_buffer_limits(high=0)
        sock, now = transport.get_extra_info("socket"), self._loop.time()
        self._conversation = Conversation(self._options.config, sock, now)
        self._live.add(self)
        self._timer: asyncio.Handle = self._loop.call_soon(self._advance)  # which cancels it
        self._advance()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - READ_SIZE is the limit
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._give(memoryview(self._buffer)[:nbytes])

    def eof_received(self) -> bool:
        self._give(b"")
        return True  # do not close yet

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - it does not matter
        self._conversation.lose()
        self._timer.cancel()
        self._live.remove(self)
        self.closed.set_result(None)

    def resume_writing(self) -> None:
        # Not at once: asyncio does not expect a transport to be closed from within this method.
        self._loop.call_soon(self._advance)

    def shut_down(self) -> None:
        """End the conversation in good order, when what has arrived is answered."""
        self._conversation.shut_down()
        if not self._transport.get_write_buffer_size():
            self._advance()

    def _give(self, data: bytes | memoryview | None) -> None:
        self._conversation.give(data, self._loop.time())
        self._advance()

    def _advance(self) -> None:
        """Send; when everything is sent, wait for the next input."""
        conversation, transport = self._conversation, self._transport
        self._timer.cancel()
        while not transport.get_write_buffer_size() and (data := conversation.data_to_send()):
            transport.write(data)
        if transport.get_write_buffer_size():  # resume_writing is called when all is sent
            transport.pause_reading()
            self._timer = self._loop.call_later(self._options.send_timeout, self._give_up)
            return
        transport.resume_reading()
        if conversation.eof_to_send():
            with suppress(OSError):  # if the connection is broken, the next read says so
                transport.write_eof()
        if conversation.finished:
            transport.close()
        else:
            wait = conversation.timeout(self._loop.time())
            self._timer = self._loop.call_later(wait, self._look, 2)

    def _look(self, turns: int) -> None:
        """Tell the time, unless something can be read: the loop finds that in two turns (T3)."""
        if turns:
            self._timer = self._loop.call_soon(self._look, turns - 1)
        else:
            self._give(None)

    def _give_up(self) -> None:
        reset_at_close(self._transport.get_extra_info("socket"))
        self._transport.abort()


async def serve(options: Namespace) -> None:
    """Serve until a signal comes, and all conversations are over."""
    loop, live = asyncio.get_running_loop(), set[Greeter]()
    server = await loop.create_server(lambda: Greeter(options, live), sock=listen(options))
    await run(server, live)


if __name__ == "__main__":
    options = parser(loop=("asyncio", "uvloop")).parse_args()
    new_loop = importlib.import_module(options.loop).new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve(options))
