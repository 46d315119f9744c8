"""One client of the server, from accept to close."""

import logging
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from greeter_core import (
    ConversationEnded,
    EndReason,
    NamesReceived,
    Refused,
    ServerConnection,
    ServerEvent,
)
from greeter_trio._drive import Driver
from greeter_trio._net.observed_transport import ObservedTransport
from greeter_trio._net.proxy import Address, ProxyError
from greeter_trio._net.readiness import Readiness
from greeter_trio._net.socket_transport import SocketTransport, set_options
from greeter_trio._net.stream_transport import StreamTransport
from greeter_trio._net.text import format_address, printable
from greeter_trio._net.tls_stream import HandshakeFailed
from greeter_trio._net.tls_words import explain
from greeter_trio._net.transport import BROKEN, Transport

from .counters import CloseReason
from .handshake import Handshake
from .log import SessionLog, logger
from .settings import Settings
from .strangers import Strangers

if TYPE_CHECKING:
    from greeter_core import Recorder

_CLOSED = {
    EndReason.EXIT: (CloseReason.EXIT, "the client said exit"),
    EndReason.SHUTDOWN: (CloseReason.SHUTDOWN, "the server is shutting down"),
    EndReason.EOF: (CloseReason.EOF, "the client ended it"),
    EndReason.LIFETIME: (CloseReason.LIFETIME, "it reached its maximum lifetime"),
    EndReason.REFUSED: (CloseReason.REFUSED, ""),  # what the server said tells why
}


class Session:
    """One client: a PROXY header and TLS, if the settings want them, and then the conversation."""

    __slots__ = (
        "_connection",
        "_driver",
        "_ending",
        "_handshake",
        "_log",
        "_on_closed",
        "_readiness",
        "_settings",
        "_since",
        "_sock",
        "_strangers",
        "_transport",
        "_why",
        "names",
        "reason",
        "served",
    )

    def __init__(  # noqa: PLR0913 - there is one caller
        self,
        sock: socket.socket,
        log: SessionLog,
        settings: Settings,
        *,
        served: bool,
        ending: trio.Event,
        strangers: Strangers,
        readiness: Readiness,
        on_closed: Callable[["Session"], None],
    ) -> None:
        self.served = served
        """Whether there was a place for this client; otherwise it only gets a refusal."""
        self.names: int = 0
        """How many names were greeted."""
        self.reason: CloseReason = CloseReason.CUT
        """Why it ended; as long as nothing has ended it, it would be cut off."""
        self._why = "it was cut off"
        self._sock = sock
        self._log = log
        self._settings = settings
        self._ending = ending  # set when the server shuts down
        self._strangers = strangers
        self._readiness = readiness
        self._on_closed = on_closed
        self._since = trio.current_time()
        self._handshake: Handshake | None = None
        self._transport: Transport | None = None
        self._connection: ServerConnection | Recorder[ServerConnection] | None = None
        self._driver: Driver | None = None

    @property
    def received(self) -> int:
        """How many bytes came from the client since it was welcomed."""
        return self._driver.received if self._driver else 0

    @property
    def sent(self) -> int:
        """How many bytes were sent to the client since then."""
        return self._driver.sent if self._driver else 0

    async def run(self) -> None:
        """Serve the client. The connection is closed in any case, and failures are logged."""
        try:
            self._sock.settimeout(0)
            transport = await self._open()
            if transport:
                await self._make_driver(transport).run()
        except Exception:  # noqa: BLE001 - a bug costs this client's connection, and no other's
            self._end(CloseReason.BUG, "the server has a bug")
            self._log.failed()
        finally:
            if self._transport:
                if self._connection and self._connection.state.is_open:
                    self._transport.reset_at_close(on=True)  # it is cut off in the middle
                self._transport.close()
            self._sock.close()
            if self._connection and self.reason is CloseReason.CUT:
                # If it was closing, it keeps the reason that it had (S8.4).
                self._connection.connection_lost()
                for event in self._connection.events():
                    self._handle(event)
            self._on_closed(self)
            self._log.closed(
                self.reason,
                self._why,
                names=self.names,
                seconds=trio.current_time() - self._since,
                received=self.received,
                sent=self.sent,
            )

    def shut_down(self) -> None:
        """End the conversation in good order, after answering what has arrived already."""
        if self._handshake:
            self._handshake.cap()
        if self._driver:
            self._driver.shut_down()

    async def _open(self) -> Transport | None:
        """Return what the conversation goes over, when all that comes before it went well."""
        set_options(self._sock, self._settings.limits.send_timeout)
        if not (self._settings.proxy_protocol or self._settings.ssl_context):
            self._log.opened()
            return self._socket_transport()
        handshake = Handshake(self._sock, self._settings, self._ending, self._header_taken)
        self._handshake = handshake
        try:
            tls = await handshake.run()
            if tls:
                self._log.secured(tls.version)
                return StreamTransport(tls)
            return self._socket_transport()
        except (ProxyError, HandshakeFailed, trio.TooSlowError) as exc:
            self._end(CloseReason.HANDSHAKE, str(exc))
            if isinstance(exc, (ProxyError, HandshakeFailed)):
                self._strangers.note(exc.heard, format_address(self._log.peer))
        except BROKEN as exc:
            self._end(CloseReason.HANDSHAKE, f"the connection was lost ({explain(exc)})")
        finally:
            self._handshake = None
        if not handshake.header_is_taken:
            self._log.opened()
        return None

    def _header_taken(self, source: Address | None) -> None:
        if source:
            through = format_address(self._log.peer)
            self._log.peer = f"{format_address(source)} through {through}"
        self._log.opened()

    def _socket_transport(self) -> Transport:
        return SocketTransport(self._sock, self._readiness.watch(self._sock))

    def _make_driver(self, transport: Transport) -> Driver:
        settings, now, full = self._settings, trio.current_time(), not self.served
        self._transport = transport  # from here on it is closed at the end
        if settings.recording:
            peer = format_address(self._log.peer)
            recorder = settings.recording.server(settings.config, now=now, full=full, peer=peer)
            observe = partial(recorder.observe, end="server")
            observe("accept", self._since)
            self._connection = recorder
            self._transport = ObservedTransport(transport, observe, self._sock)
        else:
            self._connection = ServerConnection(settings.config, now=now, full=full)
        debug = logger.isEnabledFor(logging.DEBUG)
        self._driver = Driver(
            self._connection,
            self._transport,
            self._handle_and_log if debug else self._handle_all,
            send_timeout=settings.limits.send_timeout,
        )
        if self._ending.is_set():
            self._driver.shut_down()
        return self._driver

    def _handle_all(self, events: Sequence[ServerEvent]) -> None:
        for event in events:
            self._handle(event)

    def _handle(self, event: ServerEvent) -> None:
        match event:
            case NamesReceived(names):
                if not self.names:
                    self._look_at_beginning()
                self.names += len(names)
            case Refused(message=message):
                self._why = f'the server said "{printable(message)}"'
            case ConversationEnded(EndReason.CONNECTION_LOST):
                failure = self._driver.failure if self._driver else None
                if failure and self._is_probe(failure):
                    self._end(*_CLOSED[EndReason.EOF])
                elif failure:  # otherwise it was cut off
                    self._end(CloseReason.CONNECTION_LOST, f"the connection was lost ({failure})")
            case ConversationEnded(reason):
                if not self.names:
                    self._look_at_beginning()
                closed, why = _CLOSED[reason]
                self._end(closed, why or self._why)

    def _handle_and_log(self, events: Sequence[ServerEvent]) -> None:
        for event in events:
            self._log.happened(event)
            self._handle(event)

    def _is_probe(self, failure: Exception) -> bool:
        """Return whether the client has only looked whether there is a server, as `nc -z` does.

        Whether its end or a reset is seen then, because of words that it has not read, is chance.
        """
        cause = failure.__cause__
        return not self.received and isinstance(cause, (ConnectionResetError, BrokenPipeError))

    def _look_at_beginning(self) -> None:
        beginning = self._driver.began_with if self._driver else b""
        self._strangers.note(beginning, format_address(self._log.peer))

    def _end(self, reason: CloseReason, why: str) -> None:
        self.reason, self._why = reason, why
