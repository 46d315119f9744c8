"""Accepting connections, whatever goes wrong with one of them or with this machine.

`accept` reports three kinds of errors (accept(2)), and each has its own answer:

* *The connection is broken.* It was reset before it was accepted, or Linux passes on a network
  error that is already pending on it. The next connection may be fine.
* *The machine lacks something*: descriptors, memory. That passes, so `accept` is tried again soon,
  with a warning, but not one for each attempt. Errors that are in no list are taken for this kind.
* *The call is wrong.* That is a bug, and is raised.
"""

import errno
import socket
from collections.abc import Callable
from typing import Any, NoReturn, Protocol, TypeAlias

import trio

from .listeners import Listener
from .notices import Notice

PAUSE = 0.1  # seconds before the next attempt
_HANDSHAKE = 3.0  # seconds: enough where SYN-ACK or the answer to it is lost once (RFC 6298)
_TICK = 0.05  # seconds between two looks at the handshakes; each walks over the kernel's table
_BURST = 16  # connections to accept before other tasks run

_BROKEN = {
    getattr(errno, name, None)  # no platform has all of them
    for name in (
        "ECONNABORTED",
        "ECONNRESET",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETUNREACH",
        "ENONET",
        "ENOPROTOOPT",
        "ENOSR",
        "EOPNOTSUPP",
        "EPERM",  # a firewall of Linux
        "EPROTO",
        "EPROTONOSUPPORT",
        "ESOCKTNOSUPPORT",
        "ETIMEDOUT",
    )
} - {None}
_BUGS = {errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK}

OnAccepted: TypeAlias = Callable[[socket.socket, Any, Listener], None]
"""Called with each connection: its socket, the peer's address, and the listener."""


class Places(Protocol):
    """How many connections may be open at the same time."""

    def may_accept(self) -> bool:
        """Return whether one more connection may be accepted."""

    def note_client(self) -> None:
        """Take note that a client has come, who may have to wait."""

    async def wait_for_place(self) -> None:
        """Wait until that is so."""


class Acceptor:
    """Accepts connections from one listener, as there are places for them."""

    def __init__(
        self,
        listener: Listener,
        on_accepted: OnAccepted,
        places: Places,
        failures: Notice,
    ) -> None:
        self._listener = listener
        self._on_accepted = on_accepted
        self._places = places
        self._failures = failures

    async def run(self) -> NoReturn:
        """Accept until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._listener.socket)
            self._places.note_client()
            await self._accept_some()

    async def finish(self) -> None:
        """Accept all connections that wait in the backlog, and close the listener.

        A connection that is still in the backlog when its listener is closed is reset. So there is
        no `await` between the last attempt, which finds none, and the close. (A listener of systemd
        stays open there, and its backlog is for the next server.)

        A client whose handshake is under way would be reset, too, so those that are found here are
        accepted first, but none is waited for longer than 3 seconds. Clients that come later are
        not: where servers share a port, that would never end.
        """
        try:
            if not self._listener.kept:
                await self._accept_the_rest()
        finally:
            self._listener.close()

    async def _accept_the_rest(self) -> None:
        give_up_at = trio.current_time() + _HANDSHAKE
        under_way = self._listener.handshakes()
        while True:
            # A handshake that is over when they are looked at has its connection in the backlog:
            # to look after the last accept would miss those that end in between.
            while await self._accept_some():
                pass
            if not under_way or trio.current_time() >= give_up_at:
                return
            await trio.sleep(_TICK)
            under_way &= self._listener.handshakes()

    async def _accept_some(self) -> bool:
        """Accept connections, when there is a place; return whether there may be more."""
        await self._places.wait_for_place()
        try:
            for _ in range(_BURST):
                if not self._places.may_accept():
                    break
                if not self._accept():
                    return False
        except OSError as exc:
            if exc.errno in _BUGS:
                raise
            where = self._listener.name
            self._failures.give(f"Cannot accept connections on {where}: {exc.strerror}")
            await trio.sleep(PAUSE)
        return True

    def _accept(self) -> bool:
        """Accept one connection, if there is one; return whether there may be more."""
        try:
            sock, peer = self._listener.socket.accept()
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno not in _BROKEN:
                raise
            return True
        self._on_accepted(sock, peer, self._listener)
        return True
