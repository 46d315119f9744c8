"""A transcript as lines of text, written and read (TRANSCRIPT.md)."""

import contextlib
import enum
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from ._config import ClientConfig, Framing, ServerConfig
from ._errors import LocalProtocolError
from ._events import (
    ConversationEnded,
    EndReason,
    EOFReceived,
    ExitReceived,
    GoodbyeReceived,
    Greeted,
    NameRequested,
    NamesReceived,
    ProtocolViolated,
    Refusal,
    Refused,
    SorryReceived,
    Welcomed,
)
from ._states import ClientState, ServerState
from ._steps import Event, Observed, Opening, Step, StepInput, TranscriptItem

VERSION = 1

_QUOTED_LF, _BETWEEN = r"\n", '"}, {"text": "'
_BOM = b"\xef\xbb\xbf"

Line: TypeAlias = tuple[int, TranscriptItem]
"""An item, and the number of its line; the first line of a file has number 1."""


class TranscriptError(ValueError):
    """A line is damaged. The message says which one, and what is wrong with it."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line
        """Its number; the first line of a file has number 1."""


def read_transcript(
    lines: Iterable[bytes], *, on_cut_short: Callable[[int], object] = lambda _: None
) -> Iterator[Line]:
    """Yield the items of a transcript, such as a binary file has; all but its header.

    `on_cut_short` is called with the number of the last line if that has no end, as when the
    process was killed that wrote it; it is left out. Raises `TranscriptError` for anything else
    that is wrong, when it comes to that line.
    """
    reader, number = _Reader(), 0
    for number, line in enumerate(lines, 1):
        try:
            if number == 1:
                _check_header(_parsed(line.removeprefix(_BOM)))
                continue
            item = reader.read(_parsed(line))
        except _CutShort:
            if number == 1:
                raise TranscriptError(1, "this is no transcript") from None
            on_cut_short(number)
            return
        except _Damaged as exc:
            raise TranscriptError(number, str(exc)) from None
        yield number, item
    if number == 0:
        raise TranscriptError(1, "the file is empty, and so no transcript")


def write_header() -> str:
    """Return the first line of a transcript."""
    return _encode({"transcript": VERSION}) + "\n"


def write_item(item: TranscriptItem) -> str:
    """Return the line for one item, to come after the header."""
    line = _observed_line(item) if isinstance(item, Observed) else _step_line(item)
    # DEL, C1, separators: JSON allows them, but a terminal obeys some.
    if (not line.isascii() or "\x7f" in line) and not line.isprintable():
        line = "".join(char if char.isprintable() else _escaped(char) for char in line)
    return line + "\n"


class _Damaged(Exception):
    """What is wrong with the present line."""


class _CutShort(_Damaged):
    """It is the last line, and its end is missing."""


# Lines


def _refuse(literal: str) -> float:
    raise _Damaged(f"{literal} is no number")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_quote = json.encoder.encode_basestring  # what `_encode` does to a string, in a third of the time
_decode = json.JSONDecoder(parse_constant=_refuse).decode


def _escaped(char: str) -> str:
    return json.dumps(char)[1:-1]


def _parsed(line: bytes) -> dict[str, Any]:
    has_end = line.endswith(b"\n")
    try:
        fields = _decode(line.decode())
    except UnicodeDecodeError as exc:
        if not has_end and exc.reason == "unexpected end of data":
            raise _CutShort from None
        raise _Damaged("this is not UTF-8") from None
    except json.JSONDecodeError as exc:
        if not has_end and exc.msg != "Extra data":
            raise _CutShort from None
        raise _Damaged(f"this is not JSON: {exc.msg}, column {exc.colno}") from None
    except ValueError:  # Python reads 4,300 digits, unless it is told otherwise
        raise _Damaged("a number has too many digits") from None
    except RecursionError:
        raise _Damaged("this is nested too deeply") from None
    parsed: dict[str, Any] = _checked(fields, dict, "an object")
    return parsed


def _check_header(fields: dict[str, Any]) -> None:
    version = fields.get("transcript")
    if not isinstance(version, int) or isinstance(version, bool):
        raise _Damaged("this is no transcript: it does not begin with its version")
    if version != VERSION:
        raise _Damaged(f"this is a transcript of version {version}, and only {VERSION} is known")


# Items

_EVENTS = {
    kind.__name__: kind
    for kind in (
        ConversationEnded,
        EOFReceived,
        ExitReceived,
        GoodbyeReceived,
        Greeted,
        NameRequested,
        NamesReceived,
        ProtocolViolated,
        Refused,
        SorryReceived,
        Welcomed,
    )
}
_OF_CLIENTS = (StepInput.NAMES, StepInput.EXIT)


# JSON is put together here, and not by the library from a dictionary: that takes twice the time.


def _observed_line(item: Observed) -> str:
    parts = [f'{{"id": {item.id}, "at": {item.at!r}, "observed": {_quote(item.what)}']
    for name, value in item.fields.items():
        kind = type(value)  # most are of these two, for which `_encode` takes long
        written = _quote(value) if kind is str else str(value) if kind is int else _encode(value)
        parts.append(f", {_quote(name)}: {written}")
    return "".join(parts) + "}"


def _step_line(step: Step) -> str:
    parts = [f'{{"id": {step.id}, "at": {step.at!r}, "input": "{step.input._value_}"']
    if step.opening:
        parts.append(_written_opening(step.opening))
    if step.data:
        parts.append(f', "data": {_written_bytes(step.data)}')
    if step.names:
        parts.append(f', "names": {_written_names(step.names)}')
    if step.output:
        parts.append(f', "output": {_written_bytes(step.output)}')
    if step.eof:
        parts.append(', "eof": true')
    if step.events:
        parts.append(f', "events": [{", ".join(map(_written_event, step.events))}]')
    parts.append(
        f', "deadline": {_written_seconds(step.deadline)}, "state": "{step.state._value_}", '
        f'"framing": "{step.framing._value_}"}}'
    )
    return "".join(parts)


def _written_opening(opening: Opening) -> str:
    config = ", ".join(
        f'"{name}": {write(getattr(opening.config, name))}'
        for name, (write, *_) in _FIELDS[type(opening.config)].items()
    )
    full = ', "full": true' if opening.full else ""
    peer = "" if opening.peer is None else f', "peer": {_quote(opening.peer)}'
    return (
        f', "role": "{opening.role}", "config": {{{config}}}{full}{peer}'
        f', "began": {opening.began!r}'
    )


def _written_event(event: Event) -> str:
    parts = [f'{{"event": "{type(event).__name__}"']
    for name, (write, *_) in _FIELDS[type(event)].items():
        value = getattr(event, name)
        if value:
            parts.append(f', "{name}": {write(value)}')
    return "".join(parts) + "}"


class _Reader:
    """Reads items, and keeps what it has to know of the conversations that go on."""

    def __init__(self) -> None:
        self._states: dict[int, Callable[[object], Any]] = {}  # how theirs are read
        self._times: dict[int, float] = {}  # of their last steps

    def read(self, fields: dict[str, Any]) -> TranscriptItem:
        """Return the item of one line."""
        number = _checked(fields.pop("id", None), int, "the number of a conversation (id)")
        at = _number(fields.pop("at", None), "a time (at)")
        what = fields.pop("observed", None)
        if what is not None:
            what = _checked(what, str, "what was observed")
            return Observed(id=number, at=at, what=what, fields=fields)
        step = self._step(number, at, fields)
        if step.at < self._times.get(number, step.at):
            raise _Damaged(f"time runs backwards, from {self._times[number]} to {step.at}")
        self._times[number] = step.at
        if step.state.is_ended:
            del self._times[number], self._states[number]
        return step

    def _step(self, number: int, at: float, fields: dict[str, Any]) -> Step:
        what: StepInput = _INPUTS(fields.get("input"))
        opening = None
        if what is StepInput.OPEN:
            if number in self._states:
                raise _Damaged(f"conversation {number} is open already")
            opening = _opening(fields)
            self._states[number] = _ROLES[opening.role][1]
        elif number not in self._states:
            raise _Damaged(f"conversation {number} is not open")
        elif what in _OF_CLIENTS and self._states[number] is _ROLES["server"][1]:
            raise _Damaged(f"a server has no input {what.value}")
        events = _checked(fields.get("events", []), list, "a list of events")
        return Step(
            id=number,
            at=at,
            input=what,
            opening=opening,
            data=_read_bytes(fields.get("data", _NO_BYTES)),
            names=_read_names(fields.get("names", [])),
            output=_read_bytes(fields.get("output", _NO_BYTES)),
            eof=_checked(fields.get("eof", False), bool, "true or false"),
            events=tuple(map(_read_event, events)),
            deadline=_read_seconds(fields.get("deadline")),
            state=self._states[number](fields.get("state")),
            framing=_FRAMINGS(fields.get("framing")),
        )


def _opening(fields: dict[str, Any]) -> Opening:
    role = fields.get("role")
    if role not in ("server", "client"):
        raise _Damaged(f"{_excerpt(role)} is no role: server or client")
    config = _checked(fields.get("config"), dict, "a configuration")
    peer = fields.get("peer")
    return Opening(
        config=_read(_ROLES[role][0], config),
        full=_checked(fields.get("full", False), bool, "true or false"),
        peer=peer if peer is None else _checked(peer, str, "an address"),
        began=_number(fields.get("began", 0.0), "a time (began)"),
    )


def _read_event(value: object) -> Event:
    fields = _checked(value, dict, "an event")
    kind = _EVENTS.get(str(fields.get("event")))
    if kind is None:
        raise _Damaged(f"{_excerpt(fields.get('event'))} is no event")
    event: Event = _read(kind, fields)
    return event


# Values of JSON, checked


def _checked(value: Any, kind: Any, what: str) -> Any:  # noqa: ANN401 - an instance of that kind
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _Damaged(f"{_excerpt(value)} is not {what}")
    return value


def _number(value: object, what: str) -> float:
    number = _checked(value, (int, float), what)
    try:
        if math.isfinite(number):
            return float(number)
    except OverflowError:  # a whole number beyond the largest float
        pass
    raise _Damaged(f"{_excerpt(value)} is not {what}")


def _excerpt(value: object) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


# How values of each type are written, and how they are read

_NO_BYTES = {"text": ""}


def _written_bytes(data: bytes) -> str:
    try:
        return f'{{"text": {_quote(data.decode())}}}'
    except UnicodeDecodeError:
        return f'{{"hex": "{data.hex()}"}}'


def _read_bytes(value: object) -> bytes:
    try:
        match value:
            case {"text": str(text)}:
                return text.encode()
            case {"hex": str(digits)}:
                return bytes.fromhex(digits)
    except ValueError:  # a lone surrogate, or other than digits
        pass
    raise _Damaged(f"{_excerpt(value)} is not bytes, as text or hex")


def _written_names(names: Sequence[bytes]) -> str:
    # A pipelined name costs a fraction of the time if all of them are quoted together, with LFs
    # between them. A name that holds an LF or a backslash does not go with that.
    with contextlib.suppress(UnicodeDecodeError):
        text = b"\n".join(names).decode()
        if text.count("\n") == len(names) - 1 and "\\" not in text:
            return f'[{{"text": {_quote(text).replace(_QUOTED_LF, _BETWEEN)}}}]'
    return f"[{', '.join(map(_written_bytes, names))}]"


def _read_names(value: object) -> tuple[bytes, ...]:
    return tuple(map(_read_bytes, _checked(value, list, "a list of names")))


def _written_seconds(seconds: float) -> str:
    return repr(float(seconds)) if seconds < math.inf else "null"


def _read_seconds(value: object) -> float:
    return math.inf if value is None else _number(value, "a time")


def _written_name(member: enum.Enum) -> str:
    return f'"{member.name.lower()}"'


def _reader_of_names(kind: type[enum.Enum]) -> Callable[[object], Any]:
    members = {member.name.lower(): member for member in kind}

    def read(value: object) -> enum.Enum:
        member = members.get(value) if isinstance(value, str) else None
        if member is None:
            raise _Damaged(f"{_excerpt(value)} is not one of {', '.join(members)}")
        return member

    return read


_INPUTS, _FRAMINGS = map(_reader_of_names, (StepInput, Framing))
_ROLES: dict[str, Any] = {
    "server": (ServerConfig, _reader_of_names(ServerState)),
    "client": (ClientConfig, _reader_of_names(ClientState)),
}
_KINDS: dict[Any, tuple[Callable[[Any], str], Callable[[object], object], object]] = {
    bytes: (_written_bytes, _read_bytes, _NO_BYTES),
    Sequence[bytes]: (_written_names, _read_names, []),
    float: (_written_seconds, _read_seconds, None),
    int: (str, lambda value: _checked(value, int, "a whole number"), None),
    **{kind: (_written_name, _reader_of_names(kind), None) for kind in (EndReason, Refusal)},
    Framing: (_written_name, _FRAMINGS, None),
}
"""How a field of such a type is written and read, and what it is where it is absent."""

_FIELDS: dict[Any, dict[str, Any]] = {
    kind: {field.name: _KINDS[field.type] for field in attrs.fields(kind)}
    for kind in (*_EVENTS.values(), ServerConfig, ClientConfig)
}


def _read(kind: Any, values: Mapping[str, object]) -> Any:  # noqa: ANN401 - an instance of that kind
    given = {
        name: read(values.get(name, absent))
        for name, (_, read, absent) in _FIELDS[kind].items()
        if name in values or kind not in (ServerConfig, ClientConfig)
    }
    try:
        return kind(**given)
    except LocalProtocolError as exc:
        raise _Damaged(str(exc)) from None
