"""What comes before a conversation: a PROXY header, and then TLS."""

import socket
from collections.abc import Callable

import trio

from greeter_trio._net.patience import is_late
from greeter_trio._net.proxy import Address, receive_header
from greeter_trio._net.tls_stream import TLSStream

from .settings import Settings

# Seconds that are left when the server shuts down: it waits no longer for clients that may never
# begin.
CAP = 2.0


class Handshake:
    """Takes the PROXY header and does the TLS handshake that the settings want, in one timeout."""

    __slots__ = (
        "_ending",
        "_header",
        "_on_header",
        "_scope",
        "_settings",
        "_stream",
        "_tls",
        "header_is_taken",
    )

    def __init__(
        self,
        sock: socket.socket,
        settings: Settings,
        ending: trio.Event,
        on_header: Callable[[Address | None], None],
    ) -> None:
        self._settings = settings
        self._ending = ending
        self._on_header = on_header  # called when the header is there, or none is wanted
        self._scope: trio.CancelScope | None = None
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        context = settings.ssl_context
        self._tls = TLSStream(self._stream, context, server_side=True) if context else None
        self._header = bytearray()
        self.header_is_taken = False
        """Whether the header is there, or none is wanted."""

    async def run(self) -> TLSStream | None:
        """Do both, and return the stream of TLS, or None where the conversation goes without.

        Raises `ProxyError`, `HandshakeFailed`, `trio.TooSlowError`, all with a message for the log,
        and `trio.BrokenResourceError`.
        """
        timeout = self._settings.limits.handshake_timeout
        while True:
            with trio.move_on_after(timeout) as self._scope:
                if self._ending.is_set():
                    self.cap()
                await self._take_header()
                if self._tls:
                    await self._tls.do_handshake()
                return self._tls
            if not is_late(self._scope):
                break
        when = "before the end" if self._ending.is_set() else f"within {timeout:g} s"
        awaited = "TLS handshake" if self.header_is_taken else "PROXY header"
        raise trio.TooSlowError(f"no {awaited} {when}")

    def cap(self) -> None:
        """Leave it little time, because the server shuts down."""
        if self._scope:
            self._scope.deadline = min(self._scope.deadline, trio.current_time() + CAP)

    async def _take_header(self) -> None:
        if self.header_is_taken:
            return  # before a timeout that was noticed late
        source = None
        if self._settings.proxy_protocol:
            source = await receive_header(self._stream, self._header)
        self.header_is_taken = True
        self._on_header(source)
