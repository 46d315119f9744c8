"""Listeners that are open for a block, clients for them, and a resolver that knows one answer."""

import contextlib
import ctypes
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from typing import Any

import attrs
import pytest
import trio

from greeter_trio._net.endpoints import Endpoint
from greeter_trio._net.listeners import Listener, ListenError, open_listeners

from .descriptors import nothing_left_open


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


@contextlib.asynccontextmanager
async def listening(
    *endpoints: Endpoint, reuse_port: bool = False
) -> AsyncIterator[list[Listener]]:
    """Listen until the end of the block."""
    listeners = await open_listeners(endpoints, reuse_port=reuse_port)
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


async def listen_error(*endpoints: Endpoint, reuse_port: bool = False) -> str:
    """Fail to listen, and leave nothing open; return the message."""
    async with nothing_left_open():
        with pytest.raises(ListenError) as caught:
            await open_listeners(endpoints, reuse_port=reuse_port)
    return str(caught.value)


def dial(listener: Listener) -> socket.socket:
    """Connect to it; the kernel accepts on its behalf."""
    client = socket.socket(listener.socket.family)
    client.connect(listener.socket.getsockname())
    return client


def hold_handshakes(sock: socket.socket) -> None:
    """Have no client's handshake with this TCP listener come to its end (Linux).

    The kernel drops all segments but SYN, until the listener gets another filter. Then the next
    segment of a client, who knows nothing of it, ends the handshake.
    """
    instructions = [(0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0)]
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    buffer = ctypes.create_string_buffer(program)
    attach_filter = 26  # SO_ATTACH_FILTER
    fprog = struct.pack("HP", len(instructions), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, attach_filter, fprog)


def check_reachable(listener: Listener) -> None:
    """Check that a client that connects to its address can be accepted from it."""
    with dial(listener) as client:
        client.sendall(b"Ada")
        while True:
            accepted, _ = listener.socket.accept()
            with accepted:
                if accepted.recv(10) == b"Ada":
                    return  # the others were probes of a server that wanted the same address


@attrs.frozen
class Address:
    """What a name is resolved to; the port is the one that is asked for, if there is none here."""

    host: str
    port: int | None = None
    family: int = socket.AF_INET


@attrs.frozen
class _Resolver(trio.abc.HostnameResolver):
    answer: Sequence[str | Address | Exception]

    async def getaddrinfo(self, *args: Any, **_: Any) -> Any:
        if not self.answer:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        found, tcp = [], (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        for each in self.answer:
            if isinstance(each, Exception):
                raise each
            address = Address(each) if isinstance(each, str) else each
            found.append((address.family, *tcp, (address.host, address.port or args[1])))
        return found

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise NotImplementedError


def resolve(*answer: str | Address | Exception) -> None:
    """Have all names mean these addresses until the end of the test, or be refused.

    Without any the resolver never answers.
    """
    trio.socket.set_custom_hostname_resolver(_Resolver(answer))
