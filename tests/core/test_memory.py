"""What a connection keeps and makes is bounded, whatever the peer sends (PROTOCOL.md, M)."""

import tracemalloc
from collections.abc import Callable
from operator import mul

import pytest
from hypothesis import given
from hypothesis import strategies as st

import greeter_core as core
from tests.support import laws
from tests.support.laws import cut, law
from tests.support.virtual import AUTO, LINES, RAW, Client, Driven
from tests.support.words import ADA, GOODBYE, PROMPT, TOO_SLOW, WELCOME, hello

hostile_bytes = st.one_of(
    laws.client_bytes,
    st.builds(mul, st.sampled_from([b"\n", b"\r\n", b"x\n", b"x\n\n", b"x"]), st.integers(1, 300)),
    st.integers(1, 100).map(lambda size: b"x" * size + b"\n"),
    st.integers(1, 100).map(lambda size: b"\n" * size + b"exit"),
)


hostile_steps = st.one_of(
    st.tuples(st.just("receive_data"), hostile_bytes),
    st.sampled_from([("receive_eof", None), ("shutdown", None)]),
)


@given(
    st.builds(
        core.ServerConfig,
        framing=st.sampled_from(core.Framing),
        max_name_size=st.integers(1, 60),
        pace=st.sampled_from([0, 1]),
        quiet=st.sampled_from([0, 2]),
        max_lifetime=laws.lifetimes,
    ),
    st.lists(st.tuples(st.sampled_from([0, 0.75, 7, 301]), hostile_steps, st.booleans())),
)
@law(200)
def test_output_of_one_input(
    config: core.ServerConfig, steps: list[tuple[float, tuple[str, bytes | None], bool]]
) -> None:
    """At most 17 n + `max_name_size` + 128 bytes, n of them heard or none [M2, T3]."""
    server, most, ended = (
        Driven(core.ServerConnection(config, now=0)),
        config.max_name_size + 128,
        False,
    )
    for wait, (what, data), late in steps:
        said = len(server.said)
        if not late:  # if it is, all that is due then is said in answer to the input
            server.waits(server.now + wait)
        assert all(len(timed or b"") <= most for _, timed in server.said[said:])
        if not (ended and data):
            reply = server.does(what, *[data] * bool(data), at=server.now + wait * late, late=True)
            assert len(reply) <= most + 17 * len(data or b"")
        ended = ended or what == "receive_eof"


names_asked = st.lists(laws.client_names, max_size=4)


@given(st.sampled_from(core.Framing), names_asked, laws.server_streams, laws.cut_sizes)
@law(100)
def test_client_waits_for_one_word(
    framing: core.Framing, names: list[bytes], stream: bytes, sizes: list[int]
) -> None:
    """While it goes on, at most 1033 bytes that it heard are no whole word yet [M3, C1.3]."""
    client, reported = (
        Client(framing),
        {core.Welcomed: len(WELCOME), core.NameRequested: len(PROMPT)},
    )
    client.asks(*names)
    heard = 0
    for piece in cut(stream, sizes):
        client.hears(piece)
        heard += len(piece)
        if client.connection.state.is_open:
            whole = [
                len(hello(event.name)) if isinstance(event, core.Greeted) else reported[type(event)]
                for event in client.events
            ]
            proven_raw = framing is AUTO and client.connection.framing is RAW
            assert heard - sum(whole) - proven_raw <= 1033


LONGEST = [hello(b"x" * 1024 + b"\n"), hello(b"x" * 1024), b"Sorry, " + b"x" * 1016 + b"\n"]


@pytest.mark.parametrize("word", LONGEST, ids=["HELLO with LF", "HELLO", "SORRY"])
def test_longest_word_byte_by_byte(word: bytes) -> None:
    """[M3, C1.4]."""
    for last, end in ((word[-1:], None), (b"?", core.EndReason.VIOLATION)):
        client = Client.prompted(AUTO, b"x" * 1024)
        for byte in cut(word[:-1] + last, [1]):
            assert client.end is None
            client.hears(byte)
        assert client.end is end


# How much is kept, as Python's own bookkeeping of memory shows it

BLOCK = 1 << 14


def kept(feed: Callable[[], None], times: int = 16) -> int:
    """Return how many bytes more are in use after feeding so many blocks."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(times):
            feed()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before


@pytest.mark.parametrize(
    "data",
    [b"Ada\n" * (BLOCK // 4), b"\n" * BLOCK, b"Ada\nexit\n" + b"x" * BLOCK],
    ids=["names", "blank lines", "after exit"],
)
def test_server_keeps_nothing_that_is_answered_or_discarded(data: bytes) -> None:
    """[M1, S8.2]."""
    server = core.ServerConnection(core.ServerConfig(framing=LINES), now=0)

    def feed() -> None:
        server.receive_data(data, 0)
        server.data_to_send()
        server.events()

    feed()
    assert kept(feed) < BLOCK // 4


@pytest.mark.parametrize("last_word", [b"", GOODBYE, TOO_SLOW, b"nonsense"])
def test_client_keeps_nothing_that_it_has_heard(last_word: bytes) -> None:
    """Nor what follows a last word, though it comes in one arrival with it [M3, C1.2, C1.3]."""
    client = core.ClientConnection(core.ClientConfig(framing=LINES), now=0)
    if last_word:
        opening = WELCOME + PROMPT + last_word + b"x" * BLOCK
        assert kept(lambda: client.receive_data(opening, 0), times=1) < BLOCK // 4
    else:
        client.receive_data(WELCOME + PROMPT, 0)
    words = BLOCK // 4 // len(ADA + PROMPT)
    data = (ADA + PROMPT) * words

    def feed() -> None:
        if not last_word:
            client.send_names([b"Ada"] * words, 0)
        client.receive_data(data, 0)
        client.data_to_send()
        client.events()

    feed()
    assert kept(feed) < BLOCK // 4
