"""Lines for a descriptor that may block, fill up or break, which must not stop the program."""

import contextlib
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

from .output import wait_until

_select: Any = select  # Windows has no poll

_MOST = 2**20  # bytes that wait to be written
_GATHERED = 0.005  # seconds in which lines are gathered that are written together


@attrs.frozen
class _Line:
    data: bytes
    lines: int
    """How many lines are lost if this one is: a note of lines that were lost stands for them."""


class LineWriter:
    """Writes lines, each of them wholly or not at all, and never keeps its caller waiting.

    A thread does the writing, because nothing tells whether a whole line can be written: a terminal
    can always be written that takes a single byte more (POLLOUT in poll(2)). When 1 MiB waits for
    it, further lines are dropped. They are counted, as are those that could not be written, and
    `note` makes the line that tells their number, which is written where they are missing.

    What never blocks, a regular file or the null device, is written directly; so is everything else
    that can be written at once, where no thread can be had.
    """

    def __init__(self, descriptor: int, note: Callable[[int], bytes]) -> None:
        self._descriptor = descriptor
        self._note = note
        self._waiting: deque[_Line] = deque()
        self._size = 0  # bytes that wait
        self._lost = 0  # lines, since the last note
        self._rest = b""  # of a line that was begun
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread: threading.Thread | None = None
        self._never_blocks = _never_blocks(descriptor)
        if not self._never_blocks:
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system allows no more of them
                return
            self._thread = thread

    def put(self, line: bytes) -> None:
        """Write this line, which ends in LF, as soon as that can be done."""
        with self._changed:
            if self._lost:
                self._put(self._noted())
            self._put(_Line(line, 1))
        if not self._thread:
            self._write_all(waits=self._never_blocks)

    def close(self, timeout: float) -> None:
        """Wait until all is written, `timeout` seconds at most; what is left then is lost.

        Closing again, as `logging` does at exit, does nothing.
        """
        with self._changed:
            was_closing, self._is_closing = self._is_closing, True
            self._changed.notify()
        if self._thread and not was_closing:
            self._thread.join(timeout)

    def _put(self, line: _Line) -> None:
        if self._size > _MOST:
            self._lost += line.lines
            return
        self._waiting.append(line)
        self._size += len(line.data)
        self._changed.notify()

    def _noted(self) -> _Line:
        lost, self._lost = self._lost, 0
        return _Line(self._note(lost), lost)

    def _run(self) -> None:
        while self._wait():
            # To wake up for each line would cost the event loop more than the line does.
            time.sleep(_GATHERED)
            self._write_all(waits=True)

    def _wait(self) -> bool:
        """Wait until there is something to write; return False if there never will be."""
        with self._changed:
            while not (self._waiting or self._is_closing):
                self._changed.wait()
            return bool(self._waiting)

    def _write_all(self, *, waits: bool) -> None:
        while True:
            with self._changed:
                lines, self._waiting = self._waiting, deque()
            if not lines:
                return
            lost = self._write(lines, waits=waits)
            with self._changed:
                self._size -= sum(len(line.data) for line in lines)
                self._lost += lost
                if self._lost and not lost and not self._waiting:
                    self._put(self._noted())

    def _write(self, lines: Sequence[_Line], *, waits: bool) -> int:
        """Write lines, after what is left of the one before; return how many were not begun."""
        self._rest = self._left_of(self._rest, waits=waits)
        if self._rest:
            return sum(line.lines for line in lines)
        left, lost = self._left_of(b"".join(line.data for line in lines), waits=waits), 0
        for line in reversed(lines):
            if len(left) < len(line.data):
                break
            left = left[: -len(line.data)]
            lost += line.lines
        self._rest = left
        return lost

    def _left_of(self, data: bytes, *, waits: bool) -> bytes:
        """Write as much of it as can be written, and return the rest."""
        with contextlib.suppress(OSError):  # such as a full disk, or a reader that has gone
            while data and (waits or self._is_writable()):
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:  # the descriptor is non-blocking
                    if not waits:
                        break
                    wait_until(self._descriptor, writable=True)
        return data

    def _is_writable(self) -> bool:
        if not hasattr(_select, "poll"):
            return True
        poll = _select.poll()
        poll.register(self._descriptor, _select.POLLOUT)
        return bool(poll.poll(0))


def _never_blocks(descriptor: int) -> bool:
    status: Any = os.fstat(descriptor)  # Windows has no st_rdev
    null: Any = Path(os.devnull).stat() if stat.S_ISCHR(status.st_mode) else None
    return stat.S_ISREG(status.st_mode) or (null and status.st_rdev == null.st_rdev)
