"""What the server logs, gathered by a test."""

import contextlib
import logging
from collections.abc import Iterator

import trio

logger = logging.getLogger("greeter_trio")


class Log(logging.Handler):
    """What is logged, with a way to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._grown = trio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self._grown.set()
        self._grown = trio.Event()

    @property
    def lines(self) -> list[str]:
        """The messages, without tracebacks."""
        return [record.getMessage() for record in self.records]

    async def line(self, part: str, number: int = 1) -> str:
        """Wait until so many lines contain this text, and return the last of them."""
        while True:
            lines = [line for line in self.lines if part in line]
            if len(lines) >= number:
                return lines[number - 1]
            await self._grown.wait()


@contextlib.contextmanager
def gathered(level: int = logging.INFO) -> Iterator[Log]:
    """Gather what the server logs, from this level on."""
    log, before = Log(), logger.level
    logger.addHandler(log)
    logger.setLevel(level)
    try:
        yield log
    finally:
        logger.setLevel(before)
        logger.removeHandler(log)
