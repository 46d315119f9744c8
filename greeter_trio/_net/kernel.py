"""What the kernel can be asked about a socket (ioctl(2))."""

import socket
import struct
import sys
from typing import Protocol

import attrs

from .optional import optional

_fcntl, _termios = optional("fcntl"), optional("termios")

_MANY = 2**20  # bytes, more than a receive buffer usually holds


TCP_STATES = {
    1: "ESTABLISHED",
    2: "SYN_SENT",
    3: "SYN_RECV",
    4: "FIN_WAIT1",
    5: "FIN_WAIT2",
    6: "TIME_WAIT",
    7: "CLOSE",
    8: "CLOSE_WAIT",
    9: "LAST_ACK",
    10: "LISTEN",
    11: "CLOSING",
}
"""The states of TCP (RFC 9293, 3.3.2), as Linux numbers and names them."""

_TCP_INFO = getattr(socket, "TCP_INFO", None)  # only Linux has it
_FORMAT = struct.Struct("=B67xI")  # what is read of it: the state, and the round-trip time


@attrs.frozen
class TcpInfo:
    """What the kernel knows of a TCP connection (TCP_INFO in tcp(7))."""

    state: str
    rtt: float
    """The smoothed round-trip time, in seconds."""


class Socket(Protocol):
    """A socket of the standard library's or of Trio's."""

    @property
    def family(self) -> int: ...
    def fileno(self) -> int: ...


class TcpSocket(Socket, Protocol):
    """One that tells its options."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def bytes_arrived(sock: Socket) -> int:
    """Return how many bytes can be read; a large number where the kernel cannot be asked."""
    return _ask(sock, "FIONREAD", _MANY)  # tcp(7), unix(7)


def is_in_flight(sock: Socket) -> bool:
    """Return whether the peer has not acknowledged all that was sent; False where unknown."""
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False  # what was sent to a Unix socket has arrived
    return _ask(sock, "TIOCOUTQ", 0) > 0  # SIOCOUTQ in tcp(7), by its other name


def tcp_info(sock: TcpSocket) -> TcpInfo | None:
    """Return what the kernel knows of a TCP connection; None where it cannot be asked."""
    if _TCP_INFO is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        answer = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _FORMAT.size)
    except OSError:  # it is closed
        return None
    state, rtt = _FORMAT.unpack(answer)
    return TcpInfo(TCP_STATES[state], rtt / 1e6)


def _ask(sock: Socket, request: str, unknown: int) -> int:
    if not (_fcntl and _termios):
        return unknown
    if sock.fileno() < 0:
        return 0  # it is closed
    try:
        answer = _fcntl.ioctl(sock.fileno(), getattr(_termios, request), bytes(4))
    except OSError:
        return unknown
    (number,) = struct.unpack("i", answer)
    return int(number)
