"""Listening: TCP addresses, Unix sockets, and sockets that another process has opened.

Between bind and listen there is no `await`, so a cancellation finds each socket either not yet open
or owned by a `Listener`. A failure closes all that was opened before it.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import trio

from .advice import LISTENING, LISTENING_UNIX, EndpointError
from .endpoints import UNAVAILABLE, Endpoint, Fd, Tcp, Unix
from .hosts import Address, resolve
from .proc_net import Peer, handshakes
from .syn_filter import drop_new_connections
from .text import format_address
from .unix_sockets import listen_unix

_BACKLOG = 65535  # as many as the kernel allows: it lowers this to its own limit (listen(2))
_ATTEMPTS = 16  # to find one free port for several addresses

# A kind of address, or an address, that this machine does not have
_ABSENT = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}


class ListenError(EndpointError):
    """The server cannot listen; the message says where, why, and what to do."""


@attrs.define(eq=False)
class Listener:
    """A socket that listens."""

    socket: socket.socket
    """The socket, non-blocking, for accepting without waiting."""
    trio: trio.SocketListener
    """The same socket, or one for the same descriptor, as Trio knows it."""
    name: str
    """Where it listens: `127.0.0.1:6000`, `[::1]:6000`, `unix:/run/greeter.sock`."""
    shared: bool
    """Whether another process opened it, and may go on using it."""
    kept: bool
    """Whether it stays open in that process: its backlog is for the next server."""
    _file: tuple[str, os.stat_result] | None = None
    """The path of a Unix socket that is ours, and the file that bind made there."""

    def close(self) -> None:
        """Close the socket, and remove its file. Closing again does nothing.

        Call it within `trio.run`: tasks that wait for the socket get an exception.
        """
        # While this socket listens no server takes its place, and the file's inode is not used
        # again, so the file goes first.
        self._remove_file()
        self.trio.socket.close()
        self.socket.close()

    def refuse_new_connections(self) -> None:
        """Accept no new connections, as far as the system allows that.

        Connections that were made before can still be accepted. A Unix socket cannot be found
        without its file; TCP has `drop_new_connections`. A shared socket is left alone.
        """
        self._remove_file()
        if not self.shared:
            drop_new_connections(self.socket)

    def handshakes(self) -> set[Peer]:
        """Return the clients that are connecting: closing the socket would reset them.

        Empty where the system does not tell, as for a socket of another network namespace (Linux),
        and for a shared socket, which may stay open.
        """
        if self.shared or self.socket.family not in (socket.AF_INET, socket.AF_INET6):
            return set()
        return handshakes(self.socket.getsockname()[1])

    def _remove_file(self) -> None:
        if self._file:
            path, born = self._file
            with contextlib.suppress(OSError):  # a file that stays is stale: the next server's
                if os.path.samestat(os.lstat(path), born):
                    os.unlink(path)  # noqa: PTH108 - the path is a string, as sockets have it
            self._file = None


def adopt(
    sock: socket.socket,
    *,
    shared: bool = False,
    kept: bool = False,
    file: tuple[str, os.stat_result] | None = None,
) -> Listener:
    """Return the listener for a socket that listens; it becomes non-blocking and close-on-exec.

    Raises `ListenError` if the socket does not listen, or not for a stream. Then it is still the
    caller's.
    """
    if sock.type != socket.SOCK_STREAM or not _listens(sock):
        msg = (
            f"descriptor {sock.fileno()} must be a stream socket that listens "
            "(systemd: ListenStream= and Accept=no)"
        )
        raise ListenError(msg)
    sock.set_inheritable(False)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    return Listener(sock, listener, _name(sock), shared, kept, file)


def adopt_listeners(listeners: Sequence[trio.SocketListener]) -> list[Listener]:
    """Return listeners for Trio's own, that the caller has opened.

    Raises OSError if one of them is closed, and ValueError if there is none.
    """
    if not listeners:
        raise ValueError("listeners must be one or more; leave them out to listen on host and port")
    adopted: list[Listener] = []
    with contextlib.ExitStack() as undo:
        for listener in listeners:
            theirs = listener.socket
            # Trio's socket has no call that accepts without waiting; a copy of the descriptor has.
            copy = undo.enter_context(socket.fromfd(theirs.fileno(), theirs.family, theirs.type))
            copy.settimeout(0)
            adopted.append(Listener(copy, listener, _name(copy), shared=True, kept=False))
        undo.pop_all()
    return adopted


def _listens(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError as exc:
        if exc.errno != errno.ENOPROTOOPT:
            raise
        return True  # macOS does not tell; accept will


def _name(sock: socket.socket) -> str:
    where = sock.getsockname()
    if isinstance(where, (str, bytes)):  # a Unix socket
        return str(Unix(os.fsdecode(where).replace("\0", "@")))  # perhaps abstract (unix(7))
    return format_address(where)


async def open_listeners(
    endpoints: Sequence[Endpoint], *, reuse_port: bool = False, unix_mode: int | None = None
) -> list[Listener]:
    """Listen on all endpoints; one that is given twice counts once.

    A host is listened on at each of its addresses that this machine has. With `reuse_port` other
    servers of the same user may listen on the same TCP ports, if they set it, too (SO_REUSEPORT,
    socket(7)). A Unix socket that no server listens on any more is replaced; `unix_mode` is the
    mode of its file, None for what umask leaves of 0777.

    Raises `ListenError` if any of them fails. Then nothing is left open, and no file is left
    behind.
    """
    listeners: list[Listener] = []
    with contextlib.ExitStack() as undo:
        for endpoint in dict.fromkeys(endpoints):
            await trio.lowlevel.checkpoint()
            try:
                found = await _open(endpoint, reuse_port=reuse_port, unix_mode=unix_mode)
            except OSError as exc:
                hints = LISTENING_UNIX if isinstance(endpoint, Unix) else LISTENING
                raise ListenError(f"cannot listen on {endpoint}", exc, hints) from exc
            for listener in found:
                undo.callback(listener.close)
            listeners += found
        undo.pop_all()
    return listeners


async def _open(endpoint: Endpoint, *, reuse_port: bool, unix_mode: int | None) -> list[Listener]:
    if isinstance(endpoint, Tcp):
        return await _open_tcp(endpoint, reuse_port=reuse_port)
    if isinstance(endpoint, Fd):
        return [_open_fd(endpoint.number)]
    sock, file = await listen_unix(endpoint, _BACKLOG, unix_mode)
    return [adopt(sock, file=file and (endpoint.path, file))]


def _open_fd(number: int) -> Listener:
    if "fd" in UNAVAILABLE:
        raise OSError(UNAVAILABLE["fd"])
    sock = socket.socket(fileno=number)
    try:
        return adopt(sock, shared=True)
    except BaseException:
        sock.detach()  # it is something else, and not ours to close
        raise


# TCP


async def _open_tcp(endpoint: Tcp, *, reuse_port: bool) -> list[Listener]:
    try:
        addresses = await resolve(endpoint.host, endpoint.port, flags=socket.AI_PASSIVE)
    except UnicodeError as exc:
        msg = "this cannot be the name of a host"
        raise socket.gaierror(socket.EAI_NONAME, msg) from exc
    attempts = 1 if endpoint.port else _ATTEMPTS
    while True:
        try:
            return _listen_tcp(addresses, endpoint.port, reuse_port=reuse_port)
        except OSError as exc:  # a port that is free at one address may be taken at the next one
            attempts -= 1
            if exc.errno != errno.EADDRINUSE or not attempts:
                raise


def _listen_tcp(addresses: Iterable[Address], port: int, *, reuse_port: bool) -> list[Listener]:
    """Listen on these addresses. Port 0 is a port that the first one finds free, for all."""
    sockets: list[socket.socket] = []
    absent = None
    with contextlib.ExitStack() as undo:
        for family, (host, _, *scope) in addresses:
            try:
                sock = _bind_tcp(family, (host, port, *scope), reuse_port=reuse_port)
            except OSError as exc:
                if exc.errno not in _ABSENT:
                    raise
                absent = exc
                continue
            sockets.append(undo.enter_context(sock))
            port = port or sock.getsockname()[1]
        if absent and not sockets:
            raise absent
        # All are bound first: no client is to connect to a socket that is closed again.
        for sock in sockets:
            sock.listen(_BACKLOG)
        listeners = [adopt(sock) for sock in sockets]
        undo.pop_all()
    return listeners


def _bind_tcp(
    family: socket.AddressFamily, where: tuple[Any, ...], *, reuse_port: bool
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        _set_reuse(sock, reuse_port=reuse_port)
        if family == socket.AF_INET6:  # [::] is to leave 0.0.0.0 to a socket of its own
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock


def _set_reuse(sock: socket.socket, *, reuse_port: bool) -> None:
    """Decide which other sockets may bind to the same port, before or after this one."""
    if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
        # Windows, where with SO_REUSEADDR any process may take over a port that is in use
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        # Connections of an earlier server that linger in TIME_WAIT must not keep this one from
        # its port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise OSError("servers cannot share a port on this platform")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
