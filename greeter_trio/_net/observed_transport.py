"""A transport in place of another one, which reports what is done with it."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import trio

from . import kernel
from .transport import Transport

Clock: TypeAlias = Callable[[], float]


class Observe(Protocol):
    """Called with what was done, when, and what else is known of it."""

    def __call__(self, what: str, now: float, **fields: object) -> object: ...


class ObservedTransport(Transport):
    """Does what another transport does, and reports each call that did something.

    These are `receive` and `send`, with the number of `bytes` (0 is the end of the stream),
    `half_close` and `close`: when sending began, and when receiving had something. After each call
    `tcp` has the state of TCP, if it is known and has changed.
    """

    __slots__ = ("_observe", "_sock", "_tcp_state", "_transport", "now")

    def __init__(
        self, transport: Transport, observe: Observe, sock: kernel.TcpSocket | None = None
    ) -> None:
        self.now: Clock = trio.current_time
        """The clock of the conversation."""
        self._transport = transport
        self._observe = observe
        self._sock = sock
        self._tcp_state = ""
        self._look_at_tcp(self.now())

    async def receive(self) -> bytes | bytearray:
        data = await self._transport.receive()
        self._note("receive", self.now(), bytes=len(data))
        return data

    async def receive_arrived(self) -> bytes | bytearray | None:
        data = await self._transport.receive_arrived()
        if data is not None:
            self._note("receive", self.now(), bytes=len(data))
        return data

    def arrived(self) -> int:
        return self._transport.arrived()

    def send_now(self, data: bytes | memoryview) -> int:
        now = self.now()
        sent = self._transport.send_now(data)
        if sent:
            self._note("send", now, bytes=sent)
        return sent

    async def send_some(self, data: bytes | memoryview) -> int:
        now = self.now()
        sent = await self._transport.send_some(data)
        self._note("send", now, bytes=sent)
        return sent

    async def send_eof(self, timeout: float) -> None:  # noqa: ASYNC109 - the driver decides it
        now = self.now()
        await self._transport.send_eof(timeout)
        self._note("half_close", now)

    def is_in_flight(self) -> bool:
        return self._transport.is_in_flight()

    def close(self) -> None:
        self._observe("close", self.now())
        self._transport.close()

    def _note(self, what: str, now: float, **fields: object) -> None:
        self._observe(what, now, **fields)
        self._look_at_tcp(self.now())

    def _look_at_tcp(self, now: float) -> None:
        info = kernel.tcp_info(self._sock) if self._sock else None
        if info and info.state not in (self._tcp_state, "CLOSE"):  # which is: no longer this one's
            self._tcp_state = info.state
            self._observe("tcp", now, state=info.state, rtt_ms=round(info.rtt * 1000, 3))
