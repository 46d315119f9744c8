"""Connecting to a server: TCP or a Unix socket, a PROXY header, TLS."""

import contextlib
import enum
import errno
import socket
import ssl
from collections.abc import Sequence

import attrs
import trio

from .advice import CONNECTING, CONNECTING_UNIX, EndpointError
from .endpoints import AF_UNIX, Tcp, Unix
from .hosts import Address, certified_host, resolve
from .patience import is_late
from .socket_transport import set_options
from .text import format_address
from .tls_stream import TLSStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .proxy import HeaderEncoder

_HEAD_START = 0.25  # seconds that an address has before the next one is tried (RFC 8305, 5)
_UNIX_PAUSE = 0.02  # seconds before the next look whether a backlog has room


class Stage(enum.Enum):
    """What connecting is doing, or has failed at."""

    RESOLVE = "resolve"  #: its host has no address yet
    CONNECT = "connect"  #: there is no connection, or no PROXY header was sent over it
    TLS = "tls"  #: there is no TLS


_TOO_LATE = {
    Stage.RESOLVE: "cannot connect to {}: its name was not resolved within {:g} s",
    Stage.CONNECT: "cannot connect to {}: no answer within {:g} s",
    Stage.TLS: "cannot connect to {} with TLS: no answer within {:g} s",
}


@attrs.define
class Progress:
    """How far connecting has come, also when it has failed."""

    stage: Stage = Stage.RESOLVE
    peer: str | None = None
    """The server's address, such as `127.0.0.1:6000`; None while there is no connection."""
    connected_at: float | None = None
    """When there was a connection, on Trio's clock."""


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


async def connect(  # noqa: PLR0913 - most callers give three
    endpoint: Tcp | Unix,
    *,
    ssl_context: ssl.SSLContext | None = None,
    encode_header: "HeaderEncoder | None" = None,
    timeout: float,  # noqa: ASYNC109 - a timeout that is noticed late is given once more
    family: int = socket.AF_UNSPEC,
    progress: Progress | None = None,
) -> Connected:
    """Connect to a server within `timeout` seconds.

    If a host has several addresses they are tried one after the other, each when the one before
    has failed or has not answered within 250 ms (RFC 8305); with a `family` only those of IPv4
    (AF_INET) or IPv6 (AF_INET6). A Unix socket whose backlog is full is tried again. The PROXY
    header that `encode_header` makes is sent before TLS begins. `progress` tells how far it came.
    A connection over a path that has died breaks after 120 seconds, or after `timeout` if that is
    longer.

    Raises `ConnectError` if there is no connection, or it breaks at once, `HandshakeFailed` if
    there is no TLS, and `TimeoutError`.
    """
    while True:
        reached = progress or Progress()
        with trio.move_on_after(timeout) as scope:
            return await _connect(endpoint, ssl_context, encode_header, family, timeout, reached)
        if not is_late(scope):
            raise TimeoutError(_TOO_LATE[reached.stage].format(endpoint, timeout))


async def _connect(  # noqa: PLR0913, PLR0917 - there is one caller
    endpoint: Tcp | Unix,
    ssl_context: ssl.SSLContext | None,
    encode_header: "HeaderEncoder | None",
    family: int,
    patience: float,
    progress: Progress,
) -> Connected:
    try:
        transport = await _open(endpoint, family, progress)
    except OSError as exc:
        raise _error(endpoint, exc) from exc
    try:
        set_options(transport.socket, patience)
        progress.peer = str(endpoint) if isinstance(endpoint, Unix) else None
        with contextlib.suppress(OSError):  # a connection that was reset has no peer any more
            progress.peer = progress.peer or format_address(transport.socket.getpeername())
        progress.connected_at = trio.current_time()
        if encode_header:
            await _send_header(endpoint, transport, encode_header)
        if not ssl_context:
            return Connected(transport, progress.peer, None)
        progress.stage = Stage.TLS
        name = None
        if isinstance(endpoint, Tcp) and endpoint.host:
            name = certified_host(endpoint.host)
        stream = TLSStream(transport, ssl_context, server_side=False, server_hostname=name)
        await stream.do_handshake()
    except BaseException:
        transport.socket.close()
        raise
    return Connected(stream, progress.peer, stream.version)


async def _open(endpoint: Tcp | Unix, family: int, progress: Progress) -> trio.SocketStream:
    if isinstance(endpoint, Unix):
        progress.stage = Stage.CONNECT
        return trio.SocketStream(await _open_unix(endpoint))
    progress.stage = Stage.RESOLVE
    try:
        addresses = await resolve(endpoint.host or "", endpoint.port, family=family)
    except UnicodeError as exc:  # IDNA has labels of 1 to 63 characters (RFC 5890, 2.3.1)
        msg = "this cannot be the name of a host"
        raise socket.gaierror(socket.EAI_NONAME, msg) from exc
    progress.stage = Stage.CONNECT
    return trio.SocketStream(await _open_tcp(addresses))


async def _open_unix(endpoint: Unix) -> trio.socket.SocketType:
    if not AF_UNIX:
        raise OSError("Unix sockets are not available on this platform")
    sock = socket.socket(AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        await trio.lowlevel.checkpoint()
        while not _is_connected_at_once(sock, endpoint):  # noqa: ASYNC110 - see below
            await trio.sleep(_UNIX_PAUSE)  # nothing tells when there is room
    except BaseException:
        sock.close()
        raise
    return trio.socket.from_stdlib_socket(sock)


def _is_connected_at_once(sock: socket.socket, endpoint: Unix) -> bool:
    """Connect a Unix socket; return False where the server's backlog is full. Raises OSError."""
    try:
        sock.connect(endpoint.address)
    except BlockingIOError:  # EAGAIN; it is never under way (connect(2))
        return False
    return True


async def _open_tcp(addresses: Sequence[Address]) -> trio.socket.SocketType:
    """Return a socket that is connected to one of these addresses (RFC 8305, 5).

    Raises OSError: the failure of the address, or an exception group as its cause if there are
    several.
    """
    if len(addresses) == 1:
        return await _dial(addresses[0])
    failures: list[OSError] = []
    connected: list[trio.socket.SocketType] = []

    async def dial(address: Address, has_failed: trio.Event) -> None:
        try:
            connected.append(await _dial(address))
        except OSError as exc:
            failures.append(exc)
            has_failed.set()
        else:
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                has_failed = trio.Event()
                nursery.start_soon(dial, address, has_failed)
                with trio.move_on_after(_HEAD_START):
                    await has_failed.wait()
    except BaseException:  # a timeout at the moment of success
        for sock in connected:
            sock.close()
        raise
    if not connected:
        raise OSError("no address of it can be connected to") from ExceptionGroup("", failures)
    for sock in connected[1:]:
        sock.close()  # two were there at the same moment
    return connected[0]


async def _dial(address: Address) -> trio.socket.SocketType:
    family, where = address
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await sock.connect(where)
        if _is_connected_to_itself(sock):
            raise ConnectionRefusedError(errno.ECONNREFUSED, "")  # noqa: TRY301 - it is closed
    except BaseException:
        sock.close()
        raise
    return sock


def _is_connected_to_itself(sock: trio.socket.SocketType) -> bool:
    """Return whether both ends are this socket.

    Where no server listens, the port that the kernel chooses for a client can be the one that it
    connects to; then it meets itself (simultaneous open, RFC 9293, 3.5).
    """
    with contextlib.suppress(OSError):  # it was reset, and has no peer any more
        return bool(sock.getsockname() == sock.getpeername())
    return False


async def _send_header(
    endpoint: Tcp | Unix, transport: trio.SocketStream, encode_header: "HeaderEncoder"
) -> None:
    try:
        ends = transport.socket.getsockname(), transport.socket.getpeername()
        await transport.send_all(encode_header(*ends))
    except (OSError, trio.BrokenResourceError) as exc:
        raise _error(endpoint, exc) from _cause(exc)


def _cause(exc: BaseException) -> BaseException:
    """Return what happened below: an error, or a group with one for each address."""
    cause = exc.__cause__
    return cause if isinstance(cause, (OSError, BaseExceptionGroup)) else exc


def _error(endpoint: Tcp | Unix, exc: Exception) -> ConnectError:
    cause = _cause(exc)
    hints = CONNECTING_UNIX if isinstance(endpoint, Unix) else CONNECTING
    error = ConnectError(f"cannot connect to {endpoint}", cause, hints)
    error.no_such_name = isinstance(exc.__cause__, UnicodeError)
    return error
