"""Files that are written while a program does something else, which they must not stop."""

import io
import math
import select
import time
from collections.abc import Callable
from typing import Any

from .files import is_regular

_select: Any = select  # Windows has no poll

_MOST = 64 * 2**20  # bytes that wait for a reader; one that is further behind gets no more
_PIECE = 4096  # bytes that a pipe takes at once when it is ready (PIPE_BUF, pipe(7))
_ENOUGH = 65536  # bytes to collect before they are written though the event loop is busy
_LOOK = 100  # milliseconds between two looks at a reader that is waited for
_PAUSE = 0.01  # seconds before a terminal is tried again that has room, but not for the next byte


class Sink:
    """A file that takes text for as long as it can.

    Text is collected, and written by `flush`: to a regular file all of it, and to a pipe or a
    terminal what that takes without blocking. (A terminal must be opened non-blocking for that:
    poll(2) says that it can be written when it takes a single byte.) When writing fails, or a
    reader is 64 MiB behind, `on_failure` is called, once, with a sentence that says why, and
    nothing more is written.
    """

    def __init__(self, file: io.FileIO, name: str, on_failure: Callable[[str], object]) -> None:
        self._file = file
        self._name = name
        self._on_failure = on_failure
        self._waiting = bytearray()
        self._failed = False
        self._poll: Any = None
        if hasattr(_select, "poll") and not is_regular(file):
            self._poll = _select.poll()
            self._poll.register(file, _select.POLLOUT)

    def write(self, text: str) -> None:
        """Take text, which is UTF-8 in the file."""
        if self._failed:
            return
        self._waiting += text.encode("utf-8", "backslashreplace")
        if len(self._waiting) >= _ENOUGH:
            self.flush()
        if len(self._waiting) > _MOST:
            self._fail("it is not read")

    def flush(self) -> None:
        """Write what can be written without blocking."""
        while self._waiting and (not self._poll or self._poll.poll(0)):
            if not self._write_piece():
                break

    def close(self, patience: float = math.inf) -> None:
        """Write the rest. The file is the caller's to close.

        That takes as long as it takes; but a reader that reads nothing for `patience` seconds
        does not get the rest.
        """
        last = time.monotonic()
        while self._waiting:
            if (not self._poll or self._poll.poll(_LOOK)) and self._write_piece():
                last = time.monotonic()
            elif time.monotonic() > last + patience:
                self._fail("it is not read")
            else:
                time.sleep(_PAUSE)

    def _write_piece(self) -> bool:
        """Write what is taken at once, and return False if that is nothing."""
        piece = bytes(self._waiting[:_PIECE] if self._poll else self._waiting)
        try:
            written = self._file.write(piece) or 0
        except OSError as exc:
            self._fail(exc.strerror or type(exc).__name__)
            return True
        del self._waiting[:written]
        return written > 0

    def _fail(self, why: str) -> None:
        self._failed = True
        self._waiting.clear()
        self._on_failure(f"cannot write to {self._name} any more: {why}")
