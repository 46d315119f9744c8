"""Moving a connection of either role forward over a Trio stream.

One task does it all for one connection: it sends what there is to send, and then waits for bytes with a cancel scope
whose deadline is the connection's. So:

* *Time* reaches the core when that scope's deadline passes. Only a receive is ever cancelled by it, and a cancelled
  receive has lost nothing.
* *Whoever gives the connection an input from outside* (`send_names`) calls `wake` afterwards, which cancels the same
  scope; so does `shut_down`.
* *The server* does not read on while a send is blocked. Its output is a multiple of its input, so this is what bounds
  its memory. No timer of the core can do anything then, so the send has a timeout of its own: it goes in slices, and
  is cancelled when the peer has not taken one of them for `send_timeout` seconds.
* *The client* must read on while a send is blocked: a server that answers names while it reads more of them would
  otherwise wait for the client, and the client for the server. So the reply timer does what has to be done.
* *A send that was cancelled* has sent nobody knows how much: the connection is lost, and nothing is sent after it.
* *A stream that breaks* is reported to the core, which ends the conversation. It is no exception here.
* *A server that shuts down* first takes what has come from the peer already, so that nobody's name is lost.
* *Cancelling the driver* from outside passes through. Whoever opened the stream closes it.
* *While nobody runs the driver*, the connection's clock stands still: what came meanwhile has come in time, though it
  is seen only now.
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import trio

from greeter_core import ClientConnection, ServerConnection

from ._socket import arrived, receive_some, send_at_once, send_eof
from ._tls import explain

SEND_TIMEOUT = 30.0  # seconds for each slice
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)
_SLICE = 65536  # bytes
_REST = 1.0  # seconds in which a stream that cannot tell exactly what has arrived has to hand it over


async def drive(connection: ServerConnection | ClientConnection, stream: trio.abc.Stream) -> None:
    """Have the conversation of `connection` over `stream`, to its end, and close the stream.

    The connection must have been made with `now=trio.current_time()`. The stream can be any of Trio's; one that cannot
    be half-closed (`trio.SSLStream`) is closed where others are half-closed. The connection's events wait for the
    caller to take them, all of them; `Driver` hands them out as they happen. What the peer or the network does wrong
    raises nothing: the last event, `ConversationEnded`, says why the conversation ended.
    """
    async with stream:
        await Driver(connection, stream).run()


class Driver:
    """What `drive` does, for a caller who wants events as they happen, gives inputs of its own, or stops half-way.

    `handle_event` is called with each event, and must not wait. Whoever gives the connection an input (`send_name`)
    does so with the driver's `now()`, and then calls `wake`; a server is told to end by `shut_down`, which loses no
    name that has arrived. A server's peer loses its connection when it takes less than 64 KiB in `send_timeout`
    seconds, though there is more for it.
    """

    def __init__(
        self,
        connection: ServerConnection | ClientConnection,
        stream: trio.abc.Stream,
        handle_event: Callable[[Any], None] | None = None,
        *,
        send_timeout: float = SEND_TIMEOUT,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._handle_event = handle_event
        self._send_timeout = send_timeout
        self._unsent = b""  # taken from the connection, but not sent at once
        self._sending = False
        self._waiting = trio.CancelScope()
        self._lag = 0.0  # how many seconds the connection's clock is behind Trio's
        self._stopped_at: float | None = trio.current_time()  # None while it runs
        self._shutting_down = False
        self.failure = ""
        """What broke the connection, if anything did, for a person."""
        self.received = 0
        """How many bytes came from the stream."""
        self.sent = 0
        """How many bytes went to the stream, as far as is known."""

    def now(self) -> float:
        """Return the time for the connection's inputs, in seconds."""
        return (trio.current_time() if self._stopped_at is None else self._stopped_at) - self._lag

    def wake(self) -> None:
        """Look at the connection again, because it was given an input."""
        self._waiting.cancel()

    def shut_down(self) -> None:
        """End the conversation in good order, when what has come from the peer already is answered."""
        self._shutting_down = True
        self.wake()

    async def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Move the connection forward until it is finished, or `until()` is true and nothing is left to send."""
        self._lag, self._stopped_at = trio.current_time() - self.now(), None
        try:
            await self._flush()
            while not (self._connection.finished or until()):
                if self._shutting_down:
                    await self._shut_down()
                else:
                    await self._receive(until)
                await self._flush()
        finally:
            self._stopped_at = trio.current_time()

    async def _receive(self, until: Callable[[], bool] = lambda: False) -> None:
        """Wait for input and hand it over; go on with that while all output can be sent at once.

        To move a scope's deadline costs less than a new scope, and it need not move at all where it only gets later: a
        timeout that comes too early does nothing.
        """
        connection = self._connection
        deadline = connection.deadline
        with trio.CancelScope(deadline=deadline + self._lag) as self._waiting:
            try:
                while True:
                    self._take(await receive_some(self._stream))
                    if not self._sending:
                        self._send_at_once()
                    if self._sending or self._unsent or not connection.state.is_open or until():
                        return
                    if connection.deadline < deadline:
                        deadline = connection.deadline
                        self._waiting.deadline = deadline + self._lag
            except BROKEN as exc:
                self._lose(exc)
        connection.handle_timeout(self.now())
        self._report()

    async def _shut_down(self) -> None:
        """Take what has arrived, but not what arrives from now on, and shut the connection down."""
        self._shutting_down = False
        rest = arrived(self._stream)
        deadline = math.inf if isinstance(self._stream, trio.SocketStream) else trio.current_time() + _REST
        while rest > 0 and self._connection.state.is_open:
            with trio.CancelScope(deadline=deadline) as waiting:
                try:
                    rest -= self._take(await receive_some(self._stream))
                except BROKEN as exc:
                    self._lose(exc)
            if waiting.cancelled_caught:
                break
            await self._flush()
            rest = min(rest, arrived(self._stream))
        self._connection.shutdown(self.now())
        self._report()

    def _take(self, data: bytes | bytearray) -> int:
        """Hand over what was received, and return how much that was."""
        if data:
            self.received += len(data)
            self._connection.receive_data(data, self.now())
        else:
            self._connection.receive_eof(self.now())
        self._report()
        return len(data)

    async def _flush(self) -> None:
        """Send all there is to send."""
        while True:
            self._send_at_once()
            if self._unsent:
                data, self._unsent = self._unsent, b""
                await self._send(data)
            elif self._connection.eof_to_send():
                await self._send_eof()
            else:
                return

    def _send_at_once(self) -> None:
        """Send what can be sent without waiting."""
        self._unsent += self._connection.data_to_send()
        if self._unsent:
            waiting = len(self._unsent)
            try:
                self._unsent = send_at_once(self._stream, self._unsent)
                self.sent += waiting - len(self._unsent)
            except BROKEN as exc:
                self._lose(exc)

    async def _send(self, data: bytes) -> None:
        """Send with patience; the client reads on meanwhile."""
        done = False
        self._sending = True
        try:
            if isinstance(self._connection, ClientConnection):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read_on, nursery.cancel_scope)
                    done = await self._send_slices(data, nursery.cancel_scope, math.inf)
                    nursery.cancel_scope.cancel()
            else:
                with trio.CancelScope() as scope:
                    done = await self._send_slices(data, scope, self._send_timeout)
                if not done:
                    self._lose(TimeoutError(f"the peer took less than 64 KiB in {self._send_timeout:g} s"))
        finally:
            self._sending = False
            if not done:
                self._lose(None)

    async def _send_slices(self, data: bytes, scope: trio.CancelScope, patience: float) -> bool:
        """Send, with so much patience for each slice; return True when that is over, in one way or another."""
        try:
            view = memoryview(data)
            for start in range(0, len(data), _SLICE):
                scope.deadline = trio.current_time() + patience
                part = view[start : start + _SLICE]
                await self._stream.send_all(part)
                self.sent += len(part)
        except BROKEN as exc:
            self._lose(exc)
        return True

    async def _read_on(self, sending: trio.CancelScope) -> None:
        while self._connection.state.is_open:
            await self._receive()
        sending.cancel()  # what is being sent can have no answer any more

    async def _send_eof(self) -> None:
        # If it is broken, the next receive says so. TLS has a last word of its own, which a peer may not take.
        with contextlib.suppress(*BROKEN), trio.move_on_after(self._send_timeout):
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await send_eof(self._stream)
            else:
                await self._stream.aclose()

    def _lose(self, exc: Exception | None) -> None:
        if exc and self._connection.state.is_open:
            self.failure = explain(exc) or type(exc).__name__
        self._unsent = b""
        self._connection.connection_lost()
        self._report()

    def _report(self) -> None:
        if self._handle_event:
            for event in self._connection.events():
                self._handle_event(event)
