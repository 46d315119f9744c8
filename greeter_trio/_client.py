"""The client as a library.

No task runs in the background: the tasks that wait for a greeting move the conversation forward
themselves, one of them at a time. So a failure is raised where it matters, as itself and not in an
exception group, and leaving the block has nothing to cancel.
"""

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Self

import trio

from greeter_core import (
    ClientConfig,
    ClientConnection,
    ClientEvent,
    EndReason,
    Greeted,
    LocalProtocolError,
    NameRequested,
    Welcomed,
)

from ._drive import Driver
from ._failures import ConversationFailed, Outcome
from ._net.connecting import connect
from ._net.endpoints import server_endpoint
from ._net.tls_stream import HandshakeFailed
from ._net.transport import Transport

if TYPE_CHECKING:
    from greeter_core import Recorder


@contextlib.asynccontextmanager
async def open_greeter(
    host: str = "127.0.0.1",
    port: int = 6000,
    *,
    stream: trio.abc.Stream | None = None,
    config: ClientConfig = ClientConfig(),  # noqa: B008 - it is frozen
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator["Greeter"]:
    """Connect to a greeter, and wait until it asks for a name; at the end of the block, say exit.

    `host` is a name, an IP address, or `unix:` and the path of a Unix socket, which has no port.
    With `ssl_context` TLS is spoken, and the server's certificate must be for `host` if the context
    says so (`check_hostname`). A `stream` that is connected already takes the place of all three.
    However the block ends, the stream is closed.

    Raises OSError if there is no connection within `config.reply_timeout` seconds, TLS included,
    and `ConversationFailed` if TLS fails (`EndReason.CONNECTION_LOST`), if what answers is no
    greeter, or if the conversation does not end in good order.
    """
    if stream is None:
        where, timeout = server_endpoint(host, port), config.reply_timeout
        try:
            stream = (await connect(where, ssl_context=ssl_context, timeout=timeout)).stream
        except HandshakeFailed as exc:
            msg = f"there is no TLS connection to the server: {exc}"
            raise ConversationFailed(msg, EndReason.CONNECTION_LOST) from exc
    connection = ClientConnection(config, now=trio.current_time())
    async with stream, Greeter(stream, connection) as greeter:
        yield greeter


class Greeter:
    """A conversation with a greeting server over a stream, for any number of tasks.

    `async with` waits until the server asks for the first name, and says exit at the end of the
    block; closing the stream is left to the caller, and both to `open_greeter`. A `connection` of
    the caller's, such as one of a `Recording`, must have been made with `now=trio.current_time()`.

    Names are text, sent as UTF-8; other bytes can be given as surrogate escapes (PEP 383). A name
    has 1 to 1024 bytes, without CR and LF, and is not `exit`; `LocalProtocolError` says what is
    wrong with any other, and nothing is sent. A call that is cancelled while it sends costs no
    other task the conversation, over sockets and TLS; over other streams it may.
    """

    def __init__(
        self,
        stream: trio.abc.Stream | Transport,
        connection: "ClientConnection | Recorder[ClientConnection] | None" = None,
        handle_events: Callable[[Sequence[ClientEvent]], object] = lambda _: None,
    ) -> None:
        self._connection = connection or ClientConnection(now=trio.current_time())
        self._driver = Driver(self._connection, stream, self._note)
        self._handle_events = handle_events
        self._outcome = Outcome()
        self.first_byte_at: float | None = None
        """When the server was first heard, on Trio's clock; `wait_welcomed` finds it out."""
        self._is_welcomed = self._is_prompted = False
        self._is_driven = False
        self._waiting = trio.lowlevel.ParkingLot()  # tasks, while another one drives
        self._asked = 0
        self.greeted: int = 0
        """How many names were greeted so far."""

    async def __aenter__(self) -> Self:
        await self._wait_until(lambda: self._is_prompted)
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if exc_type is None and self._outcome.reason is None:  # otherwise the caller knows
            self.ask_exit()
            await self.wait_ended(EndReason.EXIT, EndReason.SHUTDOWN)

    def now(self) -> float:
        """Return the time on the connection's clock, which stands still while no task waits."""
        return self._driver.now()

    @property
    def unsent(self) -> int:
        """How many names that were asked are not sent yet, because the server was not ready."""
        return self._connection.unsent

    async def greet(self, name: str) -> str:
        """Return the greeting of one name: `Hello <name>!`. Raises `ConversationFailed`."""
        return await anext(self.greet_all([name]))

    def greet_all(self, names: Iterable[str]) -> AsyncIterator[str]:
        """Ask for many names at once, pipelined if possible; return an iterator over the greetings.

        It raises `ConversationFailed` where a greeting does not come, after all those that came.
        """
        if isinstance(names, str):
            raise LocalProtocolError(f"names must be several names, not one: {names!r}")
        names, first = list(names), self._asked + 1
        words = [_encoded(name) for name in names]
        if self._connection.state.is_open:
            self.ask(words)
        return _Greetings(self, names, first)

    def ask(self, names: Iterable[bytes]) -> None:
        """Ask for names, all or none; `handle_events` is called with their greetings.

        Raises `LocalProtocolError` if one is no name, or if it is too late to ask.
        """
        words = names if isinstance(names, (bytes, str)) else list(names)
        self._connection.send_names(words, self._driver.now())
        self._asked += len(words)
        self._driver.wake()  # if a task drives

    def ask_exit(self) -> None:
        """Ask for the end of the conversation, after the names that were asked before."""
        self._connection.send_exit(self._driver.now())
        self._driver.wake()

    async def wait_welcomed(self) -> None:
        """Wait until the server has said its welcome. Raises `ConversationFailed`."""
        await self._wait_until(self._hear_welcome)

    async def wait_greeted(self, number: int) -> None:
        """Wait until so many names were greeted in all. Raises `ConversationFailed`."""
        await self._wait_until(lambda: self.greeted >= number)

    async def wait_ended(self, *reasons: EndReason) -> None:
        """Wait until it is over; raise `ConversationFailed` unless for one of these reasons."""
        await self._wait_until(lambda: self._outcome.reason is not None)
        if self._outcome.reason not in reasons:
            raise self._outcome.failure()

    def _hear_welcome(self) -> bool:
        if self.first_byte_at is None and self._driver.received:
            self.first_byte_at = trio.current_time()
        return self._is_welcomed

    async def _wait_until(self, done: Callable[[], bool]) -> None:
        """Wait until `done()`. Drive the conversation meanwhile, unless another task does that."""
        if done():
            await trio.lowlevel.checkpoint()
        while not done():
            if self._connection.finished:  # though `handle_events` may have raised before that
                raise self._outcome.failure()
            if self._is_driven:
                await self._waiting.park()
                continue
            self._is_driven = True
            try:
                await self._driver.run(done)
            finally:
                self._is_driven = False
                self._waiting.unpark_all()  # one of them goes on driving

    def _note(self, events: Sequence[ClientEvent]) -> None:
        kinds = [*map(type, events)]  # to look at all together takes a quarter of the time
        self._is_welcomed = self._is_welcomed or Welcomed in kinds
        self._is_prompted = self._is_prompted or NameRequested in kinds
        self.greeted += kinds.count(Greeted)
        if not self._connection.state.is_open:  # before that nothing tells how it ended
            for event in events:
                self._outcome.note(event, self._driver.failure)
        self._waiting.unpark_all()
        self._handle_events(events)


class _Greetings:
    """An iterator over greetings; an async generator that is left early would make Trio warn."""

    def __init__(self, greeter: Greeter, names: Sequence[str], first: int) -> None:
        self._greeter = greeter
        self._names = names
        self._first = first
        self._returned = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if self._returned == len(self._names):
            raise StopAsyncIteration
        await self._greeter.wait_greeted(self._first + self._returned)
        self._returned += 1
        return f"Hello {self._names[self._returned - 1]}!"


def _encoded(name: str) -> bytes:
    if name == "exit":
        raise LocalProtocolError("exit is not a name: leaving the block says it")
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        raise LocalProtocolError(f"a name must be text that has UTF-8, not {name!r}") from exc
