"""TLS over a stream, with a half-close.

Trio's own `SSLStream` is not used, for two reasons. It cannot be half-closed: its end closes the
transport too, and input that is unread then destroys output on its way (RFC 9293, 3.6.1).
And when a handshake fails it drops the alert that would tell the peer why.
"""

import contextlib
import socket
import ssl
from typing import Any

import trio

from .stream_transport import SteppedStream, transport_over
from .text import printable
from .tls_words import words

_RECORD = 16384  # bytes: the most that one TLS record carries; OpenSSL buffers little more
_FIRST_BYTES = (b"\x15", b"\x16")  # alert and handshake: the only records a peer can begin with


def _address(text: str) -> str:
    """Return an address as it is usually written; OpenSSL does not shorten those of IPv6."""
    try:
        packed = socket.inet_pton(socket.AF_INET6, text.strip())
    except OSError:
        return printable(text.encode())
    return socket.inet_ntop(socket.AF_INET6, packed)


_NAMES = {"DNS": lambda name: printable(name.encode()), "IP Address": _address}


class HandshakeFailed(Exception):
    """There is no TLS connection; the message says why."""

    heard: bytes = b""
    """The peer's first bytes, if these are no TLS."""


class TLSStream(trio.abc.HalfCloseableStream, SteppedStream):
    """TLS over a stream, with a half-close.

    `context` is from one of `server_context` or `client_context`; a client gives the name or
    address that the server's certificate must be for. Nothing can be sent or received before
    `do_handshake`.

    The end of each direction is a close_notify (RFC 8446, 6.1). After the peer's, data can still be
    sent, and after our own, data can still be received; OpenSSL allows that with TLS 1.2 too. Input
    that ends without it may have been cut short by anything on the path: `receive_some` raises
    `trio.BrokenResourceError`.

    One task may send while another receives. A receive that is cancelled has lost nothing. A
    `send_all` that is cancelled breaks the sending direction; `send_some` can be called again.
    Errors have messages for people.
    """

    def __init__(
        self,
        transport: trio.abc.HalfCloseableStream,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
    ) -> None:
        self.version = ""
        """Such as `TLSv1.3`, after the handshake."""
        self.transport_stream = transport
        """What TLS goes over, by the name that it has in Trio's own."""
        self._peer = "the client" if server_side else "the server"
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        self._transport = transport_over(transport)  # for sending: in steps, over a socket
        self._received = b""  # decrypted, and not returned yet
        self._encrypted = 0  # how many bytes of what `send_some` was given
        self._unsent = b""  # encrypted, and not sent yet
        self._sending = False
        self._send_broken = False
        self._begun = False  # the handshake: something has come from the peer
        self._ended = False  # by our close_notify, or by closing

    async def do_handshake(self) -> None:
        """Agree with the peer on TLS, and check its certificate.

        Raises `HandshakeFailed`, after the peer was told why; the stream must then be closed. There
        is no timeout. After a cancellation the call can be repeated, and goes on.
        """
        try:
            while not self.version:
                try:
                    self._tls.do_handshake()
                    self.version = self._tls.version() or ""
                except ssl.SSLWantReadError:
                    await self._flush()
                    data = await self._feed()
                    # OpenSSL would wait for more bytes, and then say it less clearly.
                    if not self._begun and data[:1] not in _FIRST_BYTES:
                        here = " on this port" if self._peer == "the server" else ""
                        failed = HandshakeFailed(f"{self._peer} does not speak TLS{here}")
                        failed.heard = bytes(data[:64])
                        raise failed from None
                    self._begun = True
            await self._flush()
        except ssl.SSLError as exc:
            with contextlib.suppress(trio.BrokenResourceError):
                await self._flush()  # the alert
            raise HandshakeFailed(words(exc, self._peer)) from exc
        except trio.BrokenResourceError as exc:
            raise HandshakeFailed(f"{self._peer} hung up during the handshake") from exc

    def peer_names(self) -> tuple[str, ...]:
        """Return, after the handshake, the names and IP addresses of the peer's certificate.

        They are those in its subjectAltName (RFC 5280, 4.2.1.6), made harmless for a terminal; none
        if they cannot be decoded, and where the peer's certificate is not verified.
        """
        try:
            certificate: dict[str, Any] = self._tls.getpeercert() or {}
        except UnicodeDecodeError:
            return ()
        names = certificate.get("subjectAltName", ())
        return tuple(_NAMES[kind](name) for kind, name in names if kind in _NAMES)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what there is, up to 16384 bytes or `max_bytes`; `b""` is a close_notify."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        size = max_bytes or _RECORD
        await trio.lowlevel.checkpoint()
        if self._received:
            data, self._received = self._received[:size], self._received[size:]
            return data
        while True:
            try:
                return self._tls.read(size)
            except ssl.SSLWantReadError:
                await self._feed()
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as exc:
                raise trio.BrokenResourceError(words(exc, self._peer)) from exc

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it."""
        await trio.lowlevel.checkpoint()
        self._check_sending()
        self._send_broken = True
        with memoryview(data) as view:
            sent = 0
            while sent < len(view):
                sent += await self._send_record(view[sent:])
        self._send_broken = False

    async def send_some(self, data: bytes | memoryview) -> int:
        """Send the first record of it, at most 16384 bytes; return how many bytes that was.

        After a cancellation call it again with the same data, if there is more to send, or with
        more behind that.
        """
        self._check_sending()
        return await self._send_record(data)

    async def _send_record(self, data: bytes | memoryview) -> int:
        if not self._encrypted:
            try:
                self._encrypted = self._tls.write(data[:_RECORD])
            except ssl.SSLError as exc:
                raise trio.BrokenResourceError(words(exc, self._peer)) from exc
        await self._flush()
        sent, self._encrypted = self._encrypted, 0
        return sent

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the transport can take something."""
        await self.transport_stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Send close_notify, and end the transport's stream; wait while the peer reads nothing."""
        if self._ended:
            await trio.lowlevel.checkpoint()
            return
        self._check_sending()
        # OpenSSL looks for the peer's close_notify right after it has made ours. To find anything
        # else there breaks the connection, so what has come is decrypted first.
        with contextlib.suppress(ssl.SSLError):
            while data := self._tls.read(_RECORD):
                self._received += data
        try:
            with contextlib.suppress(ssl.SSLWantReadError):  # the peer's has not come yet
                self._tls.unwrap()
        except ssl.SSLError as exc:
            raise trio.BrokenResourceError(words(exc, self._peer)) from exc
        self._ended = True
        await self._flush()
        await self.transport_stream.send_eof()

    async def aclose(self) -> None:
        """Close the transport at once: without a close_notify, and without any waiting."""
        self._ended = True
        await trio.aclose_forcefully(self.transport_stream)

    def _check_sending(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        if self._ended:
            raise trio.ClosedResourceError("nothing can be sent after the end of the stream")
        if self._send_broken:
            raise trio.BrokenResourceError(
                "a send was cancelled, and it is not known how much of it was sent"
            )

    async def _flush(self) -> None:
        """Send OpenSSL's pending output, after what a cancellation has left unsent."""
        self._sending = True
        try:
            self._unsent += self._outgoing.read()
            while self._unsent:
                sent = self._transport.send_now(self._unsent)
                sent = sent or await self._transport.send_some(self._unsent)
                self._unsent = self._unsent[sent:]
        finally:
            self._sending = False

    async def _feed(self) -> bytes | bytearray:
        """Receive, and pass the bytes to OpenSSL.

        What OpenSSL answers by itself (a new key, a refused renegotiation) waits for the next send,
        as it may (RFC 8446, 4.6.3): a receive that sent it could not be cancelled without harm. A
        peer that makes these answers pile up is cut off.
        """
        if self._outgoing.pending > _RECORD:
            raise trio.BrokenResourceError(f"{self._peer} asks for new keys again and again")
        data = await self.transport_stream.receive_some(_RECORD)
        if not data:
            raise trio.BrokenResourceError(f"{self._peer} hung up without notice")
        self._incoming.write(data)
        return data


async def names_of(
    stream: trio.abc.HalfCloseableStream, context: ssl.SSLContext, server_hostname: str
) -> tuple[str, ...]:
    """Return the names and addresses that the certificate of the server at the other end is for.

    This is for a message, after a handshake that failed because they do not include the name that
    was looked for: connect once more, with the same `context`. The certificate must be signed by a
    CA that is trusted, and may be for any name; `server_hostname` tells the server which
    certificate to show. See `TLSStream.peer_names`. The stream is closed in any case.

    Raises `HandshakeFailed`. There is no timeout.
    """
    async with stream:
        checks = context.check_hostname
        context.check_hostname = False  # OpenSSL copies it to each connection, right here
        try:
            tls = TLSStream(stream, context, server_side=False, server_hostname=server_hostname)
        finally:
            context.check_hostname = checks
        await tls.do_handshake()
        return tls.peer_names()
