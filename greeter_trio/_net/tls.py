"""TLS: contexts from files, and a stream that can be half-closed.

Trio's own `SSLStream` is not used, for two reasons. It cannot be half-closed: its end closes the
transport too, and the input that is unread then destroys the last word on its way (PROTOCOL.md,
S8.3). And when a handshake fails it drops the alert that would tell the peer why.
"""

import contextlib
import ssl
from pathlib import Path

import trio

from .tls_words import explain, reason, words
from .transport import SteppedStream, transport_over

_RECORD = (
    16384  # bytes: the most that one TLS record carries; OpenSSL's buffers never hold much more
)
_FIRST_BYTES = (
    b"\x15",
    b"\x16",
)  # alert and handshake: the only records that a peer can begin with


class TLSError(Exception):
    """A certificate or a key cannot be used. The message says which file, and what is wrong with it."""


class HandshakeFailed(Exception):
    """There is no TLS connection. The message says why, in a person's words."""


# Contexts


def server_context(cert: str, key: str | None, client_ca: str | None = None) -> ssl.SSLContext:
    """Return what a server needs to speak TLS, 1.2 or newer.

    `cert` is a PEM file with its certificate, followed by the intermediate ones; `key` is one with
    its private key, and None means that it is in the same file. With `client_ca`, a PEM file,
    clients must show a certificate that one of these CAs signed. Raises `TLSError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    context.num_tickets = (
        0  # nobody resumes a conversation, and the first record after the handshake is WELCOME
    )
    _load_certificate(context, cert, key)
    if client_ca is not None:
        _load_authorities(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    ca: str | None = None, cert: str | None = None, key: str | None = None
) -> ssl.SSLContext:
    """Return what a client needs to speak TLS, 1.2 or newer.

    The server's certificate must be signed by a CA in the PEM file `ca`; None means the CAs that
    the system trusts. `cert` and `key` are for servers that demand a certificate; `key` None means
    that it is in the same file. Raises `TLSError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context)
    if ca is None:
        context.load_default_certs()
    else:
        _load_authorities(context, ca)
    if cert is not None:
        _load_certificate(context, cert, key)
    elif key is not None:
        msg = f"{key}: a key is of no use without its certificate"
        raise TLSError(msg)
    return context


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # so that to send never means to wait for input


def _load_certificate(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    def refuse() -> str:  # otherwise OpenSSL asks at the terminal
        msg = f"{key or cert}: the key is encrypted; decrypt it with `openssl pkey -in FILE -out NEWFILE`"
        raise TLSError(msg)

    try:
        context.load_cert_chain(cert, key, refuse)
    except OSError as exc:  # which ssl.SSLError is, too
        _diagnose(cert, "CERTIFICATE", "certificate")
        _diagnose(key or cert, "PRIVATE KEY", "private key")
        if "MISMATCH" in reason(exc):
            msg = f"{key or cert}: this is not the key of the certificate in {cert}"
        else:
            files = f"{cert} or {key}" if key else cert
            msg = f"{files}: OpenSSL cannot read it ({explain(exc)}); is it damaged, or cut short?"
        raise TLSError(msg) from exc


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as exc:
        _diagnose(path, "CERTIFICATE", "certificate")
        msg = f"{path}: OpenSSL cannot read it ({explain(exc)}); is it damaged, or cut short?"
        raise TLSError(msg) from exc


def _diagnose(path: str, label: str, what: str) -> None:
    """Say what is wrong with a PEM file (RFC 7468) that OpenSSL refused, if it is one of the usual things."""
    try:
        text = Path(path).read_bytes()
    except OSError as exc:
        msg = f"{path}: {exc.strerror}"
        raise TLSError(msg) from exc
    if f"{label}-----".encode() not in text:
        msg = f"{path}: there is no {what} in it; it must be a PEM file"
        raise TLSError(msg)


# The stream


class TLSStream(trio.abc.HalfCloseableStream, SteppedStream):
    """TLS over a stream, that can be half-closed.

    `context` is from one of `server_context` or `client_context`; a client gives the name or
    address that the server's certificate must be for. Nothing can be sent or received before
    `do_handshake`.

    The end of each direction is a close_notify (RFC 8446, 6.1). After the peer's, one can go on
    sending, and after one's own one can go on receiving; OpenSSL allows that with TLS 1.2 too.
    Input that ends without it may have been cut short by anybody on the path: `receive_some` raises
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
        self._received = b""  # decrypted before anybody asked for it
        self._encrypted = 0  # how many bytes of what `send_some` was given
        self._unsent = b""  # encrypted, and not sent yet
        self._sending = False
        self._send_broken = False
        self._begun = False  # the handshake: something has come from the peer
        self._ended = False  # by our close_notify, or by closing

    async def do_handshake(self) -> None:
        """Agree with the peer on TLS, and check its certificate; how long that may take is up to the caller.

        Raises `HandshakeFailed`, when the peer has been told why; the stream must then be closed.
        After a cancellation it can be called again, and goes on.
        """
        try:
            while not self.version:
                try:
                    self._tls.do_handshake()
                    self.version = self._tls.version() or ""
                except ssl.SSLWantReadError:
                    await self._flush()
                    data = await self._feed()
                    # OpenSSL would wait for more, and not be as clear.
                    if not self._begun and data[:1] not in _FIRST_BYTES:
                        here = " on this port" if self._peer == "the server" else ""
                        msg = f"{self._peer} does not speak TLS{here}"
                        raise HandshakeFailed(msg) from None
                    self._begun = True
            await self._flush()
        except ssl.SSLError as exc:
            with contextlib.suppress(trio.BrokenResourceError):
                await self._flush()  # the alert
            raise HandshakeFailed(words(exc, self._peer)) from exc
        except trio.BrokenResourceError as exc:
            msg = f"{self._peer} hung up during the handshake"
            raise HandshakeFailed(msg) from exc

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what there is, up to 16384 bytes or `max_bytes`; b"" is the peer's close_notify."""
        if max_bytes is not None and max_bytes < 1:
            msg = f"max_bytes must be at least 1, not {max_bytes}"
            raise ValueError(msg)
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
        """Send close_notify, and the end of the transport's stream. This waits for a peer that does not read."""
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
        """Close the transport at once, with no last word: that is `send_eof`. This never waits for the network."""
        self._ended = True
        await trio.aclose_forcefully(self.transport_stream)

    def _check_sending(self) -> None:
        if self._sending:
            msg = "another task is sending on this stream"
            raise trio.BusyResourceError(msg)
        if self._ended:
            msg = "nothing can be sent after the end of the stream"
            raise trio.ClosedResourceError(msg)
        if self._send_broken:
            msg = "nobody knows how much of what was sent before this has gone out"
            raise trio.BrokenResourceError(msg)

    async def _flush(self) -> None:
        """Send OpenSSL's pending output, in order; what is left after a cancellation goes first the next time."""
        self._sending = True
        try:
            self._unsent += self._outgoing.read()
            while self._unsent:
                sent = self._transport.send_now(self._unsent) or await self._transport.send_some(
                    self._unsent
                )
                self._unsent = self._unsent[sent:]
        finally:
            self._sending = False

    async def _feed(self) -> bytes | bytearray:
        """Receive, and pass the bytes to OpenSSL.

        What OpenSSL answers by itself (a new key, no to a renegotiation) waits for the next send,
        as it may (RFC 8446, 4.6.3): a receive that sent it could not be cancelled without harm. A
        peer that makes it pile up attacks us.
        """
        if self._outgoing.pending > _RECORD:
            msg = f"{self._peer} asks for new keys again and again"
            raise trio.BrokenResourceError(msg)
        data = await self.transport_stream.receive_some(_RECORD)
        if not data:
            msg = f"{self._peer} hung up without notice"
            raise trio.BrokenResourceError(msg)
        self._incoming.write(data)
        return data
