"""Files that are written beside something else, and never stop it."""

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greeter_trio._show import sink as _sink
from greeter_trio._show.files import (
    OutputError,
    open_as_it_is,
    open_descriptor,
    replace_file,
    write_file,
)
from greeter_trio._show.sink import Sink

_os: Any = os
pytest.importorskip("fcntl", reason="these tests use pipes and devices of Unix")


@pytest.fixture
def failures() -> list[str]:
    return []


@pytest.fixture
def pipe() -> Iterator[tuple[io.FileIO, io.FileIO]]:
    reader, writer = (io.FileIO(fd, mode) for fd, mode in zip(os.pipe(), "rw", strict=True))
    _os.set_blocking(reader.fileno(), False)
    with reader, writer:
        yield reader, writer


def test_regular_file_gets_everything_at_a_flush(tmp_path: Path, failures: list[str]) -> None:
    with open_as_it_is(str(tmp_path / "file")) as file:
        sink = Sink(file, "file", failures.append)
        sink.write("小明\n" * 1000)
        assert (tmp_path / "file").read_bytes() == b""
        sink.flush()
        assert (tmp_path / "file").read_text("utf-8") == "小明\n" * 1000
        sink.write("x" * 70_000)  # too much to keep until the event loop waits
        assert (tmp_path / "file").stat().st_size == 77_000
        sink.write("\ud800")
        sink.close()
    assert (tmp_path / "file").read_bytes().endswith(rb"x\ud800")
    assert failures == []


def test_pipe_gets_what_it_takes_without_blocking(
    pipe: tuple[io.FileIO, io.FileIO], failures: list[str]
) -> None:
    reader, writer = pipe
    sink = Sink(writer, "pipe", failures.append)
    sink.write("x" * 200_000)
    sink.flush()
    first = reader.read(300_000)
    assert first
    assert len(first) < 200_000
    got = len(first)
    while got < 200_000:
        sink.flush()
        got += len(reader.read(300_000) or b"")
    assert failures == []


def test_closing_waits_for_the_reader(
    pipe: tuple[io.FileIO, io.FileIO], failures: list[str]
) -> None:
    reader, writer = pipe
    _os.set_blocking(writer.fileno(), False)
    sink = Sink(writer, "pipe", failures.append)
    sink.write("x" * 30_000)
    sink.close()
    assert len(reader.read(300_000) or b"") == 30_000
    assert failures == []


def test_closing_waits_for_a_reader_that_reads(
    pipe: tuple[io.FileIO, io.FileIO], failures: list[str]
) -> None:
    """And for one that does not, as long as its patience lasts."""
    sink = Sink(pipe[1], "pipe", failures.append)
    sink.write("x" * 200_000)
    sink.close(0.01)
    assert failures == ["cannot write to pipe any more: it is not read"]


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Return both ends of a pseudo-terminal; nobody reads what is written to the second one."""
    ends: tuple[int, int] = _os.openpty()
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("has_name", [True, False])
def test_terminal_that_is_not_read(
    terminal: tuple[int, int],
    failures: list[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    has_name: bool,
) -> None:
    """It gets what it takes, and its flags, which other processes share, stay as they are."""
    keyboard, line = terminal
    if not has_name:  # as in a container
        if not Path("/proc/self/fd").exists():
            pytest.skip("there is no other way to it")
        monkeypatch.setattr(_os, "ttyname", fail)
    with open_descriptor(line) as file:
        sink = Sink(file, "terminal", failures.append)
        for number in range(1000):
            sink.write(f"{number:<98}\n")
            sink.flush()
        assert _os.get_blocking(line)
        assert os.read(keyboard, 4096).startswith(b"0   ")
        sink.close(0.15)
    assert failures == ["cannot write to terminal any more: it is not read"]


def fail(*_: object) -> None:
    raise OSError(errno.ENOENT, "no such terminal")


def test_terminal_that_cannot_be_opened_anew(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's, for example: the descriptor is still there."""
    monkeypatch.setattr(os, "open", fail)
    with open_descriptor(terminal[1]) as file:
        file.write(b"line")
    monkeypatch.undo()
    assert os.read(terminal[0], 100) == b"line"


def test_terminal_without_room_for_the_next_byte(failures: list[str]) -> None:
    """It can be written, says poll(2), and then takes nothing: an LF takes two places there."""

    class Terminal(io.FileIO):
        def write(self, _: Any) -> Any:
            return None

    reader, writer = os.pipe()
    with Terminal(writer, "w") as file:
        sink = Sink(file, "terminal", failures.append)
        sink.write("\n")
        sink.flush()
        sink.close(0.01)
    os.close(reader)
    assert failures == ["cannot write to terminal any more: it is not read"]


def test_terminal_as_a_file(terminal: tuple[int, int], failures: list[str]) -> None:
    with open_as_it_is(_os.ttyname(terminal[1])) as file:
        sink = Sink(file, "terminal", failures.append)
        sink.write("x" * 100_000)
        sink.flush()  # which does not wait
    assert failures == []


def test_fifo_without_a_reader(tmp_path: Path) -> None:
    """Nothing waits for one; a FIFO with a reader is written into."""
    path = str(tmp_path / "fifo")
    _os.mkfifo(path)
    with pytest.raises(OSError, match="no program has this pipe open to read from it"):
        open_as_it_is(path)
    reader = os.open(path, os.O_RDONLY | _os.O_NONBLOCK)
    write_file(path, b"page")
    assert os.read(reader, 100) == b"page"
    os.close(reader)


def test_pipe_without_a_reader_is_told_once(
    pipe: tuple[io.FileIO, io.FileIO], failures: list[str]
) -> None:
    reader, writer = pipe
    sink = Sink(writer, "pipe", failures.append)
    reader.close()
    for _ in range(3):
        sink.write("line\n")
        sink.flush()
    sink.close()
    assert failures == [f"cannot write to pipe any more: {os.strerror(errno.EPIPE)}"]


def test_reader_that_is_too_far_behind(
    pipe: tuple[io.FileIO, io.FileIO], failures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sink, "_MOST", 100_000)
    sink = Sink(pipe[1], "pipe", failures.append)
    for _ in range(40):
        sink.write("x" * 10_000)
    assert failures == ["cannot write to pipe any more: it is not read"]


def test_full_disk_is_told_once(failures: list[str]) -> None:
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("there is no /dev/full")
    with open_as_it_is("/dev/full") as file:
        sink = Sink(file, "/dev/full", failures.append)
        for _ in range(2):
            sink.write("line\n")
            sink.flush()
    assert failures == [f"cannot write to /dev/full any more: {os.strerror(errno.ENOSPC)}"]


def test_file_appears_or_is_replaced_at_once(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write_file(str(file), b"one")
    link = tmp_path / "link"
    link.symlink_to(file)
    write_file(str(link), b"two")
    assert file.read_bytes() == b"two"
    assert link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "page.html"]


def test_what_is_no_regular_file_is_written_into() -> None:
    replace_file(os.devnull, b"page")
    assert os.path.exists(os.devnull)  # noqa: PTH110


@pytest.mark.parametrize("where", [".", "missing/file", "/dev/full"])
def test_file_that_cannot_be_written(where: str, tmp_path: Path) -> None:
    path = where if where.startswith("/") else str(tmp_path / where)
    with pytest.raises(OutputError, match=f"^cannot write to {path}: "):
        write_file(path, b"page")
    assert list(tmp_path.iterdir()) == []


def test_failing_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "page"
    file.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match="full"):
        write_file(str(file), b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
