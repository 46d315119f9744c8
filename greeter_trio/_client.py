"""The client as a library.

There is no task in the background: the tasks that wait in `greet` move the conversation forward
themselves, one of them at a time. So a failure is raised where it matters, as itself and not in an
exception group, and leaving the block has nothing to cancel.
"""

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

import trio

from greeter_core import (
    ClientConfig,
    ClientConnection,
    ClientEvent,
    EndReason,
    Greeted,
    LocalProtocolError,
    NameRequested,
)

from ._drive import Driver
from ._failures import ConversationFailed, Ending
from ._net.connecting import Target, connect_within
from ._net.tls import HandshakeFailed


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
    However the block ends, the stream is closed. (A `greet` that is cancelled while it sends costs
    no other task the conversation, over sockets and TLS. Over other streams it
    may: what was sent of it is not known.)

    Raises OSError if nothing can be connected to within `config.reply_timeout` seconds, TLS
    included, and `ConversationFailed` if there is no TLS connection, if what answers is no greeter,
    or if the conversation does not end in good order. A handshake that fails has the reason
    `EndReason.CONNECTION_LOST`.
    """
    if stream is None:
        stream = await _connected(Target(host, port, ssl_context), config.reply_timeout)
    async with stream:
        greeter = Greeter(stream, config)
        await greeter._open()  # noqa: SLF001 - its other half
        yield greeter
        await greeter._leave()  # noqa: SLF001


async def _connected(target: Target, patience: float) -> trio.abc.Stream:
    try:
        link = await connect_within(target, patience)
    except trio.TooSlowError as exc:
        msg = f"cannot connect to {target} within {patience:g} s"
        raise TimeoutError(msg) from exc
    except HandshakeFailed as exc:
        msg = f"there is no TLS connection to the server: {exc}"
        raise ConversationFailed(msg, EndReason.CONNECTION_LOST) from exc
    return link.stream


class Greeter:
    """A conversation with a greeting server. `open_greeter` makes it, and any number of tasks may use it.

    Names are text, sent as UTF-8; bytes that are not UTF-8 can be given as surrogate escapes (PEP
    383), as in `sys.argv`. A name has 1 to 1024 bytes, without CR and LF, and is not `exit`; for
    any other `LocalProtocolError` is raised and nothing is sent.
    """

    def __init__(self, stream: trio.abc.Stream, config: ClientConfig) -> None:
        self._connection = ClientConnection(config, now=trio.current_time())
        self._driver = Driver(self._connection, stream, self._handle)
        self._ending = Ending()
        self._driving = trio.Lock()
        self._ready = False
        self._asked = 0
        self._greeted = 0

    async def greet(self, name: str) -> str:
        """Return the server's greeting of one name: `Hello <name>!`. Raises `ConversationFailed` if none comes."""
        return await anext(self.greet_all([name]))

    def greet_all(self, names: Iterable[str]) -> AsyncIterator[str]:
        """Ask for many names at once, and return an iterator over their greetings, which come in order.

        The names are pipelined if the server understands that. The iterator raises
        `ConversationFailed` where a greeting does not come, after all those that came. Greetings
        that nobody waits for are forgotten.
        """
        if isinstance(names, str):
            msg = f"names must be several names, not one: {names!r}; greet takes one"
            raise LocalProtocolError(msg)
        names = list(names)
        words = [_encoded(name) for name in names]
        first = self._asked + 1
        if self._connection.state.is_open:
            self._connection.send_names(words, self._driver.now())
            self._asked += len(words)
            self._driver.wake()  # if another task waits there
        return _Greetings(names, first, self._wait_for)

    async def _open(self) -> None:
        await self._wait_until(lambda: self._ready)

    async def _leave(self) -> None:
        if self._ending.reason is None:  # otherwise the caller knows already
            self._connection.send_exit(self._driver.now())
            self._driver.wake()
            async with self._driving:
                await self._driver.run()
            if not self._ending.well:
                raise self._ending.failure()

    async def _wait_for(self, number: int) -> None:
        """Wait until so many names were greeted, since the beginning."""
        await self._wait_until(lambda: self._greeted >= number)

    async def _wait_until(self, done: Callable[[], bool]) -> None:
        if done():
            await trio.lowlevel.checkpoint()
            return
        async with self._driving:
            await self._driver.run(done)
        if not done():
            raise self._ending.failure()

    def _handle(self, event: ClientEvent) -> None:
        self._ending.note(event, self._driver.failure)
        match event:
            case NameRequested():
                self._ready = True
            case Greeted():
                self._greeted += 1


class _Greetings:
    """The greetings of names, the first of which has this number among all that its greeter asked for."""

    def __init__(
        self, names: Sequence[str], first: int, wait_for: Callable[[int], Awaitable[None]]
    ) -> None:
        self._names = names
        self._first = first
        self._wait_for = wait_for
        self._returned = 0

    def __aiter__(self) -> "_Greetings":
        return self

    async def __anext__(self) -> str:
        if self._returned == len(self._names):
            raise StopAsyncIteration
        await self._wait_for(self._first + self._returned)
        self._returned += 1
        return f"Hello {self._names[self._returned - 1]}!"


def _encoded(name: str) -> bytes:
    if name == "exit":
        msg = "exit is not a name: it ends the conversation, as leaving the block does"
        raise LocalProtocolError(msg)
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as exc:
        msg = f"a name must be text that UTF-8 can say, not {name!r}"
        raise LocalProtocolError(msg) from exc
