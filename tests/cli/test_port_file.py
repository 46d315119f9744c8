"""The port file: complete, or not there at all."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from greeter_trio._cli import port_file
from greeter_trio._cli.port_file import write_port_file
from greeter_trio._net.endpoints import AF_UNIX
from greeter_trio._net.listeners import Listener, ListenError, adopt
from tests.support.descriptors import open_descriptors
from tests.support.logs import Log
from tests.support.peers import tcp_port

_os: Any = os  # Windows has no FIFOs


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def listeners() -> Iterator[list[Listener]]:
    one, other = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    with one, other, socket.socket(AF_UNIX or socket.AF_INET) as third:
        third.bind("unix" if AF_UNIX else ("127.0.0.1", 0))
        third.listen()
        Path("unix").unlink(missing_ok=True)
        yield [adopt(sock) for sock in (one, third, other, one) if AF_UNIX or sock is not third]


async def write(listeners: list[Listener], path: str = "port") -> None:
    write_later = write_port_file(path, listeners)
    if write_later:
        await write_later()


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0, 0o666)])
async def test_each_tcp_port_is_written_once(
    listeners: list[Listener], folder: Path, umask: int, mode: int
) -> None:
    """The mode is what umask leaves of 0666; Unix sockets have no port."""
    old = os.umask(umask)
    await write(listeners)
    os.umask(old)
    ports = dict.fromkeys(tcp_port(each) for each in listeners if each.socket.family != AF_UNIX)
    assert Path("port").read_bytes() == b"%d\n%d\n" % tuple(ports)
    assert stat.S_IMODE(Path("port").stat().st_mode) == mode
    assert list(folder.iterdir()) == [folder / "port"]


async def test_the_file_is_replaced_at_once(listeners: list[Listener]) -> None:
    """A program that has opened the file of the server before reads what that one wrote."""
    Path("port").write_text("the old one\n")
    with Path("port").open() as opened_before:
        await write(listeners[:1])
        assert opened_before.read() == "the old one\n"
    assert Path("port").read_text() == f"{tcp_port(listeners[0])}\n"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("folder", ""),
        ("x" * 300, "File name too long"),
        ("folder/no/port", "No such file or directory (the folder must exist)"),
    ],
)
async def test_a_file_that_cannot_be_written(folder: Path, path: str, why: str) -> None:
    """Nothing is left behind."""
    Path("folder").mkdir()
    before = open_descriptors()
    with pytest.raises(ListenError) as caught:
        await write([], path)
    assert str(caught.value).startswith(f"cannot write the port file {path}: {why}")
    assert open_descriptors() == before
    assert list(folder.rglob("*")) == [folder / "folder"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs")
async def test_a_fifo_is_written_into(listeners: list[Listener]) -> None:
    """Its reader may come later, and is not waited for."""
    _os.mkfifo("port")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, listeners[:1])
        read = await trio.to_thread.run_sync(Path("port").read_text)
    assert read == f"{tcp_port(listeners[0])}\n"
    assert Path("port").is_fifo()


async def test_a_fifo_that_cannot_be_written_is_logged(
    listeners: list[Listener], log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    _os.mkfifo("port")

    def fail(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(port_file, "replace_file", fail)
    await write(listeners)
    assert log.lines == ["Cannot write the port file port: Permission denied"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="there is no such folder")
async def test_a_descriptor_is_not_replaced(listeners: list[Listener]) -> None:
    """`--port-file /dev/stdout >> log`."""
    with Path("log").open("ab") as file:
        file.write(b"before\n")
        file.flush()
        await write(listeners[:1], f"/proc/self/fd/{file.fileno()}")
        file.write(b"after\n")
    port = tcp_port(listeners[0])
    assert Path("log").read_text() == f"before\n{port}\nafter\n"
