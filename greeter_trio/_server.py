"""The greeting service.

* `serve` has a nursery for the sessions, one task each, and inside it one for the acceptors, one
  for each listener. To *cancel* it cancels them all at once.
* To *shut down*, everything goes on for `drain_delay` seconds, so that load balancers can look
  elsewhere. Then the acceptors are cancelled. Every session answers what has come already, and says
  GOODBYE; meanwhile each backlog is accepted to the last connection, those included whose handshake
  is under way, and its listener closed. What is left after `grace` seconds is cancelled.
* A session that fails costs its own connection, and an accept that fails a short pause.
"""

import contextlib
import logging
import socket
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from greeter_core import ServerConfig

from ._net.accepting import Acceptor
from ._net.endpoints import Tcp
from ._net.listeners import Listener, adopt_listeners, open_listeners
from ._net.readiness import open_readiness
from ._net.text import pluralized
from ._service.limits import Limits
from ._service.sessions import Sessions
from ._service.settings import Settings

if TYPE_CHECKING:
    from greeter_core import Recording

_logger = logging.getLogger("greeter_trio")


async def serve_greeter(  # noqa: PLR0913 - most callers give two
    host: str | None = "127.0.0.1",
    port: int = 6000,
    *,
    listeners: Sequence[trio.SocketListener] | None = None,
    config: ServerConfig = ServerConfig(),  # noqa: B008 - it is frozen
    limits: Limits = Limits(),  # noqa: B008 - likewise
    ssl_context: ssl.SSLContext | None = None,
    proxy_protocol: bool = False,
    recording: "Recording | None" = None,
    shutdown: trio.Event | None = None,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> int:
    """Greet the clients that connect to `host` and `port`, until cancelled or `shutdown` is set.

    Start it with `listeners = await nursery.start(serve_greeter, host, port)`. `host` None means
    all interfaces, and port 0 a free one, see `listeners[0].socket.getsockname()`.
    `listeners` of the caller's (`trio.open_tcp_listeners`) replace both, and are closed at the end.
    With `ssl_context` clients must speak TLS, and with `proxy_protocol` each connection must begin
    with a PROXY header, version 1 or 2. A `recording`, begun at a `trio.current_time()`, gets all
    conversations.

    When `shutdown` is set, clients that have connected by then (or within `limits.drain_delay`
    seconds) are answered what they have said already, and are told GOODBYE. The call returns how
    many of them had to be cut off after `limits.grace` seconds. Raises OSError if it cannot listen.
    It logs to the standard logger `greeter_trio`.
    """
    settings = Settings(
        config=config,
        limits=limits,
        ssl_context=ssl_context,
        proxy_protocol=proxy_protocol,
        recording=recording,
    )
    if listeners is None:
        opened = await open_listeners([Tcp(host, port)])
    else:
        opened = adopt_listeners(listeners)
    if shutdown is None:
        shutdown = trio.Event()  # that nothing sets
    return await serve(opened, Sessions(settings), shutdown, task_status=task_status)


async def serve(
    listeners: Sequence[Listener],
    sessions: Sessions,
    shutdown: trio.Event,
    *,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> int:
    """Do what `serve_greeter` does, for a caller that looks at the sessions meanwhile."""
    limits = sessions.settings.limits
    with contextlib.ExitStack() as closing:
        for listener in listeners:
            closing.callback(listener.close)
        async with open_readiness() as readiness, trio.open_nursery() as nursery:

            def on_accepted(sock: socket.socket, peer: object, listener: Listener) -> None:
                # The clients of a Unix socket have no address.
                session = sessions.open(sock, peer or listener.name, readiness)
                nursery.start_soon(session.run)

            acceptors = [
                Acceptor(listener, on_accepted, sessions.places, sessions.accept_failures)
                for listener in listeners
            ]
            async with trio.open_nursery() as accepting:
                for acceptor in acceptors:
                    accepting.start_soon(acceptor.run)
                for listener in listeners:
                    _logger.info("Waiting for connection on %s", listener.name)
                task_status.started([listener.trio for listener in listeners])
                await shutdown.wait()
                _logger.info("Shutting down: %s", pluralized(len(sessions), "conversation"))
                await trio.sleep(limits.drain_delay)
                accepting.cancel_scope.cancel()
            nursery.cancel_scope.deadline = trio.current_time() + limits.grace
            for listener in listeners:
                listener.refuse_new_connections()
            for acceptor in acceptors:
                nursery.start_soon(acceptor.finish)
            sessions.shut_down()
    if sessions.cut:
        cut = pluralized(sessions.cut, "conversation")
        _logger.warning("Grace of %g s ran out: %s cut off", limits.grace, cut)
    return sessions.cut
