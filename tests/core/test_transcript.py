"""Transcripts are written and read as TRANSCRIPT.md says."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import greeter_core as core
from greeter_core import (
    ClientConfig,
    ClientState,
    Framing,
    Observed,
    Opening,
    Recording,
    ServerConfig,
    ServerState,
    Step,
    StepInput,
    TranscriptError,
    TranscriptItem,
    read_transcript,
    write_header,
)
from tests.support.laws import Case, cases, law, play

from .state_docs import CORE
from .transcripts import items_of, recorded, text_of

HEADER = write_header()
SCHEMA = json.loads((CORE / "transcript.schema.json").read_text("utf-8"))
IS_VALID = Draft202012Validator(SCHEMA)
PAGE = (CORE / "TRANSCRIPT.md").read_text("utf-8")

OPEN = {
    "id": 1,
    "at": 0.0,
    "input": "open",
    "role": "server",
    "config": {"framing": "auto"},
    "deadline": 0.02,
    "state": "open",
    "framing": "auto",
}
CLIENT = OPEN | {"role": "client", "state": "connected"}
STEP = {"id": 1, "at": 1, "input": "timeout", "deadline": None, "state": "open", "framing": "auto"}


def lines(*objects: object) -> bytes:
    return "".join([HEADER, *(f"{json.dumps(each)}\n" for each in objects)]).encode()


# What is written is read again

some_bytes = st.one_of(
    st.binary(max_size=9),
    st.text(max_size=9).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
times = st.floats(allow_nan=False, allow_infinity=False)
names = st.lists(some_bytes, max_size=3).map(tuple)
events = st.one_of(
    st.builds(core.NamesReceived, names),
    st.sampled_from([core.ExitReceived(), core.EOFReceived(), core.Welcomed()]),
    st.sampled_from([core.NameRequested(), core.GoodbyeReceived()]),
    st.builds(core.Refused, st.sampled_from(core.Refusal), some_bytes),
    st.builds(core.Greeted, some_bytes),
    st.builds(core.SorryReceived, some_bytes),
    st.builds(core.ProtocolViolated, some_bytes, some_bytes),
    st.builds(core.ConversationEnded, st.sampled_from(core.EndReason), names),
)


def steps(role: str) -> st.SearchStrategy[Step]:
    inputs = set(StepInput) - {StepInput.OPEN}
    if role == "server":
        inputs -= {StepInput.NAMES, StepInput.EXIT}
    states: Any = ServerState if role == "server" else ClientState
    return st.builds(
        Step,
        id=st.just(1),
        at=st.just(1.5),
        input=st.sampled_from(sorted(inputs, key=str)),
        data=some_bytes,
        names=names if role == "client" else st.just(()),
        output=some_bytes,
        eof=st.booleans(),
        events=st.lists(events, max_size=3).map(tuple),
        deadline=st.one_of(times, st.just(math.inf)),
        state=st.sampled_from([state for state in states if not state.is_ended]),
        framing=st.sampled_from(Framing),
    )


configs = st.sampled_from(
    [ServerConfig(), ServerConfig(framing=Framing.RAW, idle_timeout=math.inf), ClientConfig()]
)


@given(st.data(), configs)
@law(150)
def test_every_step_is_read_as_it_was_written(data: st.DataObject, config: Any) -> None:
    opening = Opening(
        config=config,
        full=data.draw(st.booleans()),
        peer=data.draw(st.one_of(st.none(), st.text(st.characters(codec="utf-8"), max_size=9))),
        began=data.draw(times),
    )
    role = opening.role
    first = Step(
        id=1,
        at=0.0,
        input=StepInput.OPEN,
        opening=opening,
        state=ServerState.OPEN if role == "server" else ClientState.CONNECTED,
        framing=Framing.AUTO,
    )
    items = [first, *data.draw(st.lists(steps(role), max_size=3))]
    text = text_of(items)
    assert items_of(text) == items
    assert text.decode().replace("\n", "").isprintable()
    for line in text.decode().split("\n")[:-1]:
        IS_VALID.validate(json.loads(line))


@given(cases)
@law(100)
def test_recordings_are_valid_and_read_again(case: Case) -> None:
    items: list[TranscriptItem] = []
    play(recorded(case, items), case.script)
    text = text_of(items)
    assert items_of(text) == items
    for line in text.decode().split("\n")[:-1]:
        IS_VALID.validate(json.loads(line))


@pytest.mark.parametrize(
    "names", [[b"a\\nb", b"c"], [b"a\nb", b"c"], [b'"}, {"text": "', b"\\"], [b"\xe5", b"\x8f"]]
)
def test_names_that_look_like_what_stands_between_names(names: list[bytes]) -> None:
    items: list[TranscriptItem] = []
    Recording(items.append, now=0.0).server(now=0.0)
    step = Step(
        id=1,
        at=1.0,
        input=StepInput.DATA,
        events=[core.NamesReceived(names)],
        state=ServerState.OPEN,
        framing=Framing.RAW,
    )
    assert items_of(text_of([*items, step]))[1] == step


def test_what_was_observed_keeps_its_fields() -> None:
    observed = Observed(id=3, at=-0.5, what="tcp", fields={"end": "client", "state": "x", "n": [1]})
    assert items_of(text_of([observed])) == [observed]


def test_page_shows_a_recording_as_it_is_written() -> None:
    items: list[TranscriptItem] = []
    server = Recording(items.append, now=0.0).server(now=0.0, peer="127.0.0.1:42101")
    server.handle_timeout(0.02)
    server.receive_data(b"Ada\n", 3.0)
    server.observe("tcp", 3.001, end="server", state="ESTABLISHED", rtt_ms=0.031)
    server.receive_data("\x1b\u5c0f\u660e\n".encode() + b"\xff\n", 4.5)
    server.receive_data(b"exit\n", 6.0)
    server.receive_eof(6.25)
    shown = re.search(r"```json\n(\{\"transcript\".*?)```", PAGE, re.DOTALL)
    assert shown
    assert shown[1] == text_of(items).decode()


def test_recording_with_a_framework_of_ones_own_as_the_page_shows_it() -> None:
    code = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code
    written: list[str] = []
    exec(code[1], {"file": type("File", (), {"write": written.append})})
    assert items_of("".join(written).encode())


# What is passed over


def test_unknown_fields_and_kinds_are_passed_over() -> None:
    text = lines(
        OPEN | {"new": 1, "config": {"new": [], "pace": 0.02}},
        STEP | {"new": {}, "events": [{"event": "ExitReceived", "new": 1}]},
        {"id": 99, "at": 5, "observed": "new", "anything": None},
    )
    opened, step, seen = items_of(text)
    assert isinstance(opened, Step)
    assert opened.opening == Opening(config=ServerConfig())
    assert isinstance(step, Step)
    assert step.events == (core.ExitReceived(),)
    assert seen == Observed(id=99, at=5.0, what="new", fields={"anything": None})


@pytest.mark.parametrize("how", ["crlf", "bom", "both"])
def test_line_ends_of_windows_and_a_byte_order_mark_are_taken(how: str) -> None:
    text = lines(OPEN, STEP)
    expected = items_of(text)
    if how != "bom":
        text = text.replace(b"\n", b"\r\n")
    if how != "crlf":
        text = b"\xef\xbb\xbf" + text
    assert items_of(text) == expected


# What is damaged

DAMAGED: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 1, "empty"),
    "one empty line": (b"\n", 1, "not JSON"),
    "other JSON": (b'{"a": 1}\n', 1, "no transcript"),
    "a list": (b"[]\n", 1, r"\[\] is not an object"),
    "a cut header": (b'{"transc', 1, "no transcript"),
    "version 2": (b'{"transcript": 2}\n', 1, "version 2, and only 1 is known"),
    "version true": (b'{"transcript": true}\n', 1, "no transcript"),
    "not UTF-8": (lines(OPEN) + b"\xff\n", 3, "not UTF-8"),
    "no JSON": (lines(OPEN) + b"hello\n", 3, "not JSON: Expecting value, column 1"),
    "an empty line": (lines(OPEN) + b"\n", 3, "not JSON"),
    "two objects": (lines(OPEN) + b"{}{}", 3, "Extra data"),
    "a second mark": (lines(OPEN) + b"\xef\xbb\xbf{}\n", 3, "not JSON"),
    "digits": (lines() + b'{"id": ' + b"1" * 5000 + b"}\n", 2, "too many digits"),
    "depth": (lines() + b"[" * 100000 + b"\n", 2, "nested too deeply"),
    "NaN": (lines() + b'{"id": 1, "at": NaN}\n', 2, "NaN is no number"),
    "-Infinity": (lines() + b'{"id": 1, "at": -Infinity}\n', 2, "-Infinity is no number"),
    "1e999": (lines() + b'{"id": 1, "at": 1e999}\n', 2, "not a time"),
    "a huge whole number": (lines() + b'{"id": 1, "at": ' + b"9" * 400 + b"}\n", 2, "not a time"),
    "no id": (lines({}), 2, r"nothing is not the number of a conversation \(id\)"),
    "id true": (lines(OPEN | {"id": True}), 2, "true is not the number"),
    "id text": (lines(OPEN | {"id": "1"}), 2, '"1" is not the number'),
    "no time": (lines({"id": 1}), 2, r"nothing is not a time \(at\)"),
    "observed what": (lines({"id": 1, "at": 1, "observed": 5}), 2, "5 is not what was observed"),
    "no input": (lines({"id": 1, "at": 1}), 2, "nothing is not one of open, data"),
    "unknown input": (lines(OPEN | {"input": "x"}), 2, '"x" is not one of open, data, eof'),
    "not open": (lines(STEP), 2, "conversation 1 is not open"),
    "another one": (lines(OPEN, STEP | {"id": 2}), 3, "conversation 2 is not open"),
    "open twice": (lines(OPEN, OPEN), 3, "conversation 1 is open already"),
    "after the end": (lines(OPEN, STEP | {"state": "ended"}, STEP), 4, "1 is not open"),
    "backwards": (lines(OPEN, STEP, STEP | {"at": 0.5}), 4, "runs backwards, from 1.0 to 0.5"),
    "no role": (lines(OPEN | {"role": None}), 2, "nothing is no role"),
    "unknown role": (lines(OPEN | {"role": ["x"]}), 2, r'\["x"\] is no role: server or client'),
    "no config": (lines(OPEN | {"config": None}), 2, "nothing is not a configuration"),
    "wrong config": (lines(OPEN | {"config": {"pace": -1}}), 2, "pace must be .*, not -1"),
    "config size": (lines(OPEN | {"config": {"max_name_size": 1.5}}), 2, "a whole number"),
    "full": (lines(OPEN | {"full": 1}), 2, "1 is not true or false"),
    "peer": (lines(OPEN | {"peer": 1}), 2, "1 is not an address"),
    "began": (lines(OPEN | {"began": None}), 2, r"nothing is not a time \(began\)"),
    "data": (lines(OPEN | {"data": "x"}), 2, '"x" is not bytes'),
    "no kind of bytes": (lines(OPEN | {"data": {}}), 2, "is not bytes, as text or hex"),
    "odd hex": (lines(OPEN | {"data": {"hex": "abc"}}), 2, "is not bytes"),
    "a lone surrogate": (lines(OPEN | {"data": {"text": "\ud800"}}), 2, "is not bytes"),
    "names": (lines(CLIENT | {"names": {}}), 2, "is not a list of names"),
    "names of a server": (lines(OPEN, STEP | {"input": "names"}), 3, "a server has no input names"),
    "exit of a server": (lines(OPEN, STEP | {"input": "exit"}), 3, "a server has no input exit"),
    "eof": (lines(OPEN | {"eof": "yes"}), 2, '"yes" is not true or false'),
    "events": (lines(OPEN | {"events": {}}), 2, "is not a list of events"),
    "an event": (lines(OPEN | {"events": [1]}), 2, "1 is not an event"),
    "unknown event": (lines(OPEN | {"events": [{"event": "X"}]}), 2, '"X" is no event'),
    "no reason": (lines(OPEN | {"events": [{"event": "Refused"}]}), 2, "nothing is not one of"),
    "deadline": (lines(OPEN | {"deadline": "x"}), 2, '"x" is not a time'),
    "no state": (lines(OPEN | {"state": None}), 2, "nothing is not one of open, closing, ended"),
    "state of the other role": (lines(OPEN | {"state": "prompted"}), 2, "is not one of open"),
    "no framing": (lines(OPEN | {"framing": 1}), 2, "1 is not one of auto, lines, raw"),
    "a long value": (lines(OPEN | {"framing": "x" * 99}), 2, '"x{39}\\.\\.\\. is not one of'),
}


@pytest.mark.parametrize(("text", "line", "why"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_line_is_refused_with_its_number(text: bytes, line: int, why: str) -> None:
    with pytest.raises(TranscriptError, match=f"^line {line}: .*{why}") as caught:
        items_of(text)
    assert caught.value.line == line


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"transcript": 2},
        OPEN | {"id": "1"},
        OPEN | {"role": "other"},
        OPEN | {"config": {"framing": "new"}},
        STEP | {"input": "other"},
        STEP | {"state": "nowhere"},
        STEP | {"data": {"text": 1}},
        STEP | {"events": [{"event": "Other"}]},
        {"id": 1, "at": 0, "observed": None},
    ],
)
def test_schema_refuses_what_is_wrong(wrong: object) -> None:
    assert not IS_VALID.is_valid(wrong)


def test_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


# What is cut short


def cuts() -> Iterator[tuple[bytes, int]]:
    items: list[TranscriptItem] = []
    server = Recording(items.append, now=0.0).server(now=0.0)
    server.handle_timeout(1.0)
    server.receive_data("\u5c0f\u660e\n".encode(), 1.25)
    text = text_of(items)
    before = text[:-1].rindex(b"\n") + 1
    for at in range(before, len(text)):
        yield text[:at], len(text) - 1 - at


def test_last_line_may_be_cut_short_anywhere() -> None:
    for text, missing in cuts():
        cut: list[int] = []
        source = text.splitlines(keepends=True)
        items = [item for _, item in read_transcript(source, on_cut_short=cut.append)]
        if missing == 0 or text.endswith(b"\n"):  # the object is whole; or there is none
            assert cut == []
        else:
            assert cut == [4]
        assert len(items) == (3 if missing == 0 else 2)


def test_cut_is_left_out_without_a_word_if_nobody_asks() -> None:
    assert len(items_of(lines(OPEN)[:-1] + b"\n{")) == 1


def test_line_in_the_middle_cannot_be_cut_short() -> None:
    with pytest.raises(TranscriptError, match="line 2"):
        items_of(HEADER.encode() + b'{"id": 1\n' + json.dumps(STEP).encode())


def test_resources_are_beside_the_code() -> None:
    assert Path(CORE / "transcript.schema.json").is_file()
