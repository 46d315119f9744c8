"""The kernel's tables of TCP connections (proc_pid_net(5)): what no descriptor can be asked.

They are those of the process's network namespace, and only Linux has them.
"""

import contextlib
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from .kernel import TCP_STATES

# /proc/net is a link to /proc/self/net, and is missing where only processes are to be seen
# (subset=pid in proc(5), ProcSubset=pid in systemd.exec(5)).
_FILES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")

Peer = tuple[str, int]
"""The address of one end of a connection: host and port."""


def tcp_state(local: Peer, remote: Peer) -> str | None:
    """Return the state of TCP at the local end of a connection; None if it is not known.

    It is known also when the socket is closed: nothing else tells of TIME_WAIT.
    """
    for name in _FILES:
        with contextlib.suppress(OSError), Path(name).open() as table:
            for connection, state in parse_table(table):
                if connection == (local, remote):
                    return state
    return None


def handshakes(port: int) -> set[Peer]:
    """Return the clients that are connecting to this port; an empty set if it is not known.

    Their SYN was answered, and the last segment of the handshake has not come.
    """
    found: set[Peer] = set()
    for name in _FILES:
        with contextlib.suppress(OSError), Path(name).open() as table:
            # With 20,000 connections this takes 45 ms; to parse all lines would take 130.
            lines = (line for line in table if " 03 " in line)
            for ((_, local_port), remote), state in parse_table(lines):
                if local_port == port and state == "SYN_RECV":
                    found.add(remote)
    return found


def parse_table(lines: Iterable[str]) -> Iterator[tuple[tuple[Peer, Peer], str]]:
    """Yield the two addresses and the state of each connection in a table of the kernel's."""
    for line in lines:
        match line.split():
            case [number, local, remote, state, *_] if number.endswith(":"):
                addresses = _address(local), _address(remote)
                yield addresses, TCP_STATES.get(int(state, 16), state)


def _address(text: str) -> Peer:
    """Return an address: words of 32 bits as this machine keeps them, and a port."""
    host, port = text.split(":")
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, packed), int(port, 16)
