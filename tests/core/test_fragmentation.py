"""How a stream was cut into arrivals must not show in the answers (PROTOCOL.md, F)."""

import math

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import greeter_core as core
from tests.support import laws
from tests.support.laws import Outcome, Step, cut, law, play
from tests.support.virtual import AUTO, LINES, RAW, Client, Server, spoken
from tests.support.words import ADA, GOODBYE, PROMPT, WELCOME, hello

streams = st.lists(laws.client_bytes, min_size=1, max_size=4).map(b"".join)


@pytest.mark.parametrize(("framing", "gap"), [(AUTO, 0), (LINES, 0), (LINES, 1.5)])
@given(laws.small_sizes, streams, laws.cut_sizes)
@law(100)
def test_server_answers_however_a_stream_is_cut(
    framing: core.Framing, gap: float, size: int, stream: bytes, sizes: list[int]
) -> None:
    """In LINES at any times, under AUTO if no deadline is noticed meanwhile [F1, F2]."""
    answers = []
    for pieces in (cut(stream, sizes), [stream]):
        server = Server(framing, max_name_size=size, idle_timeout=math.inf, linger=1e6)
        for piece in pieces:
            server.hears(piece, at=server.now + gap)
        server.hears_eof()
        answers.append((server.stream, server.names, server.end))
    assert answers[0] == answers[1]


INTERESTING = b"Ada\r\n\nBob Smith\r\r\n\r\n\x00\xff\n123456789012\r\nexi\nexit\r\nnobody\n"
NAMES = [b"Ada", b"Bob Smith\r", b"\x00\xff", b"123456789012", b"exi"]
ANSWERS = [
    *(ADA + PROMPT, PROMPT, hello(NAMES[1]) + PROMPT, PROMPT),
    *(hello(name) + PROMPT for name in NAMES[2:]),
    GOODBYE,
]


@pytest.mark.parametrize("framing", [AUTO, LINES])
def test_server_answers_wherever_a_stream_is_cut_in_two(framing: core.Framing) -> None:
    """And each line with its very last byte [F1, F2]."""
    for at in range(1, len(INTERESTING)):
        server = Server(framing, max_name_size=12)
        server.hears(INTERESTING[:at])
        server.hears(INTERESTING[at:])
        assert server.stream == WELCOME + PROMPT + b"".join(ANSWERS), at
        assert server.names == NAMES
    server = Server.asked(framing, max_name_size=12)
    said = {at: server.hears(byte) for at, byte in enumerate(cut(INTERESTING, [1]))}
    ends = [at for at, byte in enumerate(INTERESTING) if byte == 0x0A]
    assert [said.pop(at) for at in ends] == [*ANSWERS, b""], "the last line comes after exit"
    assert set(said.values()) == {b""}


def heard(outcome: Outcome) -> Outcome:
    """Return the outcome without what left before an end, and how much nonsense came."""
    events = [
        attrs.evolve(event, received=b"") if isinstance(event, core.ProtocolViolated) else event
        for event in outcome.events
    ]
    return attrs.evolve(outcome, stream=b"", events=events)


names_and_exits = st.tuples(
    st.lists(st.tuples(st.just("send_name"), laws.client_names), max_size=4),
    st.sampled_from([[], [("send_exit", None)]]),
)


@given(st.sampled_from(core.Framing), names_and_exits, laws.server_streams, laws.cut_sizes)
@law(80)
def test_client_understands_however_a_stream_is_cut(
    framing: core.Framing, asked: tuple[list[Step], list[Step]], stream: bytes, sizes: list[int]
) -> None:
    """Good or bad [F3]."""
    outcomes = []
    for pieces in (cut(stream, sizes), cut(stream, [len(stream)])):
        script = [*asked[0], *asked[1], *(("receive_data", piece) for piece in pieces)]
        client = core.ClientConnection(core.ClientConfig(framing=framing), now=0)
        outcomes.append(play(client, [*((0, step) for step in script), (1, ("receive_eof", None))]))
    assert heard(outcomes[0]) == heard(outcomes[1])


WORDS = r"WELCOME PROMPT HELLO:Ada PROMPT HELLO:Wha PROMPT HELLO:!\x00 PROMPT GOODBYE"
ORIGINAL = WORDS.replace("HELLO:Ada", r"HELLO:Ada\n")


@pytest.mark.parametrize(
    ("framing", "words"), [(AUTO, WORDS), (LINES, WORDS), (RAW, WORDS), (AUTO, ORIGINAL)]
)
def test_client_understands_wherever_a_stream_is_cut_in_two(
    framing: core.Framing, words: str
) -> None:
    """And byte by byte [F3, C1.1]."""
    stream = spoken(words)
    for sizes in [[at, len(stream)] for at in range(1, len(stream))] + [[1]]:
        client = Client(framing)
        client.asks(b"Ada", b"Wha", b"!\x00")
        client.asks_exit()
        for piece in cut(stream, sizes):
            client.hears(piece)
        client.hears_eof()
        assert client.names == [b"Ada", b"Wha", b"!\x00"]
        assert client.events[-2] == core.GoodbyeReceived()
        assert client.end is core.EndReason.EXIT
