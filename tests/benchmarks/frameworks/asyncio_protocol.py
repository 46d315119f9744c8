"""An `asyncio.Protocol`; with an argument, on the event loop of uvloop."""

import asyncio
import importlib
import sys
from typing import cast

from tests.benchmarks.servers import BACKLOG, HOST, IDLE_TIMEOUT, OPENING, answer


class Greeter(asyncio.Protocol):
    """One conversation.

    The idle timeout is one timer for each connection. It is not moved with each name: when it
    fires, it looks at the time of the last arrival, and is set again if that is too recent.
    """

    __slots__ = ("_last_arrival", "_loop", "_over", "_tail", "_timer", "_transport")

    _transport: asyncio.Transport
    _timer: asyncio.TimerHandle

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tail = b""
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # has TCP_NODELAY set
        self._last_arrival = self._loop.time()
        self._timer = self._loop.call_later(IDLE_TIMEOUT, self._check_idle)
        self._transport.write(OPENING)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self._last_arrival = self._loop.time()
        reply, self._tail, self._over = answer(self._tail + data)
        if reply:
            self._transport.write(reply)
        if self._over:
            self._transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio passes it
        self._timer.cancel()

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def _check_idle(self) -> None:
        left = self._last_arrival + IDLE_TIMEOUT - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_idle)
        else:
            self._transport.abort()


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Greeter, HOST, 0, backlog=BACKLOG)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    new_loop = importlib.import_module("uvloop").new_event_loop if sys.argv[1:] else None
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve())
