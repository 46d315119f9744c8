"""What the server tells about itself: the log, as text or as JSON, and counters.

A line in the log is for a person, and has `extra={"facts": {...}}` for programs, which the JSON
format shows as well.
"""

import datetime as dt
import json
import logging
import select
import sys
from collections import Counter
from typing import TextIO

import attrs

from greeter_trio._net.text import counted

logger = logging.getLogger("greeter_trio")


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
    """Writes a line at once, or not at all: a log that nobody reads must not stop the server.

    A pipe or a terminal is asked first whether it takes a line (POLLOUT in poll(2): 4096 bytes at
    least, for a pipe). What could not be written is counted, and the number is told as soon as it
    can be. Where there is no poll (Windows) each line is written, however long that takes.
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
            lines, self._dropped = counted(self._dropped, "line"), 0
            told = logging.makeLogRecord(
                {"name": record.name, "levelno": logging.WARNING, "levelname": "WARNING"}
            )
            told.msg = f"Nobody read the log: {lines} dropped"
            super().emit(told)
        super().emit(record)


@attrs.define
class Counters:
    """What happened since the server was started."""

    accepted: int = 0
    closed: Counter[str] = attrs.field(factory=Counter)
    """How many conversations ended, for each reason."""
    names: int = 0
    received: int = 0
    sent: int = 0
    accept_failures: int = 0

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(
            *(
                getattr(self, field.name) + getattr(other, field.name)
                for field in attrs.fields(Counters)
            )
        )

    def facts(self) -> dict[str, int]:
        """Return all of them, named as Prometheus has it (`_total` only grows, `reason` is a label)."""
        return {
            "greeter_connections_accepted_total": self.accepted,
            "greeter_connections_open": self.accepted - self.closed.total(),
            **{
                f'greeter_connections_closed_total{{reason="{reason}"}}': number
                for reason, number in sorted(self.closed.items())
            },
            "greeter_names_greeted_total": self.names,
            "greeter_received_bytes_total": self.received,
            "greeter_sent_bytes_total": self.sent,
            "greeter_accept_failures_total": self.accept_failures,
        }

    def log(self) -> None:
        """Write them to the log, as one line, whatever its level is: somebody has asked for them."""
        facts = self.facts()
        text = ", ".join(f"{name} {number}" for name, number in facts.items())
        name, level = logger.name, logging.INFO
        logger.handle(
            logger.makeRecord(
                name, level, __file__, 0, "Counters: %s", (text,), None, extra={"facts": facts}
            )
        )
