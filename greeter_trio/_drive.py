"""Run a conversation of `greeter_core` over a byte stream.

One task does it all: it sends what there is to send, and waits for bytes under a cancel scope whose
deadline is the connection's own. That deadline, and `wake`, cancel a receive, which loses nothing.
A broken transport is reported to the connection, which ends the conversation.
"""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import trio

from greeter_core import Connection

from ._net.clock import PausableClock
from ._net.outbox import SEND_TIMEOUT, Outbox, SendFailed
from ._net.stream_transport import transport_over
from ._net.transport import BROKEN, Transport


async def drive(
    connection: Connection[Any, Any],
    stream: trio.abc.Stream,
    handle_event: Callable[[Any], object] | None = None,
) -> None:
    """Have the conversation of `connection` over `stream`, to its end, and close the stream.

    The connection must have been made with `now=trio.current_time()`. A stream that cannot be
    half-closed (`trio.SSLStream`) is closed where others are half-closed. If output could not be
    sent, TCP is reset, so that the peer does not take a part for the whole.

    `handle_event` is called with each event as it happens, and must not wait; what it raises is
    raised here, and the stream is closed, as it is after a cancellation. What the peer or the
    network does wrong raises nothing: the last event, `ConversationEnded`, says why it ended.
    """
    each = handle_event or (lambda _: None)
    async with stream:
        await Driver(connection, stream, lambda events: list(map(each, events))).run()


class Driver:
    """What `drive` does, for a caller that gives inputs of its own, or stops half-way.

    `handle_events` is called with what each input brought, if that is anything. After an input of
    your own (`connection.send_name(name, driver.now())`) call `wake`. While `run` is not running,
    the connection's clock stands still: what is asked meanwhile is sent when it runs again, and the
    peer's time to answer begins then. The peer of a server loses its connection when it reads less
    than 64 KiB in `send_timeout` seconds although more is waiting for it.
    """

    __slots__ = (
        "_clock",
        "_connection",
        "_handle_events",
        "_outbox",
        "_shutdown_requested",
        "_transport",
        "_waiting",
        "began_with",
        "failure",
        "received",
    )

    def __init__(
        self,
        connection: Connection[Any, Any],
        stream: trio.abc.Stream | Transport,
        handle_events: Callable[[Sequence[Any]], object] = lambda _: None,
        *,
        send_timeout: float = SEND_TIMEOUT,
    ) -> None:
        self._connection = connection
        self._transport = stream if isinstance(stream, Transport) else transport_over(stream)
        self._handle_events = handle_events
        self._outbox = Outbox(self._transport, send_timeout)
        self._waiting: trio.CancelScope | None = None
        self._clock = PausableClock()  # the connection's
        self._shutdown_requested = False
        self.failure: Exception | None = None
        """What broke the connection, if anything did, with a message for people."""
        self.began_with: bytes = b""
        """The first bytes that came from the stream, 64 at most."""
        self.received: int = 0
        """How many bytes came from the stream."""

    @property
    def sent(self) -> int:
        """How many bytes went to the stream, as far as is known."""
        return self._outbox.sent

    def now(self) -> float:
        """Return the time to give with your own inputs: before the deadline, however late (T3)."""
        return min(self._clock.now(), math.nextafter(self._connection.deadline, -math.inf))

    def wake(self) -> None:
        """Look at the connection again, because it was given an input."""
        if self._waiting is not None:
            self._waiting.cancel()

    def shut_down(self) -> None:
        """End the conversation in good order, after answering what has arrived already."""
        self._shutdown_requested = True
        self.wake()

    async def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Move the conversation forward until it is over, or `until()` is true and all is sent."""
        self._clock.resume()
        try:
            await self._send()
            while not (self._connection.finished or until()):
                if self._shutdown_requested:
                    await self._shut_down()
                else:
                    await self._receive(until)
                await self._send()
        finally:
            self._clock.pause()

    async def _receive(self, until: Callable[[], bool] = lambda: False) -> None:
        """Wait for input and hand it over; go on with that while all output can be sent at once."""
        connection, transport = self._connection, self._transport
        deadline = connection.deadline
        with trio.CancelScope(deadline=deadline + self._clock.lag) as self._waiting:
            # For speed: one scope serves many waits. Moving its deadline costs less than a new
            # scope, and where it only gets later, it need not move: early timeouts do nothing.
            while True:
                try:
                    data = await transport.receive()
                except BROKEN as exc:
                    self._lose(exc)
                    return
                self._hand_over(data)
                if not self._send_now() or until() or not connection.state.is_open:
                    return  # the end of the stream is sent where no deadline cancels it
                if connection.deadline < deadline:
                    deadline = connection.deadline
                    self._waiting.deadline = deadline + self._clock.lag
        await self._handle_timeout()

    async def _handle_timeout(self) -> None:
        """Tell the connection the time, if its deadline has come and nothing else has (T3)."""
        connection = self._connection
        deadline = connection.deadline
        if trio.current_time() < deadline + self._clock.lag:
            return
        if await self._take_arrived() is not None:
            return
        now = max(self._clock.now(), deadline)  # the lag may have rounded it down
        connection.receive(None, now, self._transport.is_in_flight)
        self._report()

    async def _shut_down(self) -> None:
        """Take what has arrived, but not all that arrives from now on; then shut down."""
        self._shutdown_requested = False
        rest = self._transport.arrived()
        while rest >= 0 and self._connection.state.is_open:
            size = await self._take_arrived()
            if size is None:
                break
            rest -= size
            await self._send()
        await self._handle_timeout()  # sending may have taken long, and a shutdown judges, too
        self._connection.shutdown(self._clock.now())
        self._report()

    async def _take_arrived(self) -> int | None:
        """Hand over what has arrived; return how many bytes that was, or None if nothing had."""
        try:
            data = await self._transport.receive_arrived()
        except BROKEN as exc:
            self._lose(exc)
            return 0
        if data is None:
            return None
        self._hand_over(data)
        return len(data)

    def _hand_over(self, data: bytes | bytearray) -> None:
        if data:
            if not self.received:
                self.began_with = bytes(data[:64])
            self.received += len(data)
            self._connection.receive_data(data, self._clock.now())
        else:
            self._connection.receive_eof(self._clock.now())
        self._report()

    def _report(self) -> None:
        if events := self._connection.events():
            self._handle_events(events)

    def _lose(self, why: Exception) -> None:
        if self._connection.state.is_open:
            self.failure = why
        self._outbox.clear()
        self._connection.connection_lost()
        self._report()

    async def _send(self) -> None:
        connection = self._connection
        while not self._send_now():
            try:
                if connection.reads_while_sending:
                    # A server may answer names before it reads more of them: a client that only
                    # sent would wait for it, and it for the client. The reply timer is a timeout.
                    await self._outbox.send_while(self._receive, lambda: connection.state.is_open)
                else:
                    # Output is a multiple of input, so to receive nothing meanwhile bounds memory.
                    # No timer of the core can act, so sending has a timeout of its own.
                    await self._outbox.send_all()
            except SendFailed as exc:
                self._lose(exc.why)
        if connection.eof_to_send():
            with contextlib.suppress(*BROKEN):  # the next receive tells
                await self._outbox.send_eof()

    def _send_now(self) -> bool:
        """Send what can be sent without waiting; return whether nothing is left."""
        if not self._outbox.is_empty:
            return False
        data = self._connection.data_to_send()
        try:
            return not data or self._outbox.put(data)
        except BROKEN as exc:
            self._lose(exc)
            return True
