"""The server's log, on standard error: as text or as JSON, and never in its way."""

import datetime as dt
import json
import logging
import sys

from greeter_trio._net.text import pluralized

from .line_writer import LineWriter

logger = logging.getLogger("greeter_trio")

_PATIENCE = 1.0  # seconds, at the end, for the reader of the log


def make_handler(log_format: str, *, has_time: bool) -> logging.Handler:
    """Return a handler that writes to standard error, or nowhere if that is closed."""
    try:
        handler = LogHandler(sys.stderr.fileno())
    except (AttributeError, OSError):  # it is None, or a descriptor that is not there
        return logging.NullHandler()
    handler.setFormatter(
        JsonFormatter() if log_format == "json" else TextFormatter(has_time=has_time)
    )
    return handler


class JsonFormatter(logging.Formatter):
    """Each line is a JSON object: `time` (UTC, RFC 3339), `level`, `message`, and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object for one line."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """Each line is the message, perhaps with the time before it (UTC, RFC 3339)."""

    def __init__(self, *, has_time: bool) -> None:
        super().__init__("%(time)s %(message)s" if has_time else "%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and below it the traceback of a bug."""
        record.time = _time(record)
        return super().format(record)


class LogHandler(logging.Handler):
    """Writes each line soon, and never keeps the server waiting."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._writer = LineWriter(descriptor, self._note)

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        self._writer.put(self._line(record))

    def close(self) -> None:
        """Wait until all is written, but not for a reader that does not read."""
        self._writer.close(_PATIENCE)
        super().close()

    def _note(self, lost: int) -> bytes:
        level = logging.WARNING
        facts = {"name": logger.name, "levelno": level, "levelname": "WARNING"}
        note = logging.makeLogRecord(facts)
        note.msg = f"The log could not be written: {pluralized(lost, 'line')} dropped"
        return self._line(note)

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(_encoding(), "backslashreplace")


def _encoding() -> str:
    return (sys.stderr and sys.stderr.encoding) or "utf-8"


def _time(record: logging.LogRecord) -> str:
    time = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
