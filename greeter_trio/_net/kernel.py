"""What the kernel can be asked about a socket (ioctl(2))."""

import socket
import struct
import sys
from typing import Protocol

from .optional import optional

_fcntl, _termios = optional("fcntl"), optional("termios")

_MANY = 2**20  # bytes, more than a receive buffer usually holds


class Socket(Protocol):
    """A socket of the standard library's or of Trio's."""

    @property
    def family(self) -> int: ...
    def fileno(self) -> int: ...


def bytes_arrived(sock: Socket) -> int:
    """Return how many bytes can be read; a large number where the kernel cannot be asked."""
    return _ask(sock, "FIONREAD", _MANY)  # tcp(7), unix(7)


def is_in_flight(sock: Socket) -> bool:
    """Return whether the peer has not acknowledged all that was sent; False where unknown."""
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False  # what was sent to a Unix socket has arrived
    return _ask(sock, "TIOCOUTQ", 0) > 0  # SIOCOUTQ in tcp(7), by its other name


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
