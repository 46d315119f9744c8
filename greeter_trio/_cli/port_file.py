"""A file that tells other programs the server's port."""

import socket
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import trio

from greeter_trio._net.listeners import Listener, ListenError
from greeter_trio._net.text import shown
from greeter_trio._show.files import is_replaceable, replace_file

from .log import logger


def write_port_file(
    path: str, listeners: Iterable[Listener]
) -> Callable[[], Awaitable[None]] | None:
    """Write the numbers of the TCP ports to a file, in decimal, one a line, each once.

    A regular file appears, or is replaced, at once and complete: a program that finds it can read
    it. Its mode is what umask leaves of 0666. Raises `ListenError`, and then it is as it was.
    Anything else, such as a FIFO, may have no reader yet: what is returned writes into it, and is
    for a task of its own.
    """
    sockets = (each.socket for each in listeners)
    inet = (socket.AF_INET, socket.AF_INET6)
    ports = dict.fromkeys(sock.getsockname()[1] for sock in sockets if sock.family in inet)
    data = "".join(f"{port}\n" for port in ports).encode()
    try:
        if not is_replaceable(path):
            return partial(_write_into, path, data)
        replace_file(path, data)
    except OSError as exc:
        raise ListenError(f"cannot write the port file {shown(path)}", exc) from exc
    return None


async def _write_into(path: str, data: bytes) -> None:
    try:
        await trio.to_thread.run_sync(replace_file, path, data, abandon_on_cancel=True)
    except (OSError, RuntimeError) as exc:  # the latter: the system allows no thread more
        why = getattr(exc, "strerror", None) or exc
        logger.warning("Cannot write the port file %s: %s", shown(path), why)
