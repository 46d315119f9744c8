"""What systemd passes and is told (`_systemd.py`); the tests play its part."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from greeter_trio._cli.systemd import activated, notify
from greeter_trio._net.listeners import ListenError, adopt

from .helpers import PATIENCE, nothing_left_open, open_descriptors

if sys.platform == "win32":
    pytest.skip("sockets cannot be passed there", allow_module_level=True)

import fcntl

ME = str(os.getpid())


def passed(*descriptors: int) -> int:
    """Move descriptors to numbers that follow each other, for child processes to inherit; return the first number."""
    first = fcntl.fcntl(descriptors[0], fcntl.F_DUPFD, 100)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, first + number)
        os.close(descriptor)
    return first


def listening() -> int:
    """Return the descriptor of a socket that listens."""
    return socket.create_server(("127.0.0.1", 0)).detach()


# Activation


async def test_sockets_are_passed() -> None:
    """The descriptors that were passed come as sockets, in order, not for child processes, and can be listened on."""
    async with nothing_left_open():
        first = passed(listening(), listening())
        environ = {"LISTEN_PID": ME, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "one:two", "HOME": "/"}
        assert os.get_inheritable(first)
        sockets = activated(first, environ)
        assert [sock.fileno() for sock in sockets] == [first, first + 1]
        assert environ == {"HOME": "/"}
        for sock in sockets:
            assert not sock.get_inheritable()
            listener = adopt(sock, foreign=True, kept=True)
            assert listener.foreign
            assert listener.kept
            listener.close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "greeter.socket"},
        {"LISTEN_PID": ME + "0", "LISTEN_FDS": "1"},
        {"LISTEN_PID": "", "LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": ME, "LISTEN_FDS": "0"},
    ],
)
def test_nothing_is_passed_to_us(environ: dict[str, str]) -> None:
    """Without sockets, or with those of another process, there are none, and nobody after us asks again."""
    first = passed(listening())
    assert activated(first, environ) == []
    assert not environ
    os.close(first)  # which is still open


@pytest.mark.parametrize("number", ["", "one", "-1", "1.5", "9999999999"])
def test_a_number_that_is_none(number: str) -> None:
    """A number of descriptors that is none is an error which shows it, also when it is missing."""
    environ = {"LISTEN_PID": ME, "LISTEN_FDS": number}
    with pytest.raises(
        ListenError, match=f"LISTEN_FDS must be the number of descriptors .*, not '{number}'"
    ):
        activated(3, environ)
    assert not environ


def test_what_is_passed_is_no_socket() -> None:
    """Where one of the descriptors is no socket, or is not open, that is an error, and no socket stays open."""
    for is_open in (True, False):
        before = open_descriptors()
        first = passed(listening(), os.open("/dev/null", os.O_RDONLY))
        if not is_open:
            os.close(first + 1)
        with pytest.raises(
            ListenError, match=rf"descriptor {first + 1} of 2 \(LISTEN_FDS\) must be a socket: "
        ):
            activated(first, {"LISTEN_PID": ME, "LISTEN_FDS": "2"})
        assert open_descriptors() == before + is_open
        if is_open:
            os.close(first + 1)


def test_a_process_that_is_activated() -> None:
    """A process that systemd has started finds its socket at descriptor 3, once."""
    script = """
import os, sys from greeter_trio._cli.systemd import activated os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1") print([sock.getsockname() for sock in
activated()], activated(), [name for name in os.environ if "LISTEN" in name])
os._exit(sys.stdout.flush() or 0)
"""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        shown = subprocess.run(
            [sys.executable, "-c", script, str(sock.fileno())],
            pass_fds=[sock.fileno()],
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=True,
        ).stdout
        assert shown == f"[{sock.getsockname()}] [] []\n"


# Notification


@pytest.fixture
def path() -> Iterator[str]:
    """Return a short path for a socket."""
    with tempfile.TemporaryDirectory(prefix="greeter-") as folder:
        yield str(Path(folder) / "notify")


def receiver(where: str) -> socket.socket:
    """Return the socket that systemd listens on; it does not wait."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(where)
    sock.settimeout(0)
    return sock


def test_systemd_is_told(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each state comes as one datagram, and nothing stays open."""
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with receiver(path) as systemd:
        before = open_descriptors()
        notify("READY=1")
        notify("RELOADING=1\nMONOTONIC_USEC=17")
        notify("STATUS=Zoë \udcff")
        assert open_descriptors() == before
        assert systemd.recv(100) == b"READY=1"
        assert systemd.recv(100) == b"RELOADING=1\nMONOTONIC_USEC=17"
        assert systemd.recv(100) == "STATUS=Zoë ?".encode()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """An @ at the beginning means an abstract socket, and only that one."""
    name = f"greeter-test-{os.getpid()}@home"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    with receiver(f"\0{name}") as systemd:
        notify("READY=1")
        assert systemd.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    "where", ["", None, "/nowhere/at/all", "@nobody", "/" + 200 * "x", "vsock:2:1234", "/dev/null"]
)
def test_nobody_wants_to_know(where: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody listens, or nobody ever said where, nothing is raised, and nothing stays open."""
    if where is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", where)
    before = open_descriptors()
    notify("READY=1")
    assert open_descriptors() == before


def test_systemd_is_busy(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be sent at once is not sent: a server never waits for this."""
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with receiver(path), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"READY=1", path)
        thread = threading.Thread(target=notify, args=["READY=1"], daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
