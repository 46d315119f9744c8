"""What systemd and a service tell each other: sockets that it has opened, and how it is doing."""

import contextlib
import os
import re
import socket
from collections.abc import MutableMapping

from greeter_trio._net.listeners import ListenError
from greeter_trio._net.text import shown

from .log import logger


def activated(
    first: int = 3, environ: MutableMapping[str, str] = os.environ
) -> list[socket.socket]:
    """Return the sockets that systemd has opened for this process (sd_listen_fds(3)), if any.

    They are the descriptors from `first` on, and become close-on-exec; `environ` says how many, and
    for which process. The variables are removed, so that no child process takes them for
    its own. Raises `ListenError` if what was passed is no socket, or is not there at all.
    """
    pid = environ.pop("LISTEN_PID", "")
    number = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()):
        if pid:
            logger.warning(
                "The sockets that were passed are for process %s (LISTEN_PID), and this one is %d: "
                "they are left alone (a wrapper must end with `exec`)",
                shown(pid[:100]),
                os.getpid(),
            )
        return []
    if not re.fullmatch("[0-9]{1,9}", number):
        raise ListenError(
            f"LISTEN_FDS must be the number of descriptors that were passed, not {number!r}"
        )
    sockets = []
    with contextlib.ExitStack() as opened:
        for fd in range(first, first + int(number)):
            try:
                sock = opened.enter_context(socket.socket(fileno=fd))
            except OSError as exc:
                raise ListenError(
                    f"descriptor {fd} of {number} (LISTEN_FDS) must be a socket: {exc.strerror}"
                ) from exc
            sock.set_inheritable(False)
            sockets.append(sock)
        opened.pop_all()
    return sockets


def notify(state: str) -> None:
    r"""Tell systemd how the service is doing, if systemd asks for that (sd_notify(3)).

    `state` is `READY=1`, `STOPPING=1` or `RELOADING=1\nMONOTONIC_USEC=...`. Nothing is raised,
    nothing waits, and what cannot be sent at once is dropped.
    """
    where = os.environ.get("NOTIFY_SOCKET")
    if not where or not hasattr(socket, "AF_UNIX"):
        return
    if where.startswith("@"):
        where = "\0" + where[1:]  # an abstract socket (unix(7))
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)  # noqa: FBT003 - it has no name
        sock.sendto(state.encode(errors="replace"), where)
