"""The server's log: lines as JSON, and a log that is not read."""

import contextlib
import io
import json
import logging
import os
import sys
import time
from typing import Any

import pytest

from greeter_trio._cli.log import JsonFormatter, PatientHandler, logger
from tests.support.logs import gathered
from tests.support.servers import serving
from tests.support.words import ESCAPES


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


def test_log_that_is_not_read() -> None:
    """Lines that would block are dropped, and their number is told when the log is read again."""
    if sys.platform == "win32":
        pytest.skip("nothing tells whether a line would block")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with os.fdopen(reader, "rb", buffering=0) as log, os.fdopen(writer, "w") as stream:
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += os.write(writer, b"x" * 1024)
        handler = PatientHandler(stream)
        for number in range(4):
            handler.emit(logging.makeLogRecord({"msg": f"line {number}"}))
        while filled:
            filled -= len(log.read(filled))
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        for number in (4, 5):
            handler.emit(logging.makeLogRecord({"msg": f"line {number}", "levelname": "INFO"}))
        lost = b"WARNING The log was not read: 4 lines dropped\n"
        assert log.read(1000) == lost + b"INFO line 4\nINFO line 5\n"


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
