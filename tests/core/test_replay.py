"""A replay yields the same, or the first difference (TRANSCRIPT.md)."""

from collections.abc import Iterable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greeter_core import (
    Difference,
    Recording,
    Step,
    StepInput,
    TranscriptError,
    TranscriptItem,
    read_transcript,
    replay,
)
from tests.support.laws import Case, cases, law, play
from tests.support.words import PROMPT

from .transcripts import recorded, text_of


def replayed(text: bytes) -> Difference | None:
    return replay(read_transcript(text.splitlines(keepends=True)))


def numbered(items: list[TranscriptItem]) -> list[tuple[int, TranscriptItem]]:
    return list(enumerate(items, 2))


def conversation() -> list[TranscriptItem]:
    """Return a recording with every input of a server."""
    items: list[TranscriptItem] = []
    recording = Recording(items.append, now=0.0)
    server = recording.server(now=0.0)
    server.data_in_flight(0.02)
    server.handle_timeout(0.04)
    server.observe("tcp", 0.05, state="ESTABLISHED")
    server.receive_data(b"Ada\n", 1.0)
    server.shutdown(2.0)
    server.receive_eof(2.5)
    client = recording.client(now=3.0)
    client.receive_data(b"Welcome!\nWhat's your name?", 3.0)
    client.send_names([b"Ada"], 3.5)
    client.send_exit(4.0)
    client.connection_lost()
    return items


@given(cases, st.floats(0, 1e9))
@law(200)
def test_recording_replays_to_the_last_bit(case: Case, opened: float) -> None:
    items: list[TranscriptItem] = []
    script = [(opened + now, step) for now, step in case.script]
    play(recorded(case, items, opened), script)
    assert replayed(text_of(items)) is None
    assert replay(numbered(items)) is None


def test_every_input_is_replayed() -> None:
    items = conversation()
    assert {item.input for item in items if isinstance(item, Step)} == set(StepInput)
    assert replayed(text_of(items)) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("output", PROMPT + b" "),
        ("eof", True),
        ("events", ()),
        ("deadline", 301.0000000000001),
    ],
)
def test_first_difference_is_told(field: str, value: object) -> None:
    items = conversation()
    at = 4
    wrong = attrs.evolve(items[at], **{field: value})  # type: ignore[arg-type]
    difference = replay(numbered([*items[:at], wrong, *items[at + 1 :]]))
    assert difference
    assert (difference.line, difference.expected, difference.got) == (at + 2, wrong, items[at])
    assert difference.fields == [field]


@pytest.mark.parametrize(
    ("line", "old", "new", "why"),
    [
        (2, b'"role": "server"', b'"role": "server", "full": true', None),
        (3, b'"at": 0.02', b'"at": 0.01', None),
        (5, b'"state"', b'"status"', None),  # observed: it says nothing of the core
        (6, b'{"text": "Ada\\n"}', b'{"text": ""}', "data must not be empty"),
        (11, b'{"text": "Ada"}', b'{"text": "exit"}', "exit is not a name"),
    ],
)
def test_tampering(line: int, old: bytes, new: bytes, why: str | None) -> None:
    lines = text_of(conversation()).splitlines(keepends=True)
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    if why:
        with pytest.raises(TranscriptError, match=f"^line {line}: no connection takes .*: {why}"):
            replay(read_transcript(lines))
        return
    difference = replay(read_transcript(lines))
    if line == 5:
        assert difference is None
    else:
        assert difference
        assert difference.line == line


def outcomes(items: Iterable[TranscriptItem]) -> list[tuple[object, ...]]:
    return [
        (step.output, step.eof, tuple(step.events), step.deadline, step.state, step.framing)
        for step in items
        if isinstance(step, Step)
    ]


def test_no_byte_of_an_outcome_can_be_changed() -> None:
    """What passes without notice has changed inputs that have the same outcome."""
    items = [item for item in conversation() if isinstance(item, Step)]
    whole = text_of(items)
    for at, byte in enumerate(whole[:-1]):
        lines = (whole[:at] + bytes([byte ^ 1]) + whole[at + 1 :]).splitlines(keepends=True)
        line = whole[:at].count(b"\n") + 1
        damaged = difference = None
        try:
            difference = replay(read_transcript(lines))
        except TranscriptError as exc:
            damaged = exc.line
        if damaged is not None:
            assert damaged >= line
        elif difference:
            assert difference.line >= line
        else:
            assert outcomes(item for _, item in read_transcript(lines)) == outcomes(items)


def test_conversations_may_be_mixed() -> None:
    items: list[TranscriptItem] = []
    recording = Recording(items.append, now=0.0)
    first, second = recording.server(now=0.0), recording.server(now=0.25)
    second.receive_data(b"Bob\n", 0.5)
    first.receive_data(b"Ada\n", 0.75)
    second.receive_eof(1.0)
    first.receive_eof(1.0)
    assert replay(numbered(items)) is None
