"""Cutting the client's bytes into names (PROTOCOL.md, S3, S4, S6)."""

from ._config import Framing
from ._states import Input
from ._wire import CR, CRLF, EXIT_LINE, LF

Cut = tuple[bytes, Input | None]
"""Names, each followed by LF, and what ends the conversation after them: EXIT, TOO_LONG or None."""

_AUTO, _LINES, _RAW = Framing  # look-ups in an enum are slow, and these are made for each name


class Framer:
    """Finds the names in what arrives, whole blocks of them at a time."""

    __slots__ = ("_configured", "_max_name_size", "_tail", "framing")

    def __init__(self, framing: Framing, max_name_size: int) -> None:
        self._configured = framing
        self._max_name_size = max_name_size
        self.framing = framing
        self._tail = b""  # what no terminator has ended yet: at most max_name_size + 1 bytes

    def feed(self, data: bytes) -> Cut:
        """Take one arrival; return the names that it completes."""
        data = self._tail + data
        end = data.rfind(LF) + 1
        block, self._tail = data[:end], data[end:]
        if block and self._configured is _AUTO:
            self.framing = _LINES
        if CR in block:
            block = block.replace(CRLF, LF)
        if self.framing is _RAW:
            return self._cut(block + self._take_tail())
        block, ending = self._cut(block)
        if ending is None and len(self._tail) > self._max_name_size + self._tail.endswith(CR):
            ending = Input.TOO_LONG
        return block, ending

    def end_tail(self) -> Cut:
        """Take the tail for a name, though nothing ended it; return it if there is one."""
        return self._cut(self._take_tail())

    def guess_raw(self) -> Cut:
        """Take the end of an arrival for the end of a name from now on; return the tail, which is one."""
        self.framing = _RAW
        return self.end_tail()

    def clear(self) -> None:
        """Forget the tail."""
        self._tail = b""

    def _take_tail(self) -> bytes:
        tail, self._tail = self._tail, b""
        return tail and tail + LF

    def _cut(self, block: bytes) -> Cut:
        """Cut off the first name that ends the conversation, and all that follows it."""
        ending = None
        at = _find_longer_than(self._max_name_size, block)
        if at >= 0:
            block, ending = block[:at], Input.TOO_LONG
        at = (LF + block).find(LF + EXIT_LINE)
        if at >= 0:
            block, ending = block[:at], Input.EXIT
        return block, ending


def _find_longer_than(size: int, block: bytes) -> int:
    """Return where the first name of more than `size` bytes starts, or -1; looks at one LF in each `size` bytes."""
    start = 0
    while len(block) - start > size + 1:
        last = block.rfind(LF, start, start + size + 1)
        if last < 0:
            return start
        start = last + 1
    return -1
