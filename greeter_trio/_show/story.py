"""Conversations from beginning to end: the rows of each, with all that is known at each of them."""

from collections.abc import Iterable
from typing import Any

import attrs

from greeter_core import Observed, Step, TranscriptItem

from .diagram import Diagram, End, Kind, Row
from .width import shortened


@attrs.frozen
class Moment:
    """A row, and how things stand after it."""

    row: Row
    phase: str
    """`connection`, `transfer` or `termination`."""
    tcp: dict[End, str]
    """The states of TCP, as far as they were observed."""
    core: str
    """The state of the recorded core."""
    framing: str
    timer: str
    """The core's timer that runs out next, and in which time from the last step on."""


@attrs.frozen
class Story:
    """One conversation."""

    id: int
    title: str
    own: End | None
    """The end whose core is recorded."""
    rows: list[Moment]
    links: list[tuple[int, int]]
    """Pairs of rows, by their indices: a send, and the receive that brought its last byte."""

    def facts(self) -> dict[str, Any]:
        """Return all of it as JSON values, for the script."""
        return {
            "id": self.id,
            "title": self.title,
            "own": self.own.value if self.own else "",
            "rows": [_facts(moment) for moment in self.rows],
            "links": self.links,
        }


def stories(items: Iterable[TranscriptItem]) -> list[Story]:
    """Return the conversations of a transcript, by their numbers."""
    diagram = Diagram()
    rows: dict[int, list[Row]] = {}
    for item in items:
        rows.setdefault(item.id, []).extend(diagram.rows(item))
    return [_story(number, rows[number]) for number in sorted(rows) if rows[number]]


def _story(number: int, rows: list[Row]) -> Story:
    opening = next((row for row in rows if row.kind is Kind.OPENING), None)
    rows = sorted((row for row in rows if row.kind is not Kind.OPENING), key=lambda row: row.at)
    own = opening.own if opening else None
    other = own.other.value if own else "connection"
    peer = f" {opening.text}" if opening and opening.text else ""
    return Story(number, f"#{number}: {other}{peer}", own, _moments(rows), _links(rows))


def _moments(rows: list[Row]) -> list[Moment]:
    tcp: dict[End, str] = {}
    phase, core, framing, timer = "connection", "", "", ""
    moments = []
    for row in rows:
        if row.kind is Kind.TCP:
            tcp = {**tcp, row.end: row.text}
        if phase == "connection" and (row.kind is Kind.MESSAGE or _has_data(row)):
            phase = "transfer"
        if row.kind is Kind.EOF or _ends(row):
            phase = "termination"
        if isinstance(row.item, Step):
            core, framing = row.item.state.value, row.item.framing.value
            timer = row.timer
        moments.append(Moment(row, phase, tcp, core, framing, timer))
    return moments


def _has_data(row: Row) -> bool:
    return row.kind is Kind.SEGMENT and "  len " in row.text


def _ends(row: Row) -> bool:
    if row.kind is Kind.SEGMENT:
        return row.text.startswith(("FIN", "RST"))
    return row.kind is Kind.CALL and row.text == "close"


def _links(rows: list[Row]) -> list[tuple[int, int]]:
    """Pair sends and receives by the bytes that they carry, not by their order."""
    links: list[tuple[int, int]] = []
    for sender in End:
        sent = [(at, row) for at, row in enumerate(rows) if _is_call(row, "send", sender)]
        received = [
            (at, row) for at, row in enumerate(rows) if _is_call(row, "receive", sender.other)
        ]
        total_received, arrivals = 0, iter(received)
        end, at = 0, -1
        for index, row in sent:
            end += _size(row)
            while total_received < end:
                at, arrival = next(arrivals, (-1, None))
                if arrival is None:
                    return links
                total_received += _size(arrival)
            links.append((index, at))
    return links


def _is_call(row: Row, call: str, end: End) -> bool:
    return row.is_transfer and row.end is end and row.text.startswith(call)


def _size(row: Row) -> int:
    assert isinstance(row.item, Observed)  # noqa: S101 - calls are
    return int(row.item.fields["bytes"])


def _facts(moment: Moment) -> dict[str, Any]:
    row = moment.row
    facts: dict[str, Any] = {
        "kind": row.kind.value,
        "at": row.at,
        "end": row.end.value,
        "text": shortened(row.label, 200),
        "notes": list(row.notes),
        "phase": moment.phase,
        "client": moment.tcp.get(End.CLIENT, ""),
        "server": moment.tcp.get(End.SERVER, ""),
        "core": moment.core,
        "framing": moment.framing,
        "timer": moment.timer,
    }
    if row.rtt:
        facts["rtt"] = row.rtt
    if row.data:
        facts["hex"] = row.data.hex()
    if row.kind is Kind.SEGMENT and isinstance(row.item, Observed):
        numbers = {name: row.item.fields.get(name) for name in ("seq", "ack", "length", "window")}
        facts["segment"] = {
            "flags": row.text.split("  ")[0].split(" "),
            "assumed": row.is_assumed,
            **{name: value for name, value in numbers.items() if isinstance(value, int)},
        }
    return facts
