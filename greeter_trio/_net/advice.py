"""What an error of the operating system means, and what to do about it."""

import errno
import socket
from collections.abc import Mapping

from .text import strerror

UNKNOWN_HOST = socket.EAI_NONAME
"""The key of the advice for every host that cannot be resolved."""

LISTENING: Mapping[int, str] = {
    UNKNOWN_HOST: "check the name of the host",
    errno.EACCES: "ports below 1024, and folders of other users, need privileges",
    errno.EADDRINUSE: "choose another port; one is shared only if every server sets SO_REUSEPORT",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.EBADF: "the process that starts the server must pass the descriptor",
    errno.ENOENT: "the folder must exist",
    errno.ENOTSOCK: "the descriptor must be a socket",
}
if not hasattr(socket, "SO_REUSEPORT"):  # pragma: no cover - Windows
    LISTENING = {
        **LISTENING,
        errno.EACCES: "the system keeps this port for something else: choose another port",
        errno.EADDRINUSE: "choose another port",
    }

LISTENING_UNIX: Mapping[int, str] = {
    errno.EACCES: "this user must be allowed to make files in the folder",
    errno.ENOENT: "the folder must exist",
    errno.EROFS: "choose a folder that can be written to",
}

CONNECTING: Mapping[int, str] = {
    UNKNOWN_HOST: "check the name of the host",
    errno.EADDRNOTAVAIL: "check the host",
    errno.ECONNREFUSED: "is the server running, and on this port?",
    errno.EHOSTUNREACH: "check the host",
    errno.ENETUNREACH: "check the host",
}

CONNECTING_UNIX: Mapping[int, str] = {
    errno.EACCES: "this user must be allowed to write to the socket",
    errno.ECONNREFUSED: "is the server running?",
    errno.ENOENT: "is the server running, and at this path?",
}


class EndpointError(OSError):
    """An endpoint cannot be used; the message says why, and what to do about it."""

    def __init__(
        self, what: str, why: BaseException | None = None, advice: Mapping[int, str] = LISTENING
    ) -> None:
        """`why` is the error below, from which this one is raised; without it `what` says all."""
        super().__init__(f"{what}: {explain(why, advice)}" if why else what)
        self.errno = _errno_of(why)
        self._what, self._why, self._advice = what, why, advice

    def with_advice(self, advice: Mapping[int, str]) -> str:
        """Return the message, with this advice in the place of that for the same error."""
        if self._why is None:
            return self._what
        return f"{self._what}: {explain(self._why, {**self._advice, **advice})}"


def _errno_of(exc: BaseException | None) -> int | None:
    """Return the number of an error, or of all errors of a group, if they have the same."""
    if isinstance(exc, BaseExceptionGroup):
        numbers = {_errno_of(each) for each in exc.exceptions}
        return numbers.pop() if len(numbers) == 1 else None
    return getattr(exc, "errno", None)


def explain(exc: BaseException, advice: Mapping[int, str]) -> str:
    """Return what went wrong, with the advice for it in parentheses.

    Of an exception group, each different error is named once: a host with several addresses fails
    once for each of them.
    """
    if isinstance(exc, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(explain(each, advice) for each in exc.exceptions))
    if isinstance(exc, (socket.gaierror, UnicodeError)):  # UnicodeError: not written like a host
        text, what_to_do = getattr(exc, "strerror", None) or str(exc), advice.get(UNKNOWN_HOST)
    else:
        number = getattr(exc, "errno", None) or 0
        text, what_to_do = strerror(number) if number else str(exc), advice.get(number)
    return f"{text} ({what_to_do})" if what_to_do else text
