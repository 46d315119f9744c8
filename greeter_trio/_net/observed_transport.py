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
    `half_close` and `close`: when sending began, and when receiving had something. `tcp` has the
    state of TCP, if it is known: at first, at the end of the stream, and after `half_close`.
    """

    __slots__ = ("_observe", "_sock", "_transport", "now")

    def __init__(
        self, transport: Transport, observe: Observe, sock: kernel.TcpSocket | None = None
    ) -> None:
        self.now: Clock = trio.current_time
        """The clock of the conversation."""
        self._transport = transport
        self._observe = observe
        self._sock = sock
        self._look_at_tcp()

    async def receive(self) -> bytes | bytearray:
        data = await self._transport.receive()
        self._received(data)
        return data

    async def receive_arrived(self) -> bytes | bytearray | None:
        data = await self._transport.receive_arrived()
        if data is not None:
            self._received(data)
        return data

    def arrived(self) -> int:
        return self._transport.arrived()

    def send_now(self, data: bytes | memoryview) -> int:
        now = self.now()
        sent = self._transport.send_now(data)
        if sent:
            self._observe("send", now, bytes=sent)
        return sent

    async def send_some(self, data: bytes | memoryview) -> int:
        now = self.now()
        sent = await self._transport.send_some(data)
        self._observe("send", now, bytes=sent)
        return sent

    async def send_eof(self, timeout: float) -> None:  # noqa: ASYNC109 - the driver decides it
        now = self.now()
        await self._transport.send_eof(timeout)
        self._observe("half_close", now)
        self._look_at_tcp()

    def is_in_flight(self) -> bool:
        return self._transport.is_in_flight()

    def reset_at_close(self, *, on: bool) -> None:
        self._transport.reset_at_close(on=on)

    def close(self) -> None:
        self._observe("close", self.now())
        self._transport.close()

    def _received(self, data: bytes | bytearray) -> None:
        self._observe("receive", self.now(), bytes=len(data))
        if not data:
            self._look_at_tcp()

    def _look_at_tcp(self) -> None:
        # Only where the state may have changed: the kernel takes longer for this than for a send.
        info = kernel.tcp_info(self._sock) if self._sock else None
        if info and info.state != "CLOSE":  # which is: it is no longer this socket's
            rtt_ms = round(info.rtt * 1000, 3)
            self._observe("tcp", self.now(), state=info.state, rtt_ms=rtt_ms)
