"""Fragmentation (PROTOCOL.md, F): how a stream was cut into arrivals must not be heard in the answers."""

import itertools
import math

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greeter_core import (
    ClientConfig,
    ClientConnection,
    EndReason,
    Framing,
    GoodbyeReceived,
    NamesReceived,
    ProtocolViolated,
    ServerConfig,
    ServerConnection,
)

from .helpers import (
    AUTO,
    GOODBYE,
    LINES,
    PROMPT,
    RAW,
    WELCOME,
    Client,
    Outcome,
    Script,
    Server,
    Step,
    client_bytes,
    client_names,
    cut,
    cut_sizes,
    hello,
    law,
    play,
    server_streams,
    small_sizes,
)

EOF: Step = ("eof", None)
SHUTDOWN: Step = ("shutdown", None)

streams = st.lists(client_bytes, min_size=1, max_size=4).map(b"".join)
endings = st.sampled_from([EOF, SHUTDOWN])


def flat(outcome: Outcome) -> Outcome:
    """Return the outcome without what the cutting may show in: when it began to close, and what was reported together.

    Nor does the framing count: a name that is too long can be refused before the LF that would decide it has come.
    """
    names = [name for event in outcome.events if isinstance(event, NamesReceived) for name in event.names]
    others = [event for event in outcome.events if not isinstance(event, NamesReceived)]
    return attrs.evolve(outcome, events=[*names, *others], deadline=0, framing=AUTO)


def answers(config: ServerConfig, script: Script) -> Outcome:
    """Return what a server makes of a script."""
    return flat(play(ServerConnection(config, now=0), script))


# F1 Lines


@given(small_sizes, streams, cut_sizes, st.lists(st.sampled_from([0.0, 0.5, 5.0]), min_size=1), endings)
@law(120)
def test_lines(size: int, stream: bytes, sizes: list[int], gaps: list[float], ending: Step) -> None:
    """In LINES the answers do not depend on how the stream was cut, nor on when its pieces came [F1]."""
    config = ServerConfig(framing=LINES, max_name_size=size, idle_timeout=math.inf, linger=1e6)
    script: Script = []
    now = 0.0
    for piece, gap in zip(cut(stream, sizes), itertools.cycle(gaps), strict=False):
        script.append((now, ("data", piece)))
        now += gap
    assert answers(config, [*script, (now, ending)]) == answers(config, [(0, ("data", stream)), (now, ending)])


# F2 Undecided


@given(small_sizes, streams, cut_sizes, st.lists(st.sampled_from([0.0, 0.5, 1.5, 5.0]), min_size=1), endings)
@law(120)
def test_undecided(size: int, stream: bytes, sizes: list[int], gaps: list[float], ending: Step) -> None:
    """Under AUTO the answers do not depend on the cutting, if quiet has not fired [F2, T3]."""
    config = ServerConfig(framing=AUTO, max_name_size=size, pace=1, quiet=2, idle_timeout=math.inf, linger=1e6)
    script: Script = []
    now = 0.0
    for piece, gap in zip(cut(stream, sizes), itertools.cycle(gaps), strict=False):
        now += gap  # nobody looks meanwhile
        script.append((now, ("data", piece)))
    assert answers(config, [*script, (now, ending)]) == answers(config, [(now, ("data", stream)), (now, ending)])


INTERESTING = b"Ada\r\n\nBob Smith\r\r\n\r\n\x00\xff\n123456789012\r\nexi\nexit\r\nnobody\n"
ANSWERS = (
    hello(b"Ada") + PROMPT,
    PROMPT,
    hello(b"Bob Smith\r") + PROMPT,
    PROMPT,
    hello(b"\x00\xff") + PROMPT,
    hello(b"123456789012") + PROMPT,
    hello(b"exi") + PROMPT,
    GOODBYE,
)


@pytest.mark.parametrize("framing", [AUTO, LINES])
def test_every_single_cut(framing: Framing) -> None:
    """A stream with everything in it gets the same answers wherever it is cut in two [F1, F2]."""
    for at in range(1, len(INTERESTING)):
        server = Server(framing, max_name_size=12)
        server.hears(INTERESTING[:at])
        server.hears(INTERESTING[at:])
        assert server.stream == WELCOME + PROMPT + b"".join(ANSWERS), at
        assert server.names == [b"Ada", b"Bob Smith\r", b"\x00\xff", b"123456789012", b"exi"]


@pytest.mark.parametrize("framing", [AUTO, LINES])
def test_byte_by_byte(framing: Framing) -> None:
    """Each line of a stream with everything in it is answered with its very last byte [F1, F2]."""
    server = Server(framing, max_name_size=12)
    server.waits(1)
    said = []
    for byte in cut(INTERESTING, [1]):
        answer = server.hears(byte)
        if byte == b"\n":
            said.append(answer)
        else:
            assert answer == b""
    assert said == [*ANSWERS, b""], "the last line comes after exit"


# F3 The client


def heard(outcome: Outcome) -> Outcome:
    """Return the outcome without what the cutting may show in: what left before an end, and how much nonsense came."""
    events = [
        attrs.evolve(event, received=b"") if isinstance(event, ProtocolViolated) else event for event in outcome.events
    ]
    return attrs.evolve(outcome, stream=b"", events=events)


@given(st.sampled_from(Framing), st.lists(client_names, max_size=4), st.booleans(), server_streams, cut_sizes)
@law(80)
def test_client(framing: Framing, names: list[bytes], exits: bool, stream: bytes, sizes: list[int]) -> None:  # noqa: FBT001 - drawn
    """The client understands a server's stream, good or bad, the same however it is cut [F3]."""
    config = ClientConfig(framing=framing)
    asked: Script = [(0, ("name", name)) for name in names]
    if exits:
        asked.append((0, ("exit", None)))
    pieces: Script = [(0, ("data", piece)) for piece in cut(stream, sizes)]
    once: Script = [(0, ("data", stream))] if stream else []
    cut_up = play(ClientConnection(config, now=0), [*asked, *pieces, (1, EOF)])
    assert heard(cut_up) == heard(play(ClientConnection(config, now=0), [*asked, *once, (1, EOF)]))


WORDS = [WELCOME, PROMPT, hello(b"Ada"), PROMPT, hello(b"Wha"), PROMPT, hello(b"!\x00"), PROMPT, GOODBYE]
ORIGINAL = [WELCOME, PROMPT, hello(b"Ada\n"), PROMPT, hello(b"Wha"), PROMPT, hello(b"!\x00"), PROMPT, GOODBYE]


@pytest.mark.parametrize(("framing", "words"), [(AUTO, WORDS), (LINES, WORDS), (RAW, WORDS), (AUTO, ORIGINAL)])
def test_every_single_cut_of_the_servers_words(framing: Framing, words: list[bytes]) -> None:
    """The client understands a whole conversation wherever it is cut in two, and byte by byte [F3, C1.1]."""
    stream = b"".join(words)
    for sizes in [[at, len(stream)] for at in range(1, len(stream))] + [[1]]:
        client = Client(framing)
        client.asks(b"Ada", b"Wha", b"!\x00")
        client.asks_exit()
        for piece in cut(stream, sizes):
            client.hears(piece)
        client.hears_eof()
        assert client.greeted == [b"Ada", b"Wha", b"!\x00"]
        assert client.events[-2] == GoodbyeReceived()
        assert client.end is EndReason.EXIT
