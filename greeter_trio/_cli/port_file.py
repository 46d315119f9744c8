"""A file that tells other programs the server's port."""

import socket
from collections.abc import Iterable
from pathlib import Path

from greeter_trio._net.listeners import Listener, ListenError
from greeter_trio._show.files import replace_file


def write_port_file(path: str, listeners: Iterable[Listener]) -> None:
    """Write the numbers of the TCP ports to a file, in decimal, one a line, each once.

    The file appears, or is replaced, at once and complete: a program that finds it can read it. Its
    mode is what umask leaves of 0666. Raises `ListenError`, and then the file is as it was.
    """
    sockets = (each.socket for each in listeners)
    inet = (socket.AF_INET, socket.AF_INET6)
    ports = dict.fromkeys(sock.getsockname()[1] for sock in sockets if sock.family in inet)
    try:
        replace_file(path, "".join(f"{port}\n" for port in ports).encode())
    except OSError as exc:
        raise ListenError(f"cannot write the port file {Path(path)}", exc) from exc
