"""What the kernel tells about a socket, and what the platform lacks."""

import os
import socket
import sys
from types import SimpleNamespace

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from greeter_trio._net import kernel
from greeter_trio._net.kernel import TcpInfo, bytes_arrived, is_in_flight, tcp_info
from greeter_trio._net.optional import optional
from tests.support.certificates import Authority
from tests.support.streams import tcp_pair
from tests.support.transports import ALL, BLOCK, PATTERN, Pair, kinds

MUCH = 6 * 2**17  # bytes: more may have arrived where the kernel cannot be asked


@pytest.mark.skipif(sys.platform == "win32", reason="the kernel cannot be asked")
@kinds("TCP", "Unix", "TCP-borrowed")
async def test_bytes_that_have_arrived_are_counted(pair: Pair) -> None:
    """FIONREAD, for sockets of the standard library and of Trio."""
    assert pair.sock
    assert bytes_arrived(pair.sock) == 0
    await pair.peer.say(b"Ada")
    await pair.peer.say(b"Grace")
    assert bytes_arrived(pair.sock) == 8
    assert await pair.transport.receive() == b"AdaGrace"
    assert bytes_arrived(pair.sock) == 0
    await pair.peer.say(PATTERN[:BLOCK])
    assert bytes_arrived(pair.sock) == BLOCK


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is acknowledged")
@kinds("TCP", "TCP-edges", "TCP-borrowed", "TLS-TCP")
async def test_what_the_peer_has_no_room_for_is_in_flight(pair: Pair) -> None:
    """SIOCOUTQ; transports tell it, through TLS, too."""

    async def settle() -> None:  # the kernel takes up to 40 ms to acknowledge
        while pair.transport.is_in_flight():
            await wait_all_tasks_blocked(0.001)

    await settle()  # after the handshake of TLS
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair.send, PATTERN * 8)  # more than the buffers of both sides hold
        await wait_all_tasks_blocked()
        assert pair.transport.is_in_flight() is True
        heard = 0
        while heard < 8 * len(PATTERN):
            heard += len(await pair.peer.stream.receive_some(2**20))
    await settle()


@kinds(*(name for name in ALL if "TCP" not in name))
async def test_elsewhere_nothing_is_in_flight(pair: Pair, nursery: trio.Nursery) -> None:
    """What was sent to a Unix socket has arrived, though not read; other streams cannot tell."""
    nursery.start_soon(pair.send, PATTERN)
    await wait_all_tasks_blocked()
    assert pair.transport.is_in_flight() is False


async def test_where_the_platform_is_another_one_nothing_is_in_flight(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the request means something else, and is not made."""
    async with ALL["TCP-borrowed"](authority) as pair:
        pair.fill()
        monkeypatch.setattr(kernel, "sys", SimpleNamespace(platform="darwin"))
        assert pair.transport.is_in_flight() is False


@pytest.mark.parametrize("module", ["_fcntl", "_termios"])
async def test_where_there_is_no_ioctl_much_may_have_arrived(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    ours, theirs = tcp_pair()
    async with ours, theirs:
        monkeypatch.setattr(kernel, module, None)
        assert bytes_arrived(ours.socket) > MUCH
        assert is_in_flight(ours.socket) is False


@attrs.frozen
class Descriptor:
    number: int
    family: int = socket.AF_INET

    def fileno(self) -> int:
        return self.number


def test_of_what_cannot_be_asked_much_may_have_arrived() -> None:
    with open(os.devnull, "rb") as strange:  # noqa: PTH123 - it is not read
        assert bytes_arrived(Descriptor(strange.fileno())) > MUCH
        assert is_in_flight(Descriptor(strange.fileno())) is False


def test_of_a_closed_socket_nothing_has_arrived() -> None:
    assert bytes_arrived(Descriptor(-1)) == 0
    assert is_in_flight(Descriptor(-1)) is False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_state_of_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert tcp_info(listener) == TcpInfo("LISTEN", 0.0)
        with socket.create_connection(listener.getsockname()) as client:
            server, _ = listener.accept()
            with server:
                info = tcp_info(client)
                assert info
                assert info.state == "ESTABLISHED"
                assert 0 < info.rtt < 1
                server.shutdown(socket.SHUT_WR)
                assert client.recv(1) == b""
                closing = tcp_info(client), tcp_info(server)
                states = [each.state for each in closing if each]
                # The acknowledgment of a FIN may be delayed.
                assert states in (["CLOSE_WAIT", "FIN_WAIT1"], ["CLOSE_WAIT", "FIN_WAIT2"])
    assert tcp_info(client) is None


def test_state_of_what_is_not_tcp(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        assert tcp_info(udp) is None
        monkeypatch.setattr(kernel, "_TCP_INFO", None)
        assert tcp_info(udp) is None


def test_a_module_that_the_platform_lacks_is_none() -> None:
    assert optional("socket") is socket
    assert optional("no_such_module") is None
