"""Accepting connections, whatever happens to them or to us.

`accept` may report three kinds of errors (accept(2)), and each is answered in its own way:

* *Something is wrong with that connection.* It was reset before it was accepted, or Linux passes on
  a network error that is already pending on it. The next one may be fine.
* *Something is wrong with the machine*: no descriptor, no memory. That passes, so try again soon,
  and say so, but not each time. Errors that nobody has thought of are taken for this kind.
* *Something is wrong with our call.* That is a bug, and comes out.
"""

import errno
import math
import socket
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeAlias

import trio

from greeter_trio._service.log import logger

from .listeners import Listener
from .text import counted

PAUSE = 0.1  # seconds before the next attempt
_BURST = 16  # connections to accept before it is other tasks' turn

_THEIRS = {
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
_OURS = {errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK}

Take: TypeAlias = Callable[[socket.socket, Any, Listener], None]
"""What is done with a connection: its socket, the peer's address, and who accepted it."""


class Troubles:
    """How often accepting has failed, and when that was told."""

    def __init__(self) -> None:
        self.count = 0
        self._told_at = -math.inf

    def note(self, where: str, exc: OSError) -> None:
        """Count, and say so in the log, once a second at most."""
        self.count += 1
        now = trio.current_time()
        if now >= self._told_at + 1:
            self._told_at = now
            failures = counted(self.count, "failure")
            logger.warning(
                "Cannot accept connections on %s: %s; trying again (%s so far)",
                where,
                exc.strerror,
                failures,
            )


class Acceptor:
    """Accepts connections from one listener, and hands them to `take`, when `wait_for_place` returns."""

    def __init__(
        self,
        listener: Listener,
        take: Take,
        has_place: Callable[[], bool],
        wait_for_place: Callable[[], Awaitable[None]],
        troubles: Troubles,
    ) -> None:
        self._listener = listener
        self._take = take
        self._has_place = has_place
        self._wait_for_place = wait_for_place
        self._troubles = troubles

    async def run(self) -> NoReturn:
        """Accept until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._listener.socket)
            await self._accept_some()

    async def finish(self) -> None:
        """Accept all connections that wait in the backlog, and close the listener.

        Whoever is still in the backlog when a listener is closed is reset. So there is no `await`
        between the last attempt, which finds nobody, and the close. (A listener of systemd stays
        open there, and its backlog is for the next server.)
        """
        try:
            while not self._listener.kept and await self._accept_some():
                pass
        finally:
            self._listener.close()

    async def _accept_some(self) -> bool:
        """Accept connections, when there is a place; return whether there may be more."""
        await self._wait_for_place()
        try:
            for _ in range(_BURST):
                if not self._has_place():
                    break
                if not self._accept():
                    return False
        except OSError as exc:
            if exc.errno in _OURS:
                raise
            self._troubles.note(self._listener.name, exc)
            await trio.sleep(PAUSE)
        return True

    def _accept(self) -> bool:
        """Accept one connection, if there is one; return whether there may be more."""
        try:
            sock, peer = self._listener.socket.accept()
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno not in _THEIRS:
                raise
            return True
        self._take(sock, peer, self._listener)
        return True
