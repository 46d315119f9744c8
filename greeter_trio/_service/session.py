"""One client of the server, from accept to close, and what the log says of it."""

import logging
import socket
from collections.abc import Callable
from typing import Any

import trio

from greeter_core import (
    ConversationEnded,
    EndReason,
    NamesReceived,
    Refused,
    ServerConnection,
    ServerEvent,
)
from greeter_trio._drive import BROKEN, Driver
from greeter_trio._net.patience import is_late
from greeter_trio._net.proxy import ProxyError, receive_header
from greeter_trio._net.readiness import Readiness
from greeter_trio._net.text import address, counted, printable
from greeter_trio._net.tls import HandshakeFailed, TLSStream
from greeter_trio._net.tls_words import explain
from greeter_trio._net.transport import SocketTransport, StreamTransport, Transport, set_options

from .limits import Terms
from .log import logger

HURRY = 2.0  # seconds that a handshake has left when the server shuts down

_WHY = {
    EndReason.EXIT: "the client said exit",
    EndReason.SHUTDOWN: "the server is shutting down",
    EndReason.EOF: "the client ended it",
    EndReason.LIFETIME: "its time was over",
}


class Conversation:
    """One client: a PROXY header and a TLS handshake, if the terms want them, and then the conversation."""

    __slots__ = (
        "_connection",
        "_driver",
        "_forget",
        "_handshake",
        "_peer",
        "_readiness",
        "_shutting_down",
        "_since",
        "_sock",
        "_terms",
        "_why",
        "full",
        "names",
        "number",
        "reason",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - there is one caller
        self,
        number: int,
        sock: socket.socket,
        peer: object,
        terms: Terms,
        readiness: Readiness,
        forget: Callable[["Conversation"], None],
        *,
        full: bool,
    ) -> None:
        self.number = number
        self.full = full
        """Whether there is no place for this client, who is only told so."""
        self.names = 0
        """How many names were greeted."""
        self.reason = "cut"
        """Why it ended, in a word. If nothing ended it, it was cut off."""
        self._why = "it was cut off"
        self._sock = sock
        self._peer = peer  # its address; text only if somebody wants to read it
        self._terms = terms
        self._readiness = readiness
        self._forget = forget
        self._since = trio.current_time()
        self._handshake: trio.CancelScope | None = None
        self._connection: ServerConnection | None = None
        self._driver: Driver | None = None
        self._shutting_down = False

    @property
    def received(self) -> int:
        """How many bytes came from the client since it was welcomed."""
        return self._driver.received if self._driver else 0

    @property
    def sent(self) -> int:
        """How many bytes were sent to the client since then."""
        return self._driver.sent if self._driver else 0

    async def run(self) -> None:
        """Have the conversation. Whatever happens, the connection is closed in the end; what fails is logged."""
        transport: Transport | None = None
        try:
            self._sock.settimeout(0)
            if self._terms.proxy_protocol or self._terms.ssl_context:
                transport = await self._shake_hands()
            else:
                self._log_open()
                set_options(self._sock)
                transport = self._socket_transport()
            if transport:
                await self._start(transport).run()
        except Exception:
            self._end("bug", "the server has a bug")
            logger.exception(
                "The conversation with %s failed", address(self._peer), extra=self._extra("failed")
            )
        finally:
            if transport:
                transport.close()
            self._sock.close()
            if (
                self._connection and self.reason == "cut"
            ):  # if it was closing, it keeps the reason that it had (S8.4)
                self._connection.connection_lost()
                for event in self._connection.events():
                    self._handle(event)
            self._forget(self)
            self._log_closed()

    def shut_down(self) -> None:
        """End it in good order, when what has come from the client already is answered."""
        self._shutting_down = True
        self._hurry()
        if self._driver:
            self._driver.shut_down()

    def _socket_transport(self) -> Transport:
        return SocketTransport(self._sock, self._readiness.watch(self._sock))

    async def _shake_hands(self) -> Transport | None:
        """Take the PROXY header and do the TLS handshake; return what the conversation goes over, if that went well."""
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(self._sock))
        context = self._terms.ssl_context
        tls = TLSStream(stream, context, server_side=True) if context else None
        header = bytearray()
        patience = self._terms.limits.handshake_timeout
        awaited = "PROXY header"
        try:
            while True:
                with trio.move_on_after(patience) as self._handshake:
                    if self._shutting_down:
                        self._hurry()
                    if awaited == "PROXY header":
                        await self._take_header(stream, header)
                        awaited = "TLS handshake"
                    return await self._secure(tls)
                if not is_late(self._handshake):
                    break
        except (ProxyError, HandshakeFailed) as exc:
            self._end("handshake", str(exc))
        except BROKEN as exc:
            self._end("handshake", f"the connection was lost ({explain(exc)})")
        else:
            hurry = self._shutting_down
            self._end(
                "handshake",
                f"no {awaited} " + ("before the end" if hurry else f"within {patience:g} s"),
            )
        if awaited == "PROXY header":
            self._log_open()
        return None

    def _hurry(self) -> None:
        """Have the handshake end soon: a server that shuts down waits for nobody who may never begin."""
        scope = self._handshake
        if scope:
            scope.deadline = min(scope.deadline, trio.current_time() + HURRY)

    async def _take_header(self, stream: trio.SocketStream, header: bytearray) -> None:
        if self._terms.proxy_protocol:
            source = await receive_header(stream, header)
            if source:
                self._peer = f"{address(source)} through {address(self._peer)}"
        self._log_open()

    async def _secure(self, tls: TLSStream | None) -> Transport:
        if tls is None:
            return self._socket_transport()
        await tls.do_handshake()
        logger.debug("#%d speaks %s", self.number, tls.version)
        return StreamTransport(tls)

    def _start(self, transport: Transport) -> Driver:
        self._connection = ServerConnection(
            self._terms.config, now=trio.current_time(), full=self.full
        )
        handle = self._handle_and_log if logger.isEnabledFor(logging.DEBUG) else self._handle
        self._driver = Driver(
            self._connection, transport, handle, send_timeout=self._terms.limits.send_timeout
        )
        if self._shutting_down:
            self._driver.shut_down()
        return self._driver

    def _handle(self, event: ServerEvent) -> None:
        match event:
            case NamesReceived(names):
                self.names += len(names)
            case Refused(message=message):
                self._why = f'the server said "{printable(message)}"'
            case ConversationEnded(EndReason.CONNECTION_LOST as reason):
                if self._driver and self._driver.failure:  # otherwise it was cut off
                    self._end(
                        reason.name.lower(), f"the connection was lost ({self._driver.failure})"
                    )
            case ConversationEnded(reason):
                self._end(reason.name.lower(), _WHY.get(reason, self._why))

    def _handle_and_log(self, event: ServerEvent) -> None:
        logger.debug("#%d %s", self.number, event)
        self._handle(event)

    def _end(self, reason: str, why: str) -> None:
        self.reason, self._why = reason, why

    # The log

    def _log_open(self) -> None:
        if logger.isEnabledFor(logging.INFO):
            logger.info(
                "Accept new connection from %s (#%d)",
                address(self._peer),
                self.number,
                extra=self._extra("open"),
            )

    def _log_closed(self) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        seconds = trio.current_time() - self._since
        logger.info(
            "Connection from %s is closed: %s; %s in %.1f s, %d bytes in, %d out (#%d)",
            address(self._peer),
            self._why,
            counted(self.names, "name"),
            seconds,
            self.received,
            self.sent,
            self.number,
            extra=self._extra(
                "closed",
                reason=self.reason,
                names=self.names,
                received_bytes=self.received,
                sent_bytes=self.sent,
                seconds=round(seconds, 3),
            ),
        )

    def _extra(self, event: str, **facts: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON can say
        return {
            "facts": {
                "event": event,
                "connection": self.number,
                "peer": address(self._peer),
                **facts,
            }
        }
