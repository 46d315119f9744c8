"""The greeting service.

Who cancels whom, and what each failure does:

* `serve_greeter` holds two nurseries: conversations, one task each, and inside it the acceptors, one for each
  listener. When `shutdown` is set it cancels the acceptors, tells every conversation to end through its core, and
  cancels what is left after `GRACE` seconds. Cancelling `serve_greeter` itself cancels all of them at once.
* A conversation closes its stream, and an acceptor its listener, whatever happens.
* A conversation that fails, by the peer's fault or by a bug, costs its own connection and one entry in the log.
* An accept that fails for want of resources, or because the connection is gone already, is tried again a little later.
  Any other error of it is a bug, and ends the server.
"""

import errno
import logging
from typing import NoReturn

import trio

from greeter_core import (
    ConversationEnded,
    EndReason,
    NamesReceived,
    Refused,
    ServerConfig,
    ServerConnection,
    ServerEvent,
)

from ._drive import Driver
from ._text import address, counted, printable

GRACE = 5.0  # seconds that conversations have left after `shutdown`
ACCEPT_PAUSE = 0.1  # seconds after an accept that failed
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED}

logger = logging.getLogger("greeter_trio")

_WHY = {
    EndReason.EXIT: "the client said exit",
    EndReason.SHUTDOWN: "the server is shutting down",
    EndReason.EOF: "the client ended it",
}


async def serve_greeter(
    host: str | None = "127.0.0.1",
    port: int = 6000,
    *,
    config: ServerConfig = ServerConfig(),  # noqa: B008 - it is frozen
    shutdown: trio.Event | None = None,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Greet whoever connects to `host` and `port`, until cancelled or until `shutdown` is set.

    Start it with `listeners = await nursery.start(serve_greeter, host, port)`. With port 0 the system chooses a free
    one, which `listeners[0].socket.getsockname()` tells. `host` None means all interfaces.

    When `shutdown` is set nobody is accepted any more, every client is told GOODBYE, and the call returns when all
    conversations are over, after 5 seconds at the latest. Raises OSError where it cannot listen. It logs to the
    standard logger `greeter_trio`.
    """
    if shutdown is None:
        shutdown = trio.Event()
    live: set[_Conversation] = set()
    listeners = await trio.open_tcp_listeners(port, host=host)
    async with trio.open_nursery() as conversations:
        async with trio.open_nursery() as acceptors:
            for listener in listeners:
                acceptors.start_soon(_accept, listener, config, live, conversations)
                logger.info("Waiting for connection on %s", address(listener.socket.getsockname()))
            task_status.started(listeners)
            await shutdown.wait()
            acceptors.cancel_scope.cancel()
        for conversation in live:
            conversation.shut_down()
        conversations.cancel_scope.deadline = trio.current_time() + GRACE


async def _accept(
    listener: trio.SocketListener, config: ServerConfig, live: "set[_Conversation]", conversations: trio.Nursery
) -> NoReturn:
    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except OSError as exc:
                if exc.errno not in _PASSING:
                    raise
                logger.warning("Accepting a connection failed: %s", exc)
                await trio.sleep(ACCEPT_PAUSE)
            else:
                conversations.start_soon(_Conversation(stream, config, live).run)


class _Conversation:
    """One client, from accept to close, and what the log says of it."""

    def __init__(self, accepted: trio.SocketStream, config: ServerConfig, live: "set[_Conversation]") -> None:
        try:
            self._peer = address(accepted.socket.getpeername())
        except OSError:  # it has reset the connection already
            self._peer = "an unknown address"
        self._since = trio.current_time()
        self._stream = accepted
        self._connection = ServerConnection(config, now=self._since)
        self._driver = Driver(self._connection, self._stream, self._handle)
        self._names = 0
        self._why = "it was cut off"
        self._live = live
        live.add(self)

    async def run(self) -> None:
        logger.info("Accept new connection from %s", self._peer)
        try:
            async with self._stream:
                await self._driver.run()
        except Exception:
            self._why = "the server has a bug"
            logger.exception("The conversation with %s failed", self._peer)
        finally:
            self._live.remove(self)
            names, elapsed = counted(self._names, "name"), trio.current_time() - self._since
            logger.info("Connection from %s is closed: %s; %s in %.1f s", self._peer, self._why, names, elapsed)

    def shut_down(self) -> None:
        self._connection.shutdown(self._driver.now())
        self._driver.wake()

    def _handle(self, event: ServerEvent) -> None:
        match event:
            case NamesReceived(names):
                self._names += len(names)
            case Refused(message=message):
                self._why = f'the server said "{printable(message)}"'
            case ConversationEnded(EndReason.CONNECTION_LOST) if self._driver.failure:
                self._why = f"the connection was lost ({self._driver.failure})"
            case ConversationEnded(reason) if reason in _WHY:
                self._why = _WHY[reason]
