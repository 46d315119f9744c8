"""Accepting connections, whatever happens to them or to us.

`accept` may report three kinds of errors (accept(2)), and each is answered in its own way:

* *Something is wrong with that connection.* It was reset before it was accepted, or Linux passes on a network error
  that is already pending on it. The next one may be fine.
* *Something is wrong with the machine*: no descriptor, no memory. That passes, so try again soon, and say so, but not
  each time. Errors that nobody has thought of are taken for this kind.
* *Something is wrong with our call.* That is a bug, and comes out.
"""

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeAlias

import trio

from ._listen import Listener
from ._log import logger
from ._text import counted

PAUSE = 0.1  # seconds before the next attempt
_BURST = 16  # connections to accept before it is other tasks' turn
_MOST = 65535  # connections that a backlog can hold

_THEIRS = {
    errno.ECONNABORTED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOPROTOOPT,
    errno.EOPNOTSUPP,
    errno.EPERM,  # a firewall of Linux
    errno.EPROTO,
    errno.EPROTONOSUPPORT,
    errno.ESOCKTNOSUPPORT,
    errno.ETIMEDOUT,
    getattr(errno, "ENONET", errno.EPROTO),  # Linux only
    getattr(errno, "ENOSR", errno.EPROTO),  # not everywhere
}
_OURS = {errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK}

Take: TypeAlias = Callable[[socket.socket, Any, Listener], None]
"""What is done with a connection: its socket, the peer's address, and who accepted it."""


class Acceptor:
    """Accepts connections from one listener, and hands them to `take`, when `wait_for_place` returns."""

    def __init__(
        self,
        listener: Listener,
        take: Take,
        has_place: Callable[[], bool],
        wait_for_place: Callable[[], Awaitable[None]],
    ) -> None:
        self._listener = listener
        self._take = take
        self._has_place = has_place
        self._wait_for_place = wait_for_place
        self.failures = 0
        """How many attempts have failed."""
        self._told_at = -1.0

    async def run(self) -> NoReturn:
        """Accept until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._listener.socket)
            await self._wait_for_place()
            try:
                for _ in range(_BURST):
                    if not (self._has_place() and self._accept()):
                        break
            except OSError as exc:
                if exc.errno in _OURS:
                    raise
                self._fail(exc)
                await trio.sleep(PAUSE)

    def finish(self) -> None:
        """Accept all connections that wait in the backlog, and close the listener.

        Whoever is still in the backlog when a listener is closed is reset. So nobody must get in there between the last
        accept and the close: there is no `await` in between, and first of all the way in is closed. (A listener that
        was passed to us stays open elsewhere, and its backlog is for the next server.)
        """
        self._listener.close_entrance()
        try:
            if not self._listener.inherited:
                for _ in range(_MOST):
                    if not self._accept():
                        break
        except OSError as exc:
            self.failures += 1
            logger.warning("Cannot accept who still waits on %s: %s", self._listener.name, exc.strerror)
        finally:
            self._listener.close()

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

    def _fail(self, exc: OSError) -> None:
        self.failures += 1
        now = trio.current_time()
        if now >= self._told_at + 1:
            self._told_at = now
            logger.warning(
                "Cannot accept connections on %s: %s; trying again (%s so far)",
                self._listener.name,
                exc.strerror,
                counted(self.failures, "failure"),
            )
