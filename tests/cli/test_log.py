"""The server's log: lines as JSON, and a log that is not read."""

import contextlib
import errno
import io
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greeter_trio._cli.line_writer import LineWriter
from greeter_trio._cli.log import JsonFormatter, LogHandler, TextFormatter, logger
from tests.support.logs import gathered
from tests.support.processes import PATIENCE
from tests.support.servers import serving
from tests.support.words import ESCAPES

_os: Any = os  # Windows lacks some of it
posix = pytest.mark.skipif(sys.platform == "win32", reason="its pipes always block")


def formatted(**attributes: Any) -> dict[str, Any]:
    """Return the object for such a record; only printable ASCII is written."""
    record = logging.makeLogRecord({"levelname": "INFO", "msg": "", **attributes})
    text = JsonFormatter().format(record)
    assert text.isascii()
    assert text.isprintable()
    line = json.loads(text)
    assert isinstance(line, dict)
    return line


def test_json_line() -> None:
    """It has the time, the level in lower case, the message, and the facts beside them."""
    facts = {"event": "open", "connection": 3, "seconds": 1.5, "nothing": None}
    line = formatted(msg=f"{ESCAPES}%s and %d", args=("小明", 7), facts=facts)
    assert list(line) == ["time", "level", "message", *facts]
    del line["time"]
    assert line == {"level": "info", "message": f"{ESCAPES}小明 and 7", **facts}
    assert set(formatted()) == {"time", "level", "message"}


@pytest.mark.parametrize(
    ("created", "text"),
    [(0, "1970-01-01T00:00:00.000Z"), (1_700_000_000.9876, "2023-11-14T22:13:20.987Z")],
)
def test_json_time(created: float, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is in UTC with a Z, and in milliseconds even where they are zero."""
    set_zone = getattr(time, "tzset", lambda: None)  # Windows has none
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    set_zone()
    assert formatted(created=created)["time"] == text
    monkeypatch.undo()
    set_zone()


def test_json_traceback() -> None:
    """The traceback of a bug is a part of the object, and does not make lines of its own."""
    try:
        raise RuntimeError(ESCAPES)  # noqa: TRY301
    except RuntimeError:
        line = formatted(exc_info=sys.exc_info())
    assert line["traceback"].startswith("Traceback (most recent call last):\n")
    assert line["traceback"].endswith(f"RuntimeError: {ESCAPES}")


def test_text_with_the_time() -> None:
    record = logging.makeLogRecord({"msg": "%s", "args": ("小明",), "created": 1_700_000_000.9876})
    assert TextFormatter(has_time=False).format(record) == "小明"
    assert TextFormatter(has_time=True).format(record) == "2023-11-14T22:13:20.987Z 小明"


# Lines for a descriptor that does not take them


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return both ends of a pipe."""
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(end)


def note(lost: int) -> bytes:
    return b"%d lost\n" % lost


def read_lines(reader: int, number: int) -> list[bytes]:
    with os.fdopen(os.dup(reader), "rb") as file:
        return [file.readline() for _ in range(number)]


LONG = b"x" * 20_000 + b"\n"  # more than a pipe promises to take at once


@posix
@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "non-blocking"])
def test_lines_for_a_reader_that_is_slow(pipe: tuple[int, int], *, blocking: bool) -> None:
    """The caller never waits; each line is whole, or lost and counted where it is missing."""
    reader, descriptor = pipe
    _os.set_blocking(descriptor, blocking)
    writer = LineWriter(descriptor, note)
    for _ in range(200):  # 4 MB, and nobody reads
        writer.put(LONG)
    lines = read_lines(reader, 54)
    kept = lines.count(LONG)
    lost = [line for line in lines if line != LONG]
    assert lost in ([], [b"%d lost\n" % (200 - kept)])
    writer.put(b"last\n")
    rest: list[bytes] = []
    while not rest or rest[-1] != b"last\n":
        rest += read_lines(reader, 1)
    assert set(rest) <= {LONG, b"last\n", *lost, b"%d lost\n" % (200 - (lines + rest).count(LONG))}
    assert len([line for line in lines + rest if line.endswith(b"lost\n")]) == 1
    assert _os.get_blocking(descriptor) is blocking  # others share that flag
    writer.close(PATIENCE)


@posix
def test_a_reader_that_never_reads_does_not_keep_the_end_waiting(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], note)
    for _ in range(20):
        writer.put(LONG)
    writer.close(0.01)
    os.close(pipe[0])  # so that the thread ends


@posix
def test_a_reader_that_has_gone(pipe: tuple[int, int]) -> None:
    """Lines are lost, and the caller does not notice."""
    writer = LineWriter(pipe[1], note)
    os.close(pipe[0])
    for _ in range(10):
        writer.put(b"line\n")
    writer.close(PATIENCE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_device_that_is_full() -> None:
    with Path("/dev/full").open("wb") as full:
        writer = LineWriter(full.fileno(), note)
        writer.put(b"line\n")
        writer.close(PATIENCE)


def test_a_disk_that_is_full_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that was begun is finished first; those that are missing are counted there."""
    room, write = 8, os.write

    def write_if_there_is_room(descriptor: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, data[:room])
        room -= written
        return written

    path = tmp_path / "log"
    with path.open("wb") as file:
        monkeypatch.setattr(os, "write", write_if_there_is_room)
        writer = LineWriter(file.fileno(), note)
        for line in (b"first\n", b"second\n", b"third\n"):
            writer.put(line)
        assert path.read_bytes() == b"first\nse"
        room = 100
        writer.put(b"fourth\n")
        writer.close(0)
    assert path.read_bytes() == b"first\nsecond\n1 lost\nfourth\n"


@posix
def test_no_thread_can_be_had(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are written at once, or lost if they would have to wait."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    reader, descriptor = pipe
    _os.set_blocking(descriptor, False)
    writer = LineWriter(descriptor, note)
    writer.put(b"first\n")
    assert os.read(reader, 100) == b"first\n"
    for _ in range(10):
        writer.put(LONG)
    read = os.read(reader, 200_000)
    assert read == (LONG * 10)[: len(read)]
    writer.put(b"last\n")
    kept = -(-len(read) // len(LONG))
    rest = os.read(reader, 200_000)
    assert read + rest == LONG * kept + b"%d lost\nlast\n" % (10 - kept)
    writer.close(0)


@posix
def test_handler_tells_what_was_lost(pipe: tuple[int, int]) -> None:
    """Tracebacks are a part of their line."""
    reader, descriptor = pipe
    handler = LogHandler(descriptor)
    handler.setFormatter(JsonFormatter())
    for _ in range(1000):
        handler.emit(logging.makeLogRecord({"msg": "x" * 4000, "levelname": "INFO"}))
    with os.fdopen(os.dup(reader), "rb") as file:
        for line in file:
            found = json.loads(line)
            if found["level"] == "warning":
                break
    assert re.fullmatch(r"The log could not be written: \d+ lines dropped", found["message"])
    handler.close()


async def test_json_of_a_session() -> None:
    """All lines of a conversation are objects, and hostile bytes are escaped."""
    handler = logging.StreamHandler(written := io.StringIO())
    handler.setFormatter(JsonFormatter())
    with gathered(logging.DEBUG) as log:
        logger.addHandler(handler)
        async with serving() as server:
            peer = await server.connect()
            await peer.say(ESCAPES.encode() + b"\xff\x00\nexit\n")
            await peer.hear_all()
            await peer.close()
            await log.line("is closed")
        logger.removeHandler(handler)
    text = written.getvalue()
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == len(log.records)
    assert [line["event"] for line in lines if "event" in line] == ["open", "closed"]
