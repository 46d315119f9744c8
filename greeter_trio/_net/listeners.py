"""Where the server listens: TCP addresses, Unix sockets, and sockets that somebody else has opened.

From bind to listen nothing awaits, so a cancellation finds each socket either not yet open or in
somebody's care. What fails closes all that was opened before it.
"""

import contextlib
import ctypes
import errno
import ipaddress
import os
import re
import secrets
import socket
import stat
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import attrs
import trio

from .optional import optional
from .text import address

_fcntl = optional("fcntl")

_BACKLOG = 65535  # as many as the kernel allows: it lowers this to its own limit (listen(2))
_ATTEMPTS = 16  # to find one free port for several addresses
_LOCK_TIMEOUT = 5.0  # seconds to wait for another server that is starting in the same folder
_LOCK_PAUSE = 0.01  # seconds between two attempts
_LONGEST_PATH = 107 if sys.platform == "linux" else 103  # bytes, of which sockaddr_un has one more
_INET = (socket.AF_INET, socket.AF_INET6)
_AF_UNIX: Any = getattr(socket, "AF_UNIX", None)

_ABSENT = {
    errno.EAFNOSUPPORT,
    errno.EADDRNOTAVAIL,
}  # a kind of address, or an address, that this machine does not have

_ADVICE = {
    errno.EACCES: "ports below 1024, and folders of others, need privileges",
    errno.EADDRINUSE: "choose another port; servers share one only if each of them asks for it with --reuse-port",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EBADF: "whoever starts the server must pass the descriptor",
    errno.ENOENT: "the folder must exist",
    errno.ENOTSOCK: "the descriptor must be a socket",
}
if not hasattr(socket, "SO_REUSEPORT"):  # Windows
    _ADVICE[errno.EACCES] = "the system keeps this port for something else: choose another port"
    _ADVICE[errno.EADDRINUSE] = "choose another port"

_MISSING = {}  # kinds of endpoints that this platform does not have
if not (_fcntl and _AF_UNIX):
    _MISSING["unix"] = "Unix sockets are not available on this platform"
if not _fcntl:
    _MISSING["fd"] = "listening on a passed descriptor is not available on this platform"


class ListenError(OSError):
    """The server cannot listen; the message says where, why, and what to do."""


# Endpoints


@attrs.frozen
class Tcp:
    """All addresses of a host."""

    host: str | None
    """A name, an IPv4 address, an IPv6 address without brackets, or None for all addresses of this machine."""
    port: int
    """0 to 65535; 0 is any port that is free, the same one at all addresses."""

    def __str__(self) -> str:
        return address(("*" if self.host is None else self.host, self.port))


@attrs.frozen
class Unix:
    """A Unix socket with a path of at most 107 bytes (103 where it is not Linux)."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@attrs.frozen
class Fd:
    """A descriptor of a listening socket that was passed to this process, and belongs to it from now on."""

    number: int

    def __str__(self) -> str:
        return f"fd:{self.number}"


Endpoint: TypeAlias = Tcp | Unix | Fd


def parse_endpoint(text: str) -> Endpoint:
    """Return the endpoint that is written as HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N.

    Raises `ValueError`, with a message for whoever wrote it.
    """
    kind, _, rest = text.partition(":")
    if kind in _MISSING:
        raise ValueError(_MISSING[kind])
    if kind == "unix":
        size = len(os.fsencode(rest))
        if not 1 <= size <= _LONGEST_PATH:
            msg = f"the path of a Unix socket must have 1 to {_LONGEST_PATH} bytes, not {size}: {rest!r}"
            raise ValueError(msg)
        return Unix(rest)
    if kind == "fd":
        if not re.fullmatch("[0-9]{1,9}", rest):
            msg = f"fd: must be followed by the number of a descriptor, not by {rest!r}"
            raise ValueError(msg)
        return Fd(int(rest))
    return _parse_tcp(text)


def _parse_tcp(text: str) -> Tcp:
    parts = re.fullmatch(r"(?:\[([^]]*)\]|([^][:]*)):([^][:]*)", text)
    if not parts:
        msg = f"an address must be HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N, not {text!r}"
        raise ValueError(msg)
    ipv6, host, port = parts.groups()
    if ipv6 is not None:
        try:
            ipaddress.IPv6Address(ipv6)
        except ValueError as exc:
            msg = f"what stands in brackets must be an IPv6 address, not {ipv6!r}"
            raise ValueError(msg) from exc
    elif host in ("", "*"):
        msg = f"the host must not be {host!r}: for all addresses of this machine, write 0.0.0.0 (IPv4) or [::] (IPv6)"
        raise ValueError(msg)
    if not (re.fullmatch("[0-9]{1,5}", port) and int(port) <= 65535):
        msg = f"the port must be a whole number from 0 (any that is free) to 65535, not {port!r}"
        raise ValueError(msg)
    return Tcp(ipv6 or host, int(port))


# Listeners

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python has no name for it
_INSTRUCTION = struct.Struct("HBBI")  # struct sock_filter in linux/filter.h: code, jt, jf, k
_NO_SYN = b"".join(
    _INSTRUCTION.pack(*instruction)
    for instruction in (
        (
            0x30,
            0,
            0,
            13,
        ),  # load the byte with the flags; the packet begins with the TCP header (RFC 9293, 3.1)
        (0x54, 0, 0, 0x12),  # look at SYN and ACK
        (0x15, 0, 1, 0x02),  # if there is SYN alone,
        (0x06, 0, 0, 0),  # drop it;
        (0x06, 0, 0, 0xFFFF),  # take all else
    )
)


@attrs.define(eq=False)
class Listener:
    """A socket that listens."""

    socket: socket.socket
    """The socket, non-blocking, for accepting without waiting."""
    trio: trio.SocketListener
    """The same socket, or one for the same descriptor, as Trio knows it."""
    name: str
    """Where it listens, for people: `127.0.0.1:6000`, `[::1]:6000`, `unix:/run/greeter.sock`."""
    foreign: bool
    """Whether somebody else opened it, and may use it, too."""
    kept: bool
    """Whether it stays open after us: its backlog is for the next server."""
    _file: tuple[str, os.stat_result] | None = None
    """The path of a Unix socket that is ours, and the file that bind made there."""

    def close(self) -> None:
        """Close the socket, and remove its file. Closing again does nothing.

        Call it within `trio.run`: tasks that wait for the socket are told.
        """
        # While we listen no server takes our place, and the file's inode is not used again, so the
        # file goes first.
        self._remove_file()
        self.trio.socket.close()
        self.socket.close()

    def close_entrance(self) -> None:
        """Let nobody connect any more, as far as the system allows that; who has connected can still be accepted.

        A Unix socket cannot be found without its file. A TCP socket is told not to see who wants to
        begin a connection (Linux: SO_ATTACH_FILTER in socket(7)). They try again after a second, as
        if the network had lost it, and find that nobody listens, or the next server. Otherwise the
        kernel completes handshakes between the last accept and the close, and resets them: in 104
        shutdowns under 100 reconnecting clients that happened 9 times, and with the filter never in
        60. A socket that others may use, too, is left alone.
        """
        self._remove_file()
        if sys.platform == "linux" and self.socket.family in _INET and not self.foreign:
            program = ctypes.create_string_buffer(_NO_SYN)
            with contextlib.suppress(OSError):
                sock_fprog = struct.pack(
                    "HP", len(_NO_SYN) // _INSTRUCTION.size, ctypes.addressof(program)
                )
                self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, sock_fprog)

    def _remove_file(self) -> None:
        if self._file:
            path, born = self._file
            with contextlib.suppress(
                OSError
            ):  # what cannot be removed is stale, and the next server replaces it
                if os.path.samestat(os.lstat(path), born):
                    os.unlink(path)  # noqa: PTH108 - the path is a string, as sockets have it
            self._file = None


def adopt(sock: socket.socket, *, foreign: bool = False, kept: bool = False) -> Listener:
    """Return the listener for a socket that listens already; it becomes non-blocking and close-on-exec.

    Raises `ListenError` if the socket does not listen, or not for a stream. Then it is still the
    caller's.
    """
    if sock.type != socket.SOCK_STREAM or not _listens(sock):
        msg = f"descriptor {sock.fileno()} must be a stream socket that listens (systemd: ListenStream= and Accept=no)"
        raise ListenError(msg)
    sock.set_inheritable(False)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    return Listener(sock, listener, _name(sock), foreign, kept)


def adopt_listeners(listeners: Sequence[trio.SocketListener]) -> list[Listener]:
    """Return listeners for Trio's own, that the caller has opened.

    Raises OSError if one of them is closed, and ValueError if there is none.
    """
    if not listeners:
        msg = "listeners must be one or more; leave them out to listen on host and port"
        raise ValueError(msg)
    adopted: list[Listener] = []
    with contextlib.ExitStack() as copies:
        for listener in listeners:
            theirs = listener.socket
            # Trio's socket has no call that accepts without waiting; a copy of the descriptor has.
            copy = copies.enter_context(socket.fromfd(theirs.fileno(), theirs.family, theirs.type))
            copy.settimeout(0)
            adopted.append(Listener(copy, listener, _name(copy), foreign=True, kept=False))
        copies.pop_all()
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
        return "unix:" + os.fsdecode(where).replace(
            "\0", "@"
        )  # an abstract one may be passed to us
    return address(where)


async def open_listeners(
    endpoints: Sequence[Endpoint], *, reuse_port: bool = False
) -> list[Listener]:
    """Listen on all endpoints; one that is given twice counts once.

    A host is listened on at each of its addresses that this machine has. With `reuse_port` other
    servers of the same user may listen on the same TCP ports, if they want it, too (SO_REUSEPORT,
    socket(7)). A Unix socket that nobody listens on any more is replaced.

    Raises `ListenError` if any of them fails. Then nothing is left open, and no file is left
    behind.
    """
    listeners: list[Listener] = []
    with contextlib.ExitStack() as opened:
        for endpoint in dict.fromkeys(endpoints):
            await trio.lowlevel.checkpoint()
            try:
                found = await _open(endpoint, reuse_port=reuse_port)
            except (OSError, UnicodeError, OverflowError) as exc:
                # UnicodeError: no name of a host is written like this; OverflowError: no such port
                error = ListenError(f"cannot listen on {endpoint}: {_explain(exc)}")
                error.errno = getattr(exc, "errno", None)
                raise error from exc
            for listener in found:
                opened.callback(listener.close)
            listeners += found
        opened.pop_all()
    return listeners


async def _open(endpoint: Endpoint, *, reuse_port: bool) -> list[Listener]:
    match endpoint:
        case Tcp():
            return await _open_tcp(endpoint, reuse_port=reuse_port)
        case Unix(path):
            return [await _open_unix(path)]
        case Fd(number):
            return [_open_fd(number)]


def _explain(exc: OSError | UnicodeError | OverflowError) -> str:
    """Return what went wrong, and what to do about it."""
    if isinstance(exc, OverflowError):
        return str(exc)
    if not isinstance(exc, OSError) or isinstance(exc, socket.gaierror):
        return f"{getattr(exc, 'strerror', None) or exc} (check the name of the host)"
    text, advice = exc.strerror or str(exc), _ADVICE.get(exc.errno or 0)
    return f"{text} ({advice})" if advice else text


# TCP

_Address: TypeAlias = tuple[socket.AddressFamily, tuple[Any, ...]]


async def _open_tcp(endpoint: Tcp, *, reuse_port: bool) -> list[Listener]:
    found = await trio.socket.getaddrinfo(
        endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    addresses = dict.fromkeys((family, sockaddr) for family, _, _, _, sockaddr in found)
    attempts = 1 if endpoint.port else _ATTEMPTS
    while True:
        try:
            return _listen_tcp(addresses, endpoint.port, reuse_port=reuse_port)
        except OSError as exc:  # a port that is free at one address may be taken at the next one
            attempts -= 1
            if exc.errno != errno.EADDRINUSE or not attempts:
                raise


def _listen_tcp(addresses: Iterable[_Address], port: int, *, reuse_port: bool) -> list[Listener]:
    """Listen on these addresses. If `port` is 0 the first one finds a free port, for all of them."""
    sockets: list[socket.socket] = []
    absent = None
    with contextlib.ExitStack() as opened:
        for family, (host, _, *scope) in addresses:
            try:
                sock = _bind_tcp(family, (host, port, *scope), reuse_port=reuse_port)
            except OSError as exc:
                if exc.errno not in _ABSENT:
                    raise
                absent = exc
                continue
            sockets.append(opened.enter_context(sock))
            port = port or sock.getsockname()[1]
        if absent and not sockets:
            raise absent
        for sock in (
            sockets
        ):  # not before all are bound: nobody is to connect to a socket that is closed again
            sock.listen(_BACKLOG)
        listeners = [adopt(sock) for sock in sockets]
        opened.pop_all()
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
    """Settle who else may bind to the same port, before or after this server."""
    if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
        # Windows, where with SO_REUSEADDR any process may take over a port that is in use.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        # Connections of an earlier server that linger in TIME_WAIT must not keep this one from
        # its port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        if not hasattr(socket, "SO_REUSEPORT"):
            msg = "servers cannot share a port on this platform"
            raise OSError(msg)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


# Unix sockets


async def _open_unix(path: str) -> Listener:
    """Listen at a path, and hold a lock on its folder meanwhile.

    Otherwise, of two servers that start at once, both may find the same stale file, and the slower
    one would remove the file of the other, or would find it bound but not yet listened on, and take
    it for stale. Anybody who can read the folder can hold the lock, too; who holds it for long is
    no server that starts, and is not waited for.
    """
    if not (_fcntl and _AF_UNIX):
        raise OSError(_MISSING["unix"])
    folder = os.open(Path(path).parent, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        await _lock(_fcntl, folder)
        return _listen_unix(path)
    finally:
        os.close(folder)  # and the lock is gone


async def _lock(fcntl: ModuleType, folder: int) -> None:
    with trio.move_on_after(_LOCK_TIMEOUT):
        while True:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await trio.sleep(_LOCK_PAUSE)
            else:
                return


def _listen_unix(path: str) -> Listener:
    _remove_stale(path)
    with contextlib.ExitStack() as opened:
        sock = opened.enter_context(socket.socket(_AF_UNIX, socket.SOCK_STREAM))
        sock.bind(path)
        opened.callback(os.unlink, path)
        born = os.lstat(path)
        sock.listen(_BACKLOG)
        listener = attrs.evolve(adopt(sock), file=(path, born))
        opened.pop_all()
    return listener


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on, and raise OSError if anything else is there."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        msg = "there is something that is no socket: remove it, or choose another path"
        raise OSError(msg)
    with socket.socket(_AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        code = probe.connect_ex(path)
    if code in (0, errno.EAGAIN, errno.EPROTOTYPE):  # welcome; a full backlog; datagrams
        msg = "someone is listening there: choose another path, or end that program"
        raise OSError(msg)
    if code not in (errno.ECONNREFUSED, errno.ENOENT):
        raise OSError(code, os.strerror(code))
    Path(path).unlink(missing_ok=True)


# Descriptors


def _open_fd(number: int) -> Listener:
    if "fd" in _MISSING:
        raise OSError(_MISSING["fd"])
    sock = socket.socket(fileno=number)
    try:
        return adopt(sock, foreign=True)
    except BaseException:
        sock.detach()  # it is something else, and not ours to close
        raise


# Ports


def write_port_file(path: str | os.PathLike[str], listeners: Iterable[Listener]) -> None:
    """Write the numbers of the TCP ports to a file, in decimal, one a line, each once.

    The file appears, or is replaced, at once and complete: whoever finds it can read it. Its mode
    is what umask leaves of 0666. Raises `ListenError`, and then the file is as it was.
    """
    path = Path(path)
    sockets = (each.socket for each in listeners)
    ports = dict.fromkeys(sock.getsockname()[1] for sock in sockets if sock.family in _INET)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        with temporary.open("x", encoding="ascii") as file:
            file.writelines(f"{port}\n" for port in ports)
        temporary.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            temporary.unlink()
        msg = f"cannot write the port file {path}: {_explain(exc)}"
        raise ListenError(msg) from exc
