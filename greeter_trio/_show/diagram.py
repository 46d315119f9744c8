"""The rows of a sequence diagram, made from the items of a transcript.

The trace in text and the page are two drawings of the same rows.
"""

import enum
import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from greeter_core import (
    ConversationEnded,
    ExitReceived,
    GoodbyeReceived,
    Greeted,
    NameRequested,
    NamesReceived,
    Observed,
    ProtocolViolated,
    Refused,
    SorryReceived,
    Step,
    StepInput,
    TranscriptItem,
    Welcomed,
)
from greeter_trio._net.text import pluralized, printable

from .timers import RunningTimers
from .width import shortened


class End(enum.Enum):
    """The two ends of a connection: the two lifelines of a diagram."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def other(self) -> "End":
        """The other one."""
        return End.SERVER if self is End.CLIENT else End.CLIENT


class Kind(enum.Enum):
    """What a row shows."""

    OPENING = "opening"  #: a conversation begins: a heading
    MESSAGE = "message"  #: bytes that crossed, as the recorded core sent or received them
    EOF = "eof"  #: the end of a stream that crossed, likewise
    CORE = "core"  #: what the core did when nothing crossed: only notes
    CALL = "call"  #: what the program at one end asked of its kernel: connect, accept, send, ...
    TCP = "tcp"  #: the state of TCP at one end, from now on
    SEGMENT = "segment"  #: a segment of TCP
    REMARK = "remark"  #: a sentence for the reader


@attrs.frozen(kw_only=True)
class Row:
    """One row of a diagram."""

    id: int
    """Which conversation it belongs to."""
    at: float
    """When, in seconds from the opening of the conversation; negative before that."""
    time: float
    """When, in seconds from the beginning of the recording."""
    kind: Kind
    own: End | None
    """The end whose core is recorded; None if there is none."""
    end: End
    """At which end it happened; of what crosses, where it comes from."""
    text: str = ""
    """A label, without the data: `SYN ACK  seq 0  ack 1`, `send 9 bytes`, `ESTABLISHED`."""
    data: bytes = b""
    """The bytes of a MESSAGE."""
    notes: tuple[str, ...] = ()
    """What the core did at this: names, framing, timers, states, a PROMPT that is owed."""
    timer: str = ""
    """Of what a core said or was given: the timer that runs out next, and in which time."""
    item: TranscriptItem
    """What it was made from."""

    @property
    def label(self) -> str:
        """What it shows, data included: as text that is safe to show."""
        if self.kind is Kind.MESSAGE:
            return excerpt(self.data)
        return "end of stream" if self.kind is Kind.EOF else self.text

    @property
    def rtt(self) -> str:
        """The round-trip time that the kernel has measured, with a state of TCP."""
        rtt = self.item.fields.get("rtt_ms") if isinstance(self.item, Observed) else None
        is_known = self.kind is Kind.TCP and isinstance(rtt, float) and rtt > 0
        return f"rtt {rtt:.3g} ms" if is_known else ""

    @property
    def is_transfer(self) -> bool:
        """Whether it is a call that sent or received."""
        return isinstance(self.item, Observed) and self.item.what in ("send", "receive")

    @property
    def is_assumed(self) -> bool:
        """Whether it is a segment that was not captured, but that TCP's rules let expect."""
        return isinstance(self.item, Observed) and self.item.fields.get("assumed") is True


_REMEMBERED = 1000  # conversations that have ended, of which something may still be observed


class Diagram:
    """Makes rows from items, one by one."""

    def __init__(self) -> None:
        self._conversations: dict[int, _Conversation] = {}
        self._ended: deque[int] = deque()

    def rows(self, item: TranscriptItem) -> list[Row]:
        """Return the rows for the next item."""
        if isinstance(item, Step) and item.opening:
            self._conversations[item.id] = _Conversation(item)
        conversation = self._conversations.get(item.id)
        if conversation is None:  # never opened, or over for long
            conversation = self._conversations[item.id] = _Conversation(None)
            self._forget_later(item.id)
        if isinstance(item, Observed):
            return list(conversation.observed(item))
        if item.state.is_ended:
            self._forget_later(item.id)
        return list(conversation.stepped(item))

    def _forget_later(self, number: int) -> None:
        self._ended.append(number)
        if len(self._ended) > _REMEMBERED:
            number = self._ended.popleft()
            if number in self._conversations and self._conversations[number].is_over:
                del self._conversations[number]


class _Conversation:
    """What has to be known of one conversation."""

    def __init__(self, opening: Step | None) -> None:
        self._began = 0.0
        self._own: End | None = None  # the end whose core is recorded
        self._last: Step | None = None
        self._timers: RunningTimers | None = None
        if opening and opening.opening:
            self._began = opening.opening.began
            self._own = End(opening.opening.role)
            self._timers = RunningTimers(opening.opening.config)
        self._first_numbers: dict[End, int] = {}  # the sequence numbers of the first segments
        self.is_over = opening is None

    # Steps

    def stepped(self, step: Step) -> Iterator[Row]:
        """Yield the rows of a step."""
        assert self._timers and self._own  # noqa: S101, PT018 - a step comes after its opening
        own = self._own
        last, due = self._last, self._timers.name
        before = (due, last.deadline if last else math.inf, self._timers.prompt_is_owed)
        was_due = last is not None and step.at >= last.deadline
        self._timers.follow(step)
        self._last = step
        self.is_over = step.state.is_ended

        heard = [*self._what_came(step, due if was_due else ""), *_what_happened(step, last)]
        done = self._what_follows(step, last, before)
        if step.input is StepInput.OPEN:
            yield self._row(step, Kind.OPENING, end=own, text=_peer(step))
        crossing: dict[StepInput, Kind] = {StepInput.DATA: Kind.MESSAGE, StepInput.EOF: Kind.EOF}
        kind = crossing.get(step.input)
        if kind:
            notes = heard if step.output else heard + done
            yield self._row(step, kind, end=own.other, data=step.data, notes=tuple(notes))
            heard = []
        if step.output:
            notes = heard + done
            yield self._row(step, Kind.MESSAGE, end=own, data=step.output, notes=tuple(notes))
        elif not kind and heard + done and not step.eof:
            yield self._row(step, Kind.CORE, end=own, notes=tuple(heard + done))
        if step.eof:
            notes = [] if step.output or kind else heard + done
            yield self._row(step, Kind.EOF, end=own, notes=tuple(notes))

    def _what_came(self, step: Step, due: str) -> Iterator[str]:
        match step.input:
            case StepInput.TIMEOUT | StepInput.SHUTDOWN:
                if due:
                    yield f"{due} is over"
                if step.input is StepInput.SHUTDOWN:
                    yield "told to shut down"
            case StepInput.IN_FLIGHT:
                yield "not acknowledged yet"
            case StepInput.LOST:
                yield "connection lost"
            case StepInput.NAMES:
                yield f"asked for {_names(step.names)}"
            case StepInput.EXIT:
                yield "asked for exit"

    def _what_follows(
        self, step: Step, last: Step | None, before: tuple[str, float, bool]
    ) -> list[str]:
        """Return what the core owes and waits for, as far as that is new."""
        assert self._timers is not None  # noqa: S101 - as above
        timer, deadline, owed = before
        notes = []
        is_closing = not (step.state.is_open or step.state.is_ended)
        if is_closing and (last is None or last.state.is_open):
            notes.append("CLOSING")
        if self._timers.prompt_is_owed and (step.output or not owed):
            notes.append("PROMPT owed")
        if self._timers.name and (self._timers.name, step.deadline) != (timer, deadline):
            notes.append(self._timer_of(step))
        return notes

    def _timer_of(self, step: Step) -> str:
        """Return what the core waits for after this step, and how long."""
        name = self._timers.name if self._timers else ""
        return f"{name} {_duration(step.deadline - step.at)}" if name else ""

    # What was observed

    def observed(self, item: Observed) -> Iterator[Row]:
        """Yield the row of an observation, if it is of a known kind."""
        fields = item.fields
        end = _end(fields.get("end")) or self._own or End.CLIENT
        match item.what, fields:
            case "receive" | "send" as call, {"bytes": int(size)}:
                yield self._row(item, Kind.CALL, end=end, text=f"{call} {size}")
            case "connect" | "accept" | "half_close" | "close" as call, _:
                yield self._row(item, Kind.CALL, end=end, text=call.replace("_", "-"))
            case "tcp", {"state": str(state)}:
                yield self._row(item, Kind.TCP, end=end, text=_safe(state))
            case "segment", {"from": str(source)} if _end(source):
                text = self._segment(End(source), fields)
                if text:
                    yield self._row(item, Kind.SEGMENT, end=End(source), text=text)
            case "note", {"text": str(text)}:
                yield self._row(item, Kind.REMARK, end=end, text=_safe(text))

    def _segment(self, source: End, fields: Mapping[str, Any]) -> str:
        """Return the label of a segment, with numbers relative to the first ones."""
        match fields:
            case {"flags": [*flags], "seq": int(seq)}:
                pass
            case _:
                return ""
        words = [_safe(" ".join(map(str, flags)))]
        first = self._first_numbers.setdefault(source, seq)
        length = fields.get("length")
        length = length if isinstance(length, int) else 0
        if length or "SYN" in flags or "FIN" in flags:
            words.append(f"seq {(seq - first) % 2**32}")
        ack = fields.get("ack")
        if isinstance(ack, int) and "ACK" in flags:
            first = self._first_numbers.setdefault(source.other, ack - 1)
            words.append(f"ack {(ack - first) % 2**32}")
        if length:
            words.append(f"len {length}")
        return "  ".join(words)

    def _row(self, item: TranscriptItem, kind: Kind, **fields: Any) -> Row:  # noqa: ANN401
        time = self._began + item.at
        timer = self._timer_of(item) if isinstance(item, Step) else ""
        return Row(
            id=item.id,
            at=item.at,
            time=time,
            kind=kind,
            own=self._own,
            timer=timer,
            item=item,
            **fields,
        )


def _what_happened(step: Step, last: Step | None) -> Iterator[str]:  # noqa: C901 - all events
    """Yield what the events say, and the framing if it is new."""
    if last is not None and step.framing is not last.framing:
        yield f"framing {step.framing.value}"
    greeted = [event.name for event in step.events if isinstance(event, Greeted)]
    for event in step.events:
        match event:
            case NamesReceived(names):
                yield _names(names)
            case ExitReceived():
                yield "exit"
            case Refused(reason):
                yield f"refused: {reason.value}"
            case Welcomed():
                yield "welcomed"
            case Greeted() if event.name is greeted[0]:
                yield f"greeted: {_names(greeted)}"
            case NameRequested() if event is step.events[-1]:
                yield "asked for a name"
            case GoodbyeReceived():
                yield "goodbye heard"
            case SorryReceived():
                yield "refused"
            case ProtocolViolated():
                yield "no greeter"
            case ConversationEnded(reason):
                yield f"ENDED: {reason.value}"


def excerpt(data: bytes) -> str:
    """Return bytes as text that is safe to show; the ends of lines are signs."""
    return printable(data).replace("\\x0d\\x0a", "⏎").replace("\\x0a", "⏎")


def _names(names: Any) -> str:  # noqa: ANN401 - a sequence of bytes
    if len(names) == 1:
        return f"name {shortened(printable(names[0]), 40)}"
    return pluralized(len(names), "name")


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _peer(step: Step) -> str:
    peer = step.opening.peer if step.opening else None
    return _safe(peer or "")


def _safe(text: str) -> str:
    """Return text from a file as text that is safe to show."""
    return printable(text.encode("utf-8", "replace"))


def _end(value: object) -> End | None:
    return End(value) if value in ("client", "server") else None
