"""What systemd passes to a service and is told by it; the tests play its part."""

import contextlib
import os
import re
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator

import pytest

from greeter_trio._cli.systemd import activated, notify
from greeter_trio._net.listeners import ListenError
from tests.support.descriptors import nothing_left_open, open_descriptors
from tests.support.processes import PATIENCE

if sys.platform == "win32":
    pytest.skip("sockets cannot be passed there", allow_module_level=True)

import fcntl

ME = str(os.getpid())


def passed(*descriptors: int) -> int:
    """Move descriptors to numbers that follow each other, and return the first of these."""
    first = fcntl.fcntl(descriptors[0], fcntl.F_DUPFD, 100)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, first + number)
        os.close(descriptor)
    return first


def listening() -> int:
    return socket.create_server(("127.0.0.1", 0)).detach()


async def test_sockets_are_passed() -> None:
    """The descriptors come as sockets, in order, and not for child processes."""
    async with nothing_left_open():
        first = passed(listening(), listening())
        environ = {"LISTEN_PID": ME, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "one:two", "HOME": "/"}
        assert os.get_inheritable(first)
        sockets = activated(first, environ)
        assert [sock.fileno() for sock in sockets] == [first, first + 1]
        assert environ == {"HOME": "/"}
        for sock in sockets:
            assert not sock.get_inheritable()
            sock.close()


@pytest.mark.parametrize(
    ("process", "number"),
    [("1", "1"), (f"{ME}0", "1"), ("", "1"), (None, "1"), (ME, "0"), (None, None)],
)
def test_no_sockets_for_this_process(process: str | None, number: str | None) -> None:
    """Without sockets, or with those of another process, there are none; no child asks again."""
    given = {"LISTEN_PID": process, "LISTEN_FDS": number, "LISTEN_FDNAMES": "one"}
    environ = {name: value for name, value in given.items() if value is not None}
    first = passed(listening())
    assert activated(first, environ) == []
    assert not environ
    os.close(first)  # which is still open


@pytest.mark.parametrize("number", ["", "one", "-1", "1.5", "9999999999"])
def test_wrong_number(number: str) -> None:
    environ = {"LISTEN_PID": ME, "LISTEN_FDS": number}
    message = f"LISTEN_FDS must be the number of descriptors that were passed, not {number!r}"
    with pytest.raises(ListenError, match=re.escape(message)):
        activated(3, environ)
    assert not environ


@pytest.mark.parametrize("is_open", [True, False])
def test_descriptor_that_is_no_socket(*, is_open: bool) -> None:
    """Where one of the descriptors is no socket, or is not open, no socket stays open."""
    before = open_descriptors()
    first = passed(listening(), os.open("/dev/null", os.O_RDONLY))
    if not is_open:
        os.close(first + 1)
    message = rf"descriptor {first + 1} of 2 \(LISTEN_FDS\) must be a socket: "
    with pytest.raises(ListenError, match=message):
        activated(first, {"LISTEN_PID": ME, "LISTEN_FDS": "2"})
    assert open_descriptors() == before + is_open
    if is_open:
        os.close(first + 1)


@pytest.fixture(params=["path", "abstract"])
def systemd(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """Return the socket on which systemd wants to be told; it waits for nothing."""
    with (
        tempfile.TemporaryDirectory(prefix="greeter-") as folder,  # a short path
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        where = address = f"{folder}/notify"
        if request.param == "abstract":  # unix(7)
            if sys.platform != "linux":
                pytest.skip("only Linux has abstract sockets")
            where, address = f"@{folder}@home", f"\0{folder}@home"
        sock.bind(address)
        sock.settimeout(0)
        monkeypatch.setenv("NOTIFY_SOCKET", where)
        yield sock


def test_systemd_is_told(systemd: socket.socket) -> None:
    """Each state comes as one datagram, and nothing stays open."""
    before = open_descriptors()
    notify("READY=1")
    notify("RELOADING=1\nMONOTONIC_USEC=17")
    notify("STATUS=Zoë \udcff")
    assert open_descriptors() == before
    told = [systemd.recv(100) for _ in range(3)]
    assert told == [b"READY=1", b"RELOADING=1\nMONOTONIC_USEC=17", "STATUS=Zoë ?".encode()]


@pytest.mark.parametrize(
    "where", ["", None, "/nowhere/at/all", "@nobody", "/" + 200 * "x", "vsock:2:1234", "/dev/null"]
)
def test_systemd_does_not_listen(where: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is raised, and nothing stays open."""
    monkeypatch.setenv("NOTIFY_SOCKET", where or "")
    if where is None:
        monkeypatch.delenv("NOTIFY_SOCKET")
    before = open_descriptors()
    notify("READY=1")
    assert open_descriptors() == before


def test_systemd_is_busy(systemd: socket.socket) -> None:
    """What cannot be sent at once is not sent: a server never waits for this."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"READY=1", systemd.getsockname())
        thread = threading.Thread(target=notify, args=["READY=1"], daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
