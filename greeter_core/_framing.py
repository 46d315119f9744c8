"""Cutting the client's bytes into names (PROTOCOL.md, S3, S4)."""

from ._config import Framing
from ._wire import CR, CR_BYTE, CRLF, EXIT, EXIT_LINE, LF

# Members looked up for each arrival: as attributes of the enum each takes 50 ns more (Python 3.11).
_AUTO, _LINES, _RAW = Framing


class Framer:
    """Finds where names end, and keeps what nothing has ended yet."""

    __slots__ = ("_configured", "_max_name_size", "framing", "tail")

    def __init__(self, framing: Framing, max_name_size: int) -> None:
        self._configured = framing
        self._max_name_size = max_name_size
        self.framing = framing
        """How names end; AUTO until that is known."""
        self.tail = b""
        """What nothing has ended yet: at most `max_name_size` + 1 bytes, or it is too long."""

    def feed(self, data: bytes) -> bytes | None:
        """Take one arrival; return what it completes.

        In LINES that is one line or several, LF between them; otherwise it is one name, or None for
        no name yet.
        """
        if self._configured is _RAW:
            return data
        lines, lf, tail = (self.tail + data).rpartition(LF)
        if lf:
            self.tail = tail
            if self._configured is _AUTO:
                self.framing = _LINES
            return (lines + LF).replace(CRLF, LF)[:-1] if CR_BYTE in lines else lines
        if self.framing is _RAW:
            return data
        self.tail = tail
        return None

    def end_tail(self) -> bytes:
        """Take the tail for a name, though nothing ended it; `b""` if there is none."""
        tail, self.tail = self.tail, b""
        return tail

    def guess_raw(self) -> bytes:
        """Take each arrival for one name from now on; return the tail, which was one."""
        self.framing = _RAW
        return self.end_tail()

    @property
    def tail_is_too_long(self) -> bool:
        """Whether the tail exceeds the limit, however it goes on; a CR may belong to its end."""
        excess = len(self.tail) - self._max_name_size
        return excess > 0 and (excess > 1 or not self.tail.endswith(CR))

    def cut(self, lines: bytes) -> tuple[bytes, bytes]:
        """Cut lines before the first name that ends the conversation: `exit`, or one too long.

        Return the names before it, LF after each, and what begins with it, if there is one.
        """
        lines += LF
        at = self._find_too_long(lines)
        before, last = (lines, b"") if at < 0 else (lines[:at], lines[at:])
        at = (LF + before).find(LF + EXIT_LINE)
        return (before, last) if at < 0 else (before[:at], EXIT)

    def _find_too_long(self, lines: bytes) -> int:
        # A name is short enough if its LF comes within the limit. It is enough to find the last LF
        # there and to go on behind it: one step for each limit's worth, however many names it
        # holds.
        start, reach = 0, self._max_name_size + 1
        while len(lines) - start > reach:
            last = lines.rfind(LF, start, start + reach)
            if last < 0:
                return start
            start = last + 1
        return -1
