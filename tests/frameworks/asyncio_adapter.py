"""The core under asyncio: a protocol and its transport, and one timer handle for the next deadline."""

import asyncio
import math
from typing import cast

from greeter_core import ServerConfig, ServerConnection

PATIENCE = 30.0  # seconds that a peer has to take the last words


class GreeterProtocol(asyncio.Protocol):
    """One conversation; give the class, or a function that makes one, to `loop.create_server`."""

    _transport: asyncio.Transport
    _connection: ServerConnection

    def __init__(self, config: ServerConfig = ServerConfig()) -> None:  # noqa: B008 - it is frozen
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connection = ServerConnection(self._config, now=self._loop.time())
        self._move_on()

    def data_received(self, data: bytes) -> None:
        self._connection.receive_data(data, self._loop.time())
        self._move_on()

    def eof_received(self) -> bool:
        self._connection.receive_eof(self._loop.time())
        self._move_on()
        return True  # the transport is closed by _move_on, after what is left to say

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio passes it
        self._connection.connection_lost()
        self._move_on()

    def pause_writing(self) -> None:  # the peer does not read: take no more names from it
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _move_on(self) -> None:
        """Take all that the connection has to say, and come back at its deadline."""
        if data := self._connection.data_to_send():
            self._transport.write(data)
        if self._connection.eof_to_send():
            self._transport.write_eof()
        if self._connection.finished:
            self._transport.close()
            self._loop.call_later(PATIENCE, self._transport.abort)  # if the peer does not take the rest
        if self._timer:
            self._timer.cancel()
        if self._connection.deadline < math.inf:
            self._timer = self._loop.call_at(self._connection.deadline, self._time_out)

    def _time_out(self) -> None:
        self._connection.handle_timeout(self._loop.time())
        self._move_on()
