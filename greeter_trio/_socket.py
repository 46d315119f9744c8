"""The shortest way to the kernel and back.

`trio.SocketStream` checks and guards more than the driver needs, and looks for bytes right after sending, when none can
be there. Receiving through it costs about 10 µs more CPU for a greeting, of 15 (50 clients in ping-pong on loopback).
So these functions go past it where nothing has to wait, with `os.read` and `os.write`, because Trio's sockets have no
public call that never waits. The waiting is left to it, and other kinds of streams are left alone.

What is lost is its guard against two tasks that use one stream at the same time; the driver is one.
"""

import fcntl
import os
import select
import struct
import termios

import trio

from ._tls import TLSStream

_SIZE = 16384  # bytes to receive at once; what a peer that never reads can make a server keep is up to 17 times as much
_POLLRDHUP = getattr(select, "POLLRDHUP", 0)  # Linux only


async def receive_some(stream: trio.abc.ReceiveStream) -> bytes | bytearray:
    """Do what `stream.receive_some` does, but let other tasks go first.

    Where many connections are busy, the next bytes have come when it is this task's turn again. Then the kernel need
    not be asked to tell when they come, which costs more than to receive them. (Where they have not, the first attempt
    is in vain, which costs about 1 µs.) Raises `trio.BrokenResourceError` or `trio.ClosedResourceError`.
    """
    if not isinstance(stream, trio.SocketStream):
        return await stream.receive_some()
    await trio.lowlevel.checkpoint()
    while True:
        try:
            return os.read(stream.socket.fileno(), _SIZE)
        except BlockingIOError:
            pass  # not to wait in here: the exception would live on for as long, and take half a KiB
        except OSError as exc:
            raise trio.BrokenResourceError(str(exc)) from exc
        await trio.lowlevel.wait_readable(stream.socket)


def send_at_once(stream: trio.abc.SendStream, data: bytes) -> bytes:
    """Send what goes without waiting, and return the rest. Raises `trio.BrokenResourceError`."""
    if not isinstance(stream, trio.SocketStream):
        return data  # nobody knows
    try:
        return data[os.write(stream.socket.fileno(), data) :]
    except BlockingIOError:
        return data
    except OSError as exc:
        raise trio.BrokenResourceError(str(exc)) from exc


async def send_eof(stream: trio.abc.HalfCloseableStream) -> None:
    """Do what `stream.send_eof` does, but let other tasks wait. Raises `trio.BrokenResourceError`."""
    if not isinstance(stream, trio.SocketStream):
        await stream.send_eof()
        return
    try:
        stream.socket.shutdown(trio.socket.SHUT_WR)
    except OSError as exc:
        raise trio.BrokenResourceError(str(exc)) from exc


def arrived(stream: trio.abc.ReceiveStream) -> int:
    """Return how many bytes have arrived that were not received, and one more if the end of the stream has.

    For a socket that is exact (FIONREAD in tcp(7), POLLRDHUP in poll(2)). For TLS it is more than will be received, but
    0 if there is nothing. Other streams do not tell: for them it is a guess.
    """
    if isinstance(stream, TLSStream):
        return stream.unread + arrived(stream.transport_stream)
    if not isinstance(stream, trio.SocketStream):
        return _SIZE
    fd = stream.socket.fileno()
    if fd < 0:
        return 0  # it is closed
    (size,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
    poll = select.poll()
    poll.register(fd, _POLLRDHUP)
    return int(size) + len(poll.poll(0))
