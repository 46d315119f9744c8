"""The server's log, on standard error: as text or as JSON, and never in its way."""

import datetime as dt
import json
import logging
import select
import sys
from typing import TextIO

from greeter_trio._net.text import pluralized

logger = logging.getLogger("greeter_trio")


def make_handler(log_format: str) -> logging.Handler:
    """Return a handler that writes to standard error, or nowhere if that is closed."""
    if sys.stderr is None:
        return logging.NullHandler()
    handler = PatientHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    return handler


class JsonFormatter(logging.Formatter):
    """Each line is a JSON object: `time` (UTC, RFC 3339), `level`, `message`, and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object for one line."""
        time = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class PatientHandler(logging.StreamHandler[TextIO]):
    """Writes a line at once, or not at all: a log that is not read must not stop the server.

    A pipe or a terminal is asked first whether it takes a line (POLLOUT in poll(2): 4096 bytes at
    least, for a pipe). Lines that could not be written are counted, and their number is logged as
    soon as it can be. Where there is no poll (Windows) each line is written, however long that
    takes.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._dropped = 0
        self._poll = None
        if sys.platform != "win32" and hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(stream, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line if that does not block."""
        if self._poll and not self._poll.poll(0):
            self._dropped += 1
            return
        if self._dropped:
            lines, self._dropped = pluralized(self._dropped, "line"), 0
            level = logging.WARNING
            facts = {"name": record.name, "levelno": level, "levelname": "WARNING"}
            lost = logging.makeLogRecord(facts)
            lost.msg = f"The log was not read: {lines} dropped"
            super().emit(lost)
        super().emit(record)
