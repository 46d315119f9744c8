"""Memory (PROTOCOL.md, M): what a connection keeps and what it makes is bounded, whatever the peer sends."""

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greeter_core import (
    ClientConfig,
    ClientConnection,
    EndReason,
    Framing,
    Greeted,
    NameRequested,
    ServerConfig,
    ServerConnection,
    ServerState,
    Welcomed,
)

from .helpers import (
    AUTO,
    GOODBYE,
    LINES,
    PROMPT,
    RAW,
    TOO_SLOW,
    WELCOME,
    Client,
    Script,
    Server,
    client_bytes,
    client_names,
    cut,
    cut_sizes,
    hello,
    law,
    lifetimes,
    server_scripts,
    server_streams,
    small_sizes,
)


@given(small_sizes, st.sampled_from([AUTO, LINES]), st.lists(client_bytes, min_size=1), cut_sizes)
@law(100)
def test_server_never_waits_for_more(size: int, framing: Framing, arrivals: list[bytes], sizes: list[int]) -> None:
    """While a server is open, no more than `max_name_size` + 1 bytes are without an answer [M1, S6.2]."""
    server = Server(framing, max_name_size=size)
    heard = b""
    for piece in cut(b"".join(arrivals), sizes):
        server.hears(piece)
        heard += piece
        if server.connection.state is ServerState.OPEN:
            assert len(heard.rpartition(b"\n")[2]) <= size + 1


hostile_bytes = st.one_of(
    client_bytes,
    st.integers(1, 400).map(lambda size: b"\n" * size),
    st.integers(1, 200).map(lambda size: b"\r\n" * size),
    st.integers(1, 200).map(lambda size: b"x\n" * size),
    st.integers(1, 200).map(lambda size: b"x\n\n" * size),
    st.integers(1, 100).map(lambda size: b"x" * size),
    st.integers(1, 100).map(lambda size: b"x" * size + b"\n"),
    st.integers(1, 100).map(lambda size: b"\n" * size + b"exit"),
)


@given(
    st.sampled_from(Framing),
    st.integers(1, 60),
    st.sampled_from([0, 1]),
    lifetimes,
    st.lists(st.tuples(st.sampled_from(["now", "waits", "late"]), hostile_bytes), min_size=1, max_size=5),
)
@law(120)
def test_output_of_one_arrival(
    framing: Framing,
    size: int,
    delay: float,
    lifetime: float,
    arrivals: list[tuple[str, bytes]],
) -> None:
    """One arrival of n bytes is answered with at most 17 n + `max_name_size` + 128 bytes [M2, T3]."""
    server = Server(framing, max_name_size=size, pace=delay, quiet=delay, max_lifetime=lifetime)
    for how, data in arrivals:
        match how:
            case "waits":
                server.waits(server.now + 0.75)
            case "late":  # all that is due then is said in answer to the arrival
                server.now += 101
        assert len(server.hears(data)) <= 17 * len(data) + size + 128


@given(st.integers(1, 60), lifetimes, server_scripts)
@law(100)
def test_output_of_anything_else(size: int, lifetime: float, script: Script) -> None:
    """What is no arrival, a timer or a call, is answered with at most `max_name_size` + 128 bytes at a time [M2]."""
    server = Server(max_name_size=size, max_lifetime=lifetime)
    for when, (what, argument) in script:
        said = len(server.said)
        server.waits(when)
        for _, data in server.said[said:]:
            assert len(data or b"") <= size + 128
        match what:
            case "data":
                server.hears(argument)
            case "eof":
                assert len(server.hears_eof()) <= size + 128
            case "shutdown":
                assert len(server.shuts_down()) <= size + 128


def size_heard(event: object, *, discovered: bool) -> int:
    """Return the number of bytes of the word that this event reports."""
    match event:
        case Welcomed():
            return len(WELCOME)
        case NameRequested():
            return len(PROMPT)
        case Greeted(name):
            return len(hello(name)) + discovered
        case _:
            return 0


@given(st.sampled_from(Framing), st.lists(client_names, max_size=4), server_streams, cut_sizes)
@law(100)
def test_client_never_waits_for_more(framing: Framing, names: list[bytes], stream: bytes, sizes: list[int]) -> None:
    """While a client goes on, at most 1033 bytes that it heard are no whole word yet [M3, C1.3]."""
    client = Client(framing)
    client.asks(*names)
    heard = 0
    for piece in cut(stream, sizes):
        client.hears(piece)
        heard += len(piece)
        if client.connection.state.is_open:
            discovered = framing is AUTO and client.connection.framing is RAW
            first = [event for event in client.events if isinstance(event, Greeted)][:1]
            words = sum(size_heard(event, discovered=discovered and event in first) for event in client.events)
            assert heard - words <= 1033


@pytest.mark.parametrize("reply", [hello(b"x" * 1024 + b"\n"), hello(b"x" * 1024), b"Sorry, " + b"x" * 1016 + b"\n"])
def test_longest_words(reply: bytes) -> None:
    """The longest words that can come are understood byte by byte, and longer ones are violations [M3, C1.4]."""
    for wrong, end in ((False, None), (True, EndReason.VIOLATION)):
        client = Client(AUTO)
        client.asks(b"x" * 1024)
        client.hears(WELCOME + PROMPT)
        for byte in cut(reply[:-1] + (b"?" if wrong else reply[-1:]), [1]):
            assert client.end is None
            client.hears(byte)
        assert client.end is end


# How much is kept, as Python's own bookkeeping of memory shows it

BLOCK = 1 << 14


def kept(feed: Callable[[], None]) -> int:
    """Return how many bytes more are in use after feeding 16 blocks than after the first."""
    feed()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(16):
            feed()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return after - before


@pytest.mark.parametrize("data", [b"Ada\n" * (BLOCK // 4), b"\n" * BLOCK, b"Ada\nexit\n" + b"x" * BLOCK])
def test_server_keeps_nothing_of_what_is_answered(data: bytes) -> None:
    """A server that has answered many blocks of names, or discarded them, keeps none [M1, S8.2]."""
    server = ServerConnection(ServerConfig(framing=LINES), now=0)

    def feed() -> None:
        server.receive_data(data, 0)
        server.data_to_send()
        server.events()

    assert kept(feed) < BLOCK // 4


@pytest.mark.parametrize("last_word", [b"", GOODBYE, TOO_SLOW])
def test_client_keeps_nothing_of_what_it_heard(last_word: bytes) -> None:
    """A client that has heard many blocks of words, or discarded them, keeps none [M3, C1.2]."""
    client = ClientConnection(ClientConfig(framing=LINES), now=0)
    client.receive_data(WELCOME + PROMPT + last_word, 0)
    words = BLOCK // 4 // len(hello(b"Ada") + PROMPT)
    data = (hello(b"Ada") + PROMPT) * words

    def feed() -> None:
        if not last_word:
            client.send_names([b"Ada"] * words, 0)
        client.receive_data(data, 0)
        client.data_to_send()
        client.events()

    assert kept(feed) < BLOCK // 4


@pytest.mark.parametrize("last_word", [GOODBYE, TOO_SLOW, b"nonsense"])
def test_client_drops_what_follows_a_last_word(last_word: bytes) -> None:
    """What comes in one arrival with a last word, or with nonsense, is not kept either [M3, C1.2, C1.3]."""
    client = ClientConnection(now=0)
    data = last_word + b"x" * BLOCK
    tracemalloc.start()
    try:
        client.receive_data(data, 0)
        in_use, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert in_use < BLOCK // 4
