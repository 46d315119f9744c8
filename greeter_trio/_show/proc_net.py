"""The state of connections that no descriptor belongs to any more (proc_pid_net(5))."""

import contextlib
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from greeter_trio._net.kernel import TCP_STATES

_FILES = ("/proc/net/tcp", "/proc/net/tcp6")

Address = tuple[str, int]


def tcp_state(local: Address, remote: Address) -> str | None:
    """Return the state of TCP at the local end of a connection; None if it is not known."""
    for name in _FILES:
        with contextlib.suppress(OSError), Path(name).open() as table:
            for connection, state in parse_table(table):
                if connection == (local, remote):
                    return state
    return None


def parse_table(lines: Iterable[str]) -> Iterator[tuple[tuple[Address, Address], str]]:
    """Yield the two addresses and the state of each connection in a table of the kernel's."""
    for line in lines:
        match line.split():
            case [number, local, remote, state, *_] if number.endswith(":"):
                addresses = _address(local), _address(remote)
                yield addresses, TCP_STATES.get(int(state, 16), state)


def _address(text: str) -> Address:
    """Return an address: words of 32 bits as this machine keeps them, and a port."""
    host, port = text.split(":")
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, packed), int(port, 16)
