"""A file that tells other programs the server's port."""

import contextlib
import secrets
import socket
from collections.abc import Iterable
from pathlib import Path

from greeter_trio._net.listeners import Listener, ListenError


def write_port_file(path: str, listeners: Iterable[Listener]) -> None:
    """Write the numbers of the TCP ports to a file, in decimal, one a line, each once.

    The file appears, or is replaced, at once and complete: a program that finds it can read it. Its
    mode is what umask leaves of 0666. Raises `ListenError`, and then the file is as it was.
    """
    file = Path(path)
    sockets = (each.socket for each in listeners)
    inet = (socket.AF_INET, socket.AF_INET6)
    ports = dict.fromkeys(sock.getsockname()[1] for sock in sockets if sock.family in inet)
    temporary = file.parent / f".{file.name}.{secrets.token_hex(4)}"
    try:
        with temporary.open("x", encoding="ascii") as new:
            new.writelines(f"{port}\n" for port in ports)
        temporary.replace(file)
    except OSError as exc:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ListenError(f"cannot write the port file {file}", exc) from exc
