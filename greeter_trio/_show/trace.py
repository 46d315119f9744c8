"""The trace: a sequence diagram as lines of text, for a terminal of 80 columns.

Time runs down. Left and right stand the lifelines of the client and the server. Between them is
what crosses: solid arrows for what the recorded core said or was given, dashed ones for segments of
TCP, and beside each lifeline the calls and the states of TCP at that end. What the core did stands
in the margin.
"""

import heapq
import math
from collections.abc import Iterable, Iterator

from greeter_core import TranscriptItem

from .diagram import Diagram, End, Kind, Row
from .width import padded, pieces, shortened, width

_MIDDLE = 40  # columns between the lifelines
_MARGIN = 24  # columns right of them
_NOTHING = " " * _MIDDLE

_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_COLOURS = ("\x1b[36m", "\x1b[33m", "\x1b[35m", "\x1b[32m", "\x1b[34m", "\x1b[31m")


class Trace:
    """Draws the items of a transcript, in the order of their times.

    Some items are known late: what came before a conversation was opened, and segments, which are
    captured beside it. So they are put here as they come, and drawn when nothing earlier can come.
    """

    def __init__(self, *, colour: bool = False) -> None:
        self.shows_tcp: bool = True
        """Whether segments are drawn, and calls and states of TCP; it counts when they are put."""
        self.newest: float = -math.inf
        """The latest time that was put, in seconds from the beginning of the recording."""
        self._colour = colour
        self._diagram = Diagram()
        self._waiting: list[tuple[float, int, Row]] = []  # a heap
        self._count = 0
        self._headings: dict[int, Row] = {}  # those that are not drawn yet, by conversation
        self._first: int | None = None  # the number of the first conversation
        self._are_several = False

    def put(self, item: TranscriptItem) -> None:
        """Take the next item."""
        for row in self._diagram.rows(item):
            if row.kind is Kind.OPENING:
                self._headings[row.id] = row
            elif not self._is_left_out(row):
                self._count += 1
                heapq.heappush(self._waiting, (row.time, self._count, row))
                self.newest = max(self.newest, row.time)

    def lines(self, until: float = math.inf) -> Iterator[str]:
        """Yield the lines for what happened up to this time; they have no end of line."""
        while self._waiting and self._waiting[0][0] <= until:
            yield from self._drawn(heapq.heappop(self._waiting)[2])

    def _is_left_out(self, row: Row) -> bool:
        if row.is_transfer and row.end is row.own:
            return True  # the arrows of the core show it
        return row.kind in (Kind.CALL, Kind.SEGMENT, Kind.TCP) and not self.shows_tcp

    def _drawn(self, row: Row) -> Iterator[str]:
        if self._first is None:
            self._first = row.id
        self._are_several = self._are_several or row.id != self._first
        heading = self._headings.pop(row.id, None)
        if heading:
            yield from self._heading(heading)
        if row.kind is Kind.REMARK:
            for line in pieces(row.text, _MIDDLE - 2):
                yield self._line("", row, self._styled(_BOLD, f" {padded(line, _MIDDLE - 1)}"))
            return
        time = _milliseconds(row.at)
        margin = _filled(row.notes)
        yield self._line(time, row, self._middle(row), *margin[:1])
        for note in margin[1:]:
            yield self._line("", row, _NOTHING, note)

    def _middle(self, row: Row) -> str:
        match row.kind:
            case Kind.MESSAGE:
                return _arrow(row.end, "─", row.label, f" {len(row.data)} ")
            case Kind.EOF:
                return _arrow(row.end, "─", row.label)
            case Kind.SEGMENT:
                dash = "┄" if row.is_assumed else "╌"
                return self._styled(_DIM, _arrow(row.end, dash, row.text))
            case Kind.CALL | Kind.TCP:
                text = shortened(f"{row.text}  {row.rtt}".rstrip(), _MIDDLE - 2)
                left, right = ("", text) if row.end is End.SERVER else (text, "")
                return self._styled(_DIM, f" {padded(left, _MIDDLE - 2, right)} ")
            case _:
                return _NOTHING

    def _heading(self, row: Row) -> Iterator[str]:
        left, right = "client", "server"
        if row.own is End.SERVER:
            left = f"client {row.text}"
        else:
            right = f"server {row.text}"
        names = padded(shortened(left.rstrip(), 30), _MIDDLE + 2, shortened(right.rstrip(), 30))
        core = f"  the {row.own.value if row.own else ''}'s core"
        yield ""
        yield f"{'ms':>8} {self._tag(row)}{self._styled(_BOLD, names)}{core}"

    def _line(self, time: str, row: Row, middle: str, note: str = "") -> str:
        return f"{time:>8} {self._tag(row)}│{middle}│ {note}".rstrip()

    def _tag(self, row: Row) -> str:
        """Return which conversation this is, if there are several."""
        if not self._are_several:
            return "    "
        return self._styled(_COLOURS[row.id % len(_COLOURS)], f"{f'#{row.id}':<4}"[:4])

    def _styled(self, style: str, text: str) -> str:
        return f"{style}{text}{_PLAIN}" if self._colour else text


def _filled(notes: Iterable[str]) -> list[str]:
    """Return the lines of the margin: as many notes in each as fit."""
    lines: list[str] = []
    for note in notes:
        longer = f"{lines[-1]}; {note}" if lines else note
        if lines and width(longer) <= _MARGIN:
            lines[-1] = longer
        else:
            lines += pieces(note, _MARGIN)
    return lines


def _milliseconds(seconds: float) -> str:
    text = f"{seconds * 1000:.1f}".replace("-0.0", "0.0")
    return text if len(text) <= 8 else f"{seconds:.0f} s"[:8]


def _arrow(source: End, dash: str, text: str, size: str = "") -> str:
    """Return an arrow from one lifeline to the other, with text behind its beginning."""
    text = shortened(text, _MIDDLE - 6 - len(size))
    if source is End.CLIENT:
        return padded(f"{dash * 2} {text} ", _MIDDLE, f"{size}{dash}▶", dash)
    return padded(f"◀{dash} {text} ", _MIDDLE, f"{size}{dash * 2}", dash)
