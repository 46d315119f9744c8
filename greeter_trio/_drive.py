"""Moving a connection forward over a transport.

One task does it all for one connection: it sends what there is to send, and then waits for bytes
under a cancel scope whose deadline is the connection's. So:

* *Time* reaches the core when that scope's deadline passes. Only a receive is cancelled by it, and
  a cancelled receive has lost nothing. What has arrived by then is read first: it has come in time,
  however late this process is (PROTOCOL.md, T3).
* *A caller that gives the connection an input* (`send_names`) calls `wake` afterwards, which
  cancels the same scope; so does `shut_down`.
* *Sending* goes in steps, each of which a cancellation may precede: what is left is sent when the
  driver runs again. (Not over every stream: `Transport.send_some`.)
* *The server* does not read on while a send is blocked. Its output is a multiple of its input, so
  this is what bounds its memory. No timer of the core can act then, so the send has a timeout of
  its own for each 64 KiB.
* *The client* must read on while a send is blocked: a server that answers names while it reads more
  of them would otherwise wait for the client, and the client for the server. The reply timer does
  what a timeout would do.
* *A transport that breaks* is reported to the core, which ends the conversation. It is no exception
  here.
* *A server that shuts down* first takes what has come from the peer already, so that no name is
  lost.
* *Cancelling the driver* passes through. Whoever opened the stream closes it.
* *While the driver does not run*, the connection's clock stands still: what is asked meanwhile is
  sent only later, and the server's time to answer begins then.
"""

import contextlib
import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from greeter_core import Connection

from ._net.patience import is_late
from ._net.transport import Transport, transport_over

SEND_TIMEOUT = 30.0  # seconds for each slice
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)
_SLICE = 65536  # bytes


async def drive(
    connection: Connection[Any, Any],
    stream: trio.abc.Stream,
    handle_event: Callable[[Any], object] | None = None,
) -> None:
    """Have the conversation of `connection` over `stream`, to its end, and close the stream.

    The connection must have been made with `now=trio.current_time()`. The stream can be any of
    Trio's; one that cannot be half-closed (`trio.SSLStream`) is closed where others are
    half-closed.

    `handle_event` is called with each event as it happens, and must not wait; without it events are
    dropped. What the peer or the network does wrong raises nothing: the last event,
    `ConversationEnded`, says why the conversation ended. If `handle_event` raises, that comes out,
    and the stream is closed, as it is after a cancellation.
    """
    async with stream:
        await Driver(connection, stream, handle_event).run()


class Driver:
    """What `drive` does, for a caller who gives inputs of its own, or stops half-way.

    Whoever gives the connection an input (`send_name`) does so with the driver's `now()`, and then
    calls `wake`; a server is told to end by `shut_down`, which loses no name that has arrived. A
    server's peer loses its connection when it takes less than 64 KiB in `send_timeout` seconds,
    though there is more for it.
    """

    __slots__ = (
        "_connection",
        "_handle_event",
        "_lag",
        "_send_timeout",
        "_shutting_down",
        "_stopped_at",
        "_transport",
        "_unsent",
        "_waiting",
        "failure",
        "received",
        "sent",
    )

    def __init__(
        self,
        connection: Connection[Any, Any],
        stream: trio.abc.Stream | Transport,
        handle_event: Callable[[Any], object] | None = None,
        *,
        send_timeout: float = SEND_TIMEOUT,
    ) -> None:
        self._connection = connection
        self._transport = stream if isinstance(stream, Transport) else transport_over(stream)
        self._handle_event = handle_event
        self._send_timeout = send_timeout
        self._unsent: bytes | memoryview = b""  # taken from the connection, and not sent at once
        self._waiting: trio.CancelScope | None = None
        self._lag = 0.0  # how many seconds the connection's clock is behind Trio's
        self._stopped_at: float | None = trio.current_time()  # None while it runs
        self._shutting_down = False
        self.failure: str = ""
        """What broke the connection, if anything did, for a person."""
        self.received: int = 0
        """How many bytes came from the stream."""
        self.sent: int = 0
        """How many bytes went to the stream, as far as is known."""

    def now(self) -> float:
        """Return the time to pass with your own inputs, in seconds.

        It may be a moment in the past, before the connection's deadline: whether that was kept is
        not judged before the driver has read what has arrived (T3).
        """
        return min(self._now(), math.nextafter(self._connection.deadline, -math.inf))

    def _now(self) -> float:
        return (trio.current_time() if self._stopped_at is None else self._stopped_at) - self._lag

    def wake(self) -> None:
        """Look at the connection again, because it was given an input."""
        if self._waiting is not None:
            self._waiting.cancel()

    def shut_down(self) -> None:
        """End the conversation in good order, when what has come from the peer already is answered."""
        self._shutting_down = True
        self.wake()

    async def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Move the connection forward until it is finished, or `until()` is true and nothing is left to send."""
        self._lag, self._stopped_at = trio.current_time() - self._now(), None
        try:
            await self._send()
            while not (self._connection.finished or until()):
                if self._shutting_down:
                    await self._shut_down()
                else:
                    await self._receive(until)
                await self._send()
        finally:
            self._stopped_at = trio.current_time()

    # Receiving

    async def _receive(self, until: Callable[[], bool] = lambda: False) -> None:
        """Wait for input and hand it over; go on with that while all output can be sent at once.

        To go on is for speed alone: one cancel scope serves all these waits. Moving its deadline
        costs less than a new scope, and it need not move where it only gets later, since a timeout
        that comes too early does nothing.
        """
        connection, transport = self._connection, self._transport
        deadline = connection.deadline
        with trio.CancelScope(deadline=deadline + self._lag) as self._waiting:
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
                    self._waiting.deadline = deadline + self._lag
        await self._handle_timeout()

    async def _handle_timeout(self) -> None:
        """Tell the connection the time, if its deadline has come and nothing else has (T3, S2.7)."""
        connection = self._connection
        deadline = connection.deadline
        if trio.current_time() < deadline + self._lag:
            return
        try:
            data = await self._transport.receive_arrived()
        except BROKEN as exc:
            self._lose(exc)
            return
        if data is not None:
            self._hand_over(data)
            return
        now = max(self._now(), deadline)  # the lag may have rounded it down
        if connection.prompt_owed and self._transport.is_in_flight():
            connection.data_in_flight(now)
        else:
            connection.handle_timeout(now)
        self._report()

    async def _shut_down(self) -> None:
        """Take what has arrived, but not all that arrives from now on, and shut the connection down."""
        self._shutting_down = False
        rest = self._transport.arrived()
        while rest >= 0 and self._connection.state.is_open:
            try:
                data = await self._transport.receive_arrived()
            except BROKEN as exc:
                self._lose(exc)
                break
            if data is None:
                break
            self._hand_over(data)
            rest -= len(data)
            await self._send()
        await self._handle_timeout()  # to send may have taken long, and a shutdown judges, too
        self._connection.shutdown(self._now())
        self._report()

    def _hand_over(self, data: bytes | bytearray) -> None:
        """Give the connection what was received, and report what came of it."""
        if data:
            self.received += len(data)
            self._connection.receive_data(data, self._now())
        else:
            self._connection.receive_eof(self._now())
        self._report()

    def _report(self) -> None:
        events = self._connection.events()
        if self._handle_event is not None:
            for event in events:
                self._handle_event(event)

    def _lose(self, why: object) -> None:
        if self._connection.state.is_open:
            self.failure = str(why) or type(why).__name__
        self._unsent = b""
        self._connection.connection_lost()
        self._report()

    # Sending

    async def _send(self) -> None:
        """Send all there is to send."""
        while not self._send_now():
            await self._send_blocked()
        await self._send_eof()

    def _send_now(self) -> bool:
        """Send what goes without waiting; return whether nothing is left."""
        if self._unsent:
            return False
        data = self._connection.data_to_send()
        if data:
            try:
                sent = self._transport.send_now(data)
            except BROKEN as exc:
                self._lose(exc)
                return True
            self.sent += sent
            if sent < len(data):
                self._unsent = memoryview(data[sent:])  # a copy, so that what was sent is freed
                return False
        return True

    async def _send_blocked(self) -> None:
        """Send what is left, within `send_timeout` for each slice; a client reads on meanwhile."""
        if self._connection.reads_while_sending:
            await self._send_and_read()
            return
        while self._unsent:
            with trio.move_on_after(self._send_timeout) as scope:
                await self._send_slice()
            if scope.cancelled_caught and not is_late(scope):
                self._lose(f"the peer took less than 64 KiB in {self._send_timeout:g} s")

    async def _send_and_read(self) -> None:
        """Send and receive at the same time, until all is sent or nothing can be answered any more."""
        failures: list[Exception] = []  # of the handler of events, to come out without a group

        async def repeat(
            step: Callable[[], Awaitable[None]], is_wanted: Callable[[], bool]
        ) -> None:
            try:
                while is_wanted():
                    await step()
            except Exception as exc:  # noqa: BLE001 - it is raised below
                failures.append(exc)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(repeat, self._send_slice, lambda: bool(self._unsent))
            nursery.start_soon(repeat, self._receive, lambda: self._connection.state.is_open)
        if failures:
            raise failures[0]
        if self._unsent and not self._connection.state.is_open:  # otherwise it is new output
            self._lose("a send was given up")

    async def _send_slice(self) -> None:
        """Send the next 64 KiB of what is left."""
        rest = max(len(self._unsent) - _SLICE, 0)
        try:
            while len(self._unsent) > rest:
                sent = await self._transport.send_some(self._unsent[: len(self._unsent) - rest])
                self.sent += sent
                self._unsent = self._unsent[sent:] or b""
        except BROKEN as exc:
            self._lose(exc)

    async def _send_eof(self) -> None:
        if self._connection.eof_to_send():
            with contextlib.suppress(*BROKEN):  # the next receive says so
                await self._transport.send_eof(self._send_timeout)
