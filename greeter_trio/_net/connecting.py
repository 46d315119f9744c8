"""Connecting to a server: TCP or a Unix socket, a PROXY header, TLS."""

import contextlib
import socket
import ssl

import attrs
import trio

from .advice import CONNECTING, CONNECTING_UNIX, EndpointError
from .endpoints import AF_UNIX, Tcp, Unix
from .patience import is_late
from .proxy import HeaderEncoder
from .text import format_address
from .tls_stream import TLSStream


class ConnectError(EndpointError):
    """There is no connection; the message says to what, why, and what to do."""

    no_such_name: bool = False
    """Whether the host is written like no name that a host can have."""


@attrs.frozen
class Connected:
    """A connection over which nothing was said yet."""

    stream: trio.SocketStream | TLSStream
    peer: str | None
    """The server's address, such as `127.0.0.1:6000`; None if the connection is broken already."""
    tls: str | None
    """The version of TLS that is spoken, such as `TLSv1.3`."""


async def connect(
    endpoint: Tcp | Unix,
    *,
    ssl_context: ssl.SSLContext | None = None,
    encode_header: HeaderEncoder | None = None,
    timeout: float,  # noqa: ASYNC109 - a timeout that is noticed late is given once more
) -> Connected:
    """Connect to a server within `timeout` seconds.

    If a host has several addresses they are tried one after the other, and a second one when the
    first has not answered within 250 ms (RFC 8305; `trio.open_tcp_stream` does it). The PROXY
    header that `encode_header` makes is sent before TLS begins.

    Raises `ConnectError` if there is no connection, or it breaks at once, `HandshakeFailed` if
    there is no TLS, and `TimeoutError`.
    """
    while True:
        with trio.move_on_after(timeout) as scope:
            return await _connect(endpoint, ssl_context, encode_header)
        if not is_late(scope):
            raise TimeoutError(f"cannot connect to {endpoint}: no answer within {timeout:g} s")


async def _connect(
    endpoint: Tcp | Unix,
    ssl_context: ssl.SSLContext | None,
    encode_header: HeaderEncoder | None,
) -> Connected:
    try:
        transport = await _open(endpoint)
    except OSError as exc:
        raise _error(endpoint, exc) from _cause(exc)
    try:
        peer = str(endpoint) if isinstance(endpoint, Unix) else None
        with contextlib.suppress(OSError):  # a connection that was reset has no peer any more
            peer = peer or format_address(transport.socket.getpeername())
        if encode_header:
            await _send_header(endpoint, transport, encode_header)
        if not ssl_context:
            return Connected(transport, peer, None)
        name = None
        if isinstance(endpoint, Tcp) and endpoint.host:
            name = endpoint.host.removesuffix(".")  # which is for resolvers (RFC 6066, 3)
        stream = TLSStream(transport, ssl_context, server_side=False, server_hostname=name)
        await stream.do_handshake()
    except BaseException:
        transport.socket.close()
        raise
    return Connected(stream, peer, stream.version)


async def _open(endpoint: Tcp | Unix) -> trio.SocketStream:
    if isinstance(endpoint, Unix):
        if not AF_UNIX:
            raise OSError("Unix sockets are not available on this platform")
        return await trio.open_unix_socket(endpoint.path)
    try:
        return await trio.open_tcp_stream(endpoint.host or "", endpoint.port)
    except UnicodeError as exc:  # IDNA has labels of 1 to 63 characters (RFC 5890, 2.3.1)
        msg = "this cannot be the name of a host"
        raise socket.gaierror(socket.EAI_NONAME, msg) from exc


async def _send_header(
    endpoint: Tcp | Unix, transport: trio.SocketStream, encode_header: HeaderEncoder
) -> None:
    try:
        ends = transport.socket.getsockname(), transport.socket.getpeername()
        await transport.send_all(encode_header(*ends))
    except (OSError, trio.BrokenResourceError) as exc:
        raise _error(endpoint, exc) from _cause(exc)


def _cause(exc: BaseException) -> BaseException:
    """Return what happened below Trio: an error, or a group with one for each address."""
    return exc if isinstance(exc, socket.gaierror) else exc.__cause__ or exc


def _error(endpoint: Tcp | Unix, exc: Exception) -> ConnectError:
    cause = _cause(exc)
    hints = CONNECTING_UNIX if isinstance(endpoint, Unix) else CONNECTING
    error = ConnectError(f"cannot connect to {endpoint}", cause, hints)
    error.no_such_name = isinstance(exc.__cause__, UnicodeError)
    return error
