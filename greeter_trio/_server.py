"""The greeting service.

Who cancels whom, and what each failure does:

* `Service.serve` holds two nurseries: conversations, one task each, and inside it the acceptors,
  one for each listener.
* *Shutting down* goes in steps. For `drain_delay` seconds everything goes on as before, so that
  load balancers can look elsewhere. Then the acceptors are cancelled, and nobody can connect any
  more. Every conversation is told to end: it answers what has come already, and says GOODBYE.
  Meanwhile each listener's backlog is accepted to the last connection, as there are places, and the
  listener closed. What is left of all this after `grace` seconds is cancelled.
* *Cancelling* `serve` cancels all of them at once.
* A conversation closes its connection, and `serve` the listeners, whatever happens.
* A conversation that fails, by the peer's fault or by a bug, costs its own connection and one entry
  in the log.
* An accept that fails costs nothing or a short pause (see `_accept`); only a bug ends the server.
"""

import socket
import ssl
from collections.abc import Sequence
from typing import Any

import trio

from greeter_core import ServerConfig

from ._net.accepting import Acceptor, Troubles
from ._net.listeners import Listener, Tcp, adopt_listeners, open_listeners
from ._net.readiness import Readiness, open_readiness
from ._net.text import counted
from ._service.limits import Limits, Terms, WhenFull
from ._service.log import Counters, logger
from ._service.session import Conversation

MOST_TURNED_AWAY = (
    100  # who are being told that the server is full; more than these wait in the backlog
)


async def serve_greeter(  # noqa: PLR0913 - most callers give two
    host: str | None = "127.0.0.1",
    port: int = 6000,
    *,
    listeners: Sequence[trio.SocketListener] | None = None,
    config: ServerConfig = ServerConfig(),  # noqa: B008 - it is frozen
    limits: Limits = Limits(),  # noqa: B008 - likewise
    ssl_context: ssl.SSLContext | None = None,
    proxy_protocol: bool = False,
    shutdown: trio.Event | None = None,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> int:
    """Greet whoever connects to `host` and `port`, until cancelled or until `shutdown` is set.

    Start it with `listeners = await nursery.start(serve_greeter, host, port)`. With port 0 the
    system chooses a free one, which `listeners[0].socket.getsockname()` tells. `host` None means
    all interfaces. `listeners` that are open already (from `trio.open_tcp_listeners`, say) take the
    place of `host` and `port`; they are closed at the end.

    With `ssl_context` clients must speak TLS, and with `proxy_protocol` each connection must begin
    with a PROXY header.

    When `shutdown` is set, clients that have connected by then (or within `limits.drain_delay`
    seconds) are answered what they have said already, and are told GOODBYE. The call returns when
    all conversations are over, or have been cut off after `limits.grace` seconds, and tells how
    many were cut. Raises OSError where it cannot listen. It logs to the standard logger
    `greeter_trio`.
    """
    if shutdown is None:
        shutdown = trio.Event()
    terms = Terms(
        config=config, limits=limits, ssl_context=ssl_context, proxy_protocol=proxy_protocol
    )
    if listeners is None:
        opened = await open_listeners([Tcp(host, port)])
    else:
        opened = adopt_listeners(listeners)
    return await Service(terms).serve(opened, shutdown, task_status=task_status)


class Service:
    """A server, and what it has done so far."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        """They may be changed, for those who come later."""
        self._counters = Counters()  # of conversations that are over
        self._live: set[Conversation] = set()
        self._turned_away = 0  # how many of them
        self._waiting = trio.lowlevel.ParkingLot()  # acceptors that wait for a place
        self._troubles = Troubles()
        self._shutting_down = False
        self._conversations: trio.Nursery
        self._readiness: Readiness

    @property
    def counters(self) -> Counters:
        """What happened so far."""
        counters = self._counters + Counters(accept_failures=self._troubles.count)
        for conversation in self._live:
            counters.names += conversation.names
            counters.received += conversation.received
            counters.sent += conversation.sent
        return counters

    async def serve(
        self,
        listeners: Sequence[Listener],
        shutdown: trio.Event,
        *,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> int:
        """Greet until cancelled or until `shutdown` is set; then return how many conversations had to be cut off."""
        limits = self.terms.limits
        acceptors = [
            Acceptor(listener, self._take, self._has_place, self._wait_for_place, self._troubles)
            for listener in listeners
        ]
        try:
            async with (
                open_readiness() as self._readiness,
                trio.open_nursery() as self._conversations,
            ):
                async with trio.open_nursery() as accepting:
                    for acceptor in acceptors:
                        accepting.start_soon(acceptor.run)
                    for listener in listeners:
                        logger.info("Waiting for connection on %s", listener.name)
                    task_status.started([listener.trio for listener in listeners])
                    await shutdown.wait()
                    logger.info("Shutting down: %s", counted(len(self._live), "conversation"))
                    await trio.sleep(limits.drain_delay)
                    accepting.cancel_scope.cancel()
                self._conversations.cancel_scope.deadline = trio.current_time() + limits.grace
                self._shutting_down = True
                for listener in listeners:
                    listener.close_entrance()
                for acceptor in acceptors:
                    self._conversations.start_soon(acceptor.finish)
                for conversation in self._live:
                    conversation.shut_down()
        finally:
            for listener in listeners:
                listener.close()
        cut = self._counters.closed["cut"]
        if cut:
            logger.warning(
                "Grace of %g s ran out: %s cut off", limits.grace, counted(cut, "conversation")
            )
        return cut

    # Places

    def _has_place(self) -> bool:
        if not self._is_full():
            return True
        return (
            self.terms.limits.when_full is WhenFull.REJECT and self._turned_away < MOST_TURNED_AWAY
        )

    def _is_full(self) -> bool:
        return len(self._live) - self._turned_away >= self.terms.limits.max_connections

    async def _wait_for_place(self) -> None:
        while not self._has_place():
            await self._waiting.park()

    # Conversations

    def _take(self, sock: socket.socket, peer: Any, listener: Listener) -> None:  # noqa: ANN401 - an address
        """Have a conversation with whoever was accepted."""
        full = self._is_full() and self.terms.limits.when_full is WhenFull.REJECT
        self._counters.accepted += 1
        self._turned_away += full
        peer = peer or listener.name  # who connects to a Unix socket has no name
        conversation = Conversation(
            self._counters.accepted,
            sock,
            peer,
            self.terms,
            self._readiness,
            self._forget,
            full=full,
        )
        self._live.add(conversation)
        if self._shutting_down:
            conversation.shut_down()
        self._conversations.start_soon(conversation.run)

    def _forget(self, conversation: Conversation) -> None:
        self._live.remove(conversation)
        self._turned_away -= conversation.full
        self._counters.closed[conversation.reason] += 1
        self._counters.names += conversation.names
        self._counters.received += conversation.received
        self._counters.sent += conversation.sent
        self._waiting.unpark_all()
