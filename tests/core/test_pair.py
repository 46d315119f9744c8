"""Both sides of the conversation against each other, and each side against the original script of the other."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greeter_core import (
    ClientConfig,
    ConversationEnded,
    EndReason,
    Framing,
    Greeted,
    NamesReceived,
    ServerConfig,
    SorryReceived,
)

from .helpers import AUTO, GOODBYE, LINES, PROMPT, RAW, WELCOME, Client, Server, cut_sizes, hello, law
from .originals import Circumstances, talk_to_original_client, talk_to_original_server
from .pair import Pair, Path

names = st.binary(min_size=1, max_size=12).map(lambda name: name.translate(bytes.maketrans(b"\r\n", b"..")))
lists_of_names = st.lists(names.filter(lambda name: name != b"exit"), max_size=8)

latencies = st.sampled_from([0.0, 0.003, 0.02, 1.0])
gaps = st.lists(st.sampled_from([0.0, 0.0, 0.005, 0.019]), min_size=1, max_size=8)  # less than `quiet`
cut_paths = st.builds(Path, latency=latencies, sizes=cut_sizes, gaps=gaps, merges=st.booleans())
whole_paths = st.builds(Path, latency=latencies, gaps=gaps, merges=st.booleans())

# Where arrivals tell where a name ends, the way to the server must not cut them; the way back may always cut.
SPEAKS_LINES = [(AUTO, AUTO), (AUTO, LINES), (LINES, AUTO), (LINES, LINES)]
NEEDS_WHOLE_ARRIVALS = [(RAW, AUTO), (RAW, RAW), (AUTO, RAW)]  # client, server
MISUNDERSTANDS = (LINES, RAW)


def greeted(pair: Pair) -> list[bytes]:
    """Return the names that the client reported as greeted."""
    return [event.name for event in pair.client.events if isinstance(event, Greeted)]


def received(pair: Pair) -> list[bytes]:
    """Return the names that the server reported as received."""
    return [name for event in pair.server.events if isinstance(event, NamesReceived) for name in event.names]


def talk(framings: tuple[Framing, Framing], names: list[bytes], to_server: Path, to_client: Path) -> None:
    """Let a client ask for names and exit, and see that everything is answered, in order, on both sides."""
    pair = Pair(
        ClientConfig(framing=framings[0]),
        ServerConfig(framing=framings[1]),
        to_server=to_server,
        to_client=to_client,
    )
    pair.asks(names)
    pair.runs()
    assert greeted(pair) == names
    if framings == (AUTO, RAW):  # the first word went out as a line, and was taken for a name
        first, *others = names or [b"exit"]
        assert received(pair) == [first + b"\n", *others]
        assert pair.client.connection.framing is RAW
    else:
        assert received(pair) == names
    assert pair.client.connection.unanswered == ()
    assert (pair.client.end, pair.server.end) == (EndReason.EXIT, EndReason.EXIT)
    assert pair.client.connection.finished
    assert pair.server.connection.finished


@pytest.mark.parametrize("framings", SPEAKS_LINES)
@given(lists_of_names, cut_paths, cut_paths)
@law(40)
def test_lines_over_any_path(
    framings: tuple[Framing, Framing], names: list[bytes], to_server: Path, to_client: Path
) -> None:
    """Where lines are spoken, every name is greeted over a path that delays, cuts and merges [F1, F2, F3]."""
    talk(framings, names, to_server, to_client)


@pytest.mark.parametrize("framings", NEEDS_WHOLE_ARRIVALS)
@given(lists_of_names, whole_paths, cut_paths)
@law(40)
def test_raw_over_a_path_that_keeps_arrivals(
    framings: tuple[Framing, Framing], names: list[bytes], to_server: Path, to_client: Path
) -> None:
    """A way that keeps arrivals whole is enough for RAW [C3.3, C3.6, C3.7, S3.3, S4.3, F3]."""
    talk(framings, names, to_server, to_client)


@given(lists_of_names, whole_paths, cut_paths)
@law(40)
def test_lines_are_not_understood_by_raw(names: list[bytes], to_server: Path, to_client: Path) -> None:
    """A client told to speak LINES finds out that a server told RAW does not [S3.3, C1.3, C4.1]."""
    client, server = ClientConfig(framing=LINES), ServerConfig(framing=RAW)
    pair = Pair(client, server, to_server=to_server, to_client=to_client)
    pair.asks(names)
    pair.runs()
    assert pair.client.end is EndReason.VIOLATION
    assert [*greeted(pair), *pair.client.connection.unanswered] == names
    assert pair.client.connection.finished
    assert pair.server.connection.finished


def test_pipelining_saves_round_trips() -> None:
    """Names that are sent as lines need two round trips more than the opening, however many they are [C3.4, C3.5]."""
    path = Path(latency=1)
    pair = Pair(ClientConfig(), ServerConfig(), to_server=path, to_client=path)
    pair.asks([b"name %d" % number for number in range(1000)])
    pair.runs()
    assert len(greeted(pair)) == 1000
    assert pair.server.eofs == [pytest.approx(4.02)]
    assert [when for when, data in pair.client.said if data] == [pytest.approx(1.02), pytest.approx(3.02)]


# Other ends


@given(lists_of_names, st.sampled_from([AUTO, LINES]), whole_paths, cut_paths, st.floats(0, 0.2))
@law(60)
def test_server_shuts_down(
    names: list[bytes], framing: Framing, to_server: Path, to_client: Path, after: float
) -> None:
    """A shutdown loses no name silently: each is greeted on both sides, or reported [C4.1, S10.2]."""
    pair = Pair(ClientConfig(framing=framing), ServerConfig(), to_server=to_server, to_client=to_client)
    pair.asks(names)
    pair.runs(after)
    pair.server.shuts_down()
    pair.runs()
    assert greeted(pair) == received(pair)
    assert [*greeted(pair), *pair.client.connection.unanswered] == names
    # A GOODBYE that crosses an `exit` on its way cannot be told from its answer; the reverse cannot happen.
    assert (pair.client.end, pair.server.end) in (
        (EndReason.SHUTDOWN, EndReason.SHUTDOWN),
        (EndReason.EXIT, EndReason.SHUTDOWN),
        (EndReason.EXIT, EndReason.EXIT),
    )
    assert pair.client.connection.finished
    assert pair.server.connection.finished


@given(lists_of_names, st.sampled_from(SPEAKS_LINES), cut_paths, cut_paths, st.floats(0, 0.2))
@law(60)
def test_client_shuts_down(
    names: list[bytes], framings: tuple[Framing, Framing], to_server: Path, to_client: Path, after: float
) -> None:
    """When the client shuts down, the server answers what it got, and both end well and in finite time [C6.1, S7.2]."""
    pair = Pair(
        ClientConfig(framing=framings[0]), ServerConfig(framing=framings[1]), to_server=to_server, to_client=to_client
    )
    pair.asks(names, exits=False)
    pair.runs(after)
    pair.client.shuts_down()
    pair.runs()
    assert [*greeted(pair), *pair.client.connection.unanswered] == names
    assert received(pair)[: len(greeted(pair))] == greeted(pair)
    assert (pair.client.end, pair.server.end) == (EndReason.SHUTDOWN, EndReason.EOF)
    assert pair.client.connection.finished
    assert pair.server.connection.finished


def test_idle_client_is_refused() -> None:
    """A client that has nothing more to ask hears the server's refusal, and has nothing unanswered [S9.1, C1.2]."""
    pair = Pair(ClientConfig(), ServerConfig(), to_client=Path(latency=1, sizes=[3]))
    pair.asks([b"Ada", b"Bob"], exits=False)
    pair.runs()
    assert greeted(pair) == [b"Ada", b"Bob"]
    assert SorryReceived(b"Sorry, no name came in time.") in pair.client.events
    assert (pair.client.end, pair.server.end) == (EndReason.REFUSED, EndReason.REFUSED)


@given(
    lists_of_names,
    st.sampled_from([*SPEAKS_LINES, *NEEDS_WHOLE_ARRIVALS, MISUNDERSTANDS]),
    cut_paths,
    cut_paths,
)
@law(40)
def test_full_server(names: list[bytes], framings: tuple[Framing, Framing], to_server: Path, to_client: Path) -> None:
    """Whom a full server turns away hears why, and nothing else, over any path [S12.1, S12.2, C1.2, C4.1]."""
    pair = Pair(
        ClientConfig(framing=framings[0]),
        ServerConfig(framing=framings[1]),
        to_server=to_server,
        to_client=to_client,
        full=True,
    )
    pair.asks(names)
    pair.runs()
    refused = SorryReceived(b"Sorry, the server is full.")
    assert pair.client.events == [refused, ConversationEnded(EndReason.REFUSED, tuple(names))]
    assert pair.server.end is EndReason.REFUSED
    assert pair.client.connection.finished
    assert pair.server.connection.finished


@given(lists_of_names, st.sampled_from([AUTO, LINES]), whole_paths, cut_paths, st.floats(0.001, 0.2))
@law(60)
def test_lifetime_is_over(
    names: list[bytes], framing: Framing, to_server: Path, to_client: Path, lifetime: float
) -> None:
    """A lifetime that ends loses no name silently: each is greeted on both sides, or reported [C4.1, S11.1, S11.2]."""
    server = ServerConfig(max_lifetime=lifetime)
    pair = Pair(ClientConfig(framing=framing), server, to_server=to_server, to_client=to_client)
    pair.asks(names)
    pair.runs()
    assert greeted(pair) == received(pair)
    assert [*greeted(pair), *pair.client.connection.unanswered] == names
    # As with a shutdown, a GOODBYE that crosses an `exit` on its way cannot be told from its answer.
    assert (pair.client.end, pair.server.end) in (
        (EndReason.SHUTDOWN, EndReason.LIFETIME),
        (EndReason.EXIT, EndReason.LIFETIME),
        (EndReason.EXIT, EndReason.EXIT),
    )
    assert pair.client.connection.finished
    assert pair.server.connection.finished


def test_long_name_is_refused() -> None:
    """A name that is too long for this server, and those behind it, are reported unanswered [C4.1]."""
    pair = Pair(ClientConfig(), ServerConfig(max_name_size=4), to_server=Path(sizes=[3], gaps=[0.01]))
    pair.asks([b"Ada", b"Bob", b"Grace", b"Eve"])
    pair.runs()
    assert greeted(pair) == received(pair) == [b"Ada", b"Bob"]
    assert pair.client.connection.unanswered == (b"Grace", b"Eve")
    assert (pair.client.end, pair.server.end) == (EndReason.REFUSED, EndReason.REFUSED)


def test_silent_path() -> None:
    """A path that swallows the server's words is found out by the client's patience [C3.1, C5.1]."""
    pair = Pair(ClientConfig(), ServerConfig(), to_client=Path(latency=1e6))
    pair.asks([b"Ada"])
    pair.runs(11)
    assert pair.client.said == [(10, None)]
    assert pair.client.end is EndReason.TIMED_OUT
    assert pair.server.end is EndReason.EOF


# The original scripts


thinking = st.sampled_from([0.0, 0.001, 0.02, 1.0])


def check_original_client(framing: Framing, names: list[bytes], circumstances: Circumstances) -> None:
    """See that every `recv` of the original client returns one word, and every name is greeted."""
    names = [name.replace(b"\n", b"") for name in names]
    server = Server(framing, pace=0.02, quiet=0.02, idle_timeout=math.inf)
    words = [WELCOME, *(word for name in names for word in (PROMPT, hello(name))), PROMPT, GOODBYE]
    assert talk_to_original_client(server, names, circumstances) == words
    assert server.names == names
    assert server.end is EndReason.EXIT


@pytest.mark.parametrize("framing", [AUTO, RAW])
@given(lists_of_names, st.floats(0, 0.019), thinking)
@law(40)
def test_original_client(framing: Framing, names: list[bytes], busy: float, thinks: float) -> None:
    """The original client is understood, and finds one word at a time [S2.2, S4.2, S4.3]."""
    check_original_client(framing, names, Circumstances(busy, thinks))


@pytest.mark.parametrize("framing", [AUTO, RAW])
@given(
    lists_of_names,
    st.floats(0, 0.019),
    thinking,
    st.lists(st.sampled_from([0.0, 0.001, 0.025, 0.06, 70.0]), min_size=1, max_size=6),
)
@law(60)
def test_original_client_and_a_late_server(
    framing: Framing, names: list[bytes], busy: float, thinks: float, stops: list[float]
) -> None:
    """However long the server's process is stopped, the original client does not hang [T1, T3]."""
    check_original_client(framing, names, Circumstances(busy, thinks, stops))


@pytest.mark.parametrize("framing", [AUTO, RAW])
@given(
    lists_of_names,
    thinking,
    st.lists(st.sampled_from([0.0, 0.0, 0.025, 0.06]), min_size=1, max_size=6),
    st.lists(st.sampled_from([0.001, 0.15, 0.17, 0.9]), min_size=2, max_size=8),
)
@law(60)
def test_original_client_and_a_long_path(
    framing: Framing, names: list[bytes], thinks: float, stops: list[float], delays: list[float]
) -> None:
    """Over a path of any delays it does not hang, if the adapter asks the kernel [S2.7, S2.2]."""
    check_original_client(framing, names, Circumstances(0, thinks, stops, delays, asks_kernel=True))


def test_original_client_needs_acknowledgements() -> None:
    """Where nobody asks the kernel, words that meet on the way reach it together [S2.7]."""
    server = Server(RAW, pace=0.02, idle_timeout=math.inf)
    heard = talk_to_original_client(server, [b"Ada"], Circumstances(delays=[0.17, 0.01, 0.15]))
    assert heard == [WELCOME + PROMPT]


def test_original_client_needs_the_pace() -> None:
    """Without `pace` the original client finds two words in one `recv`, and waits for ever [S2.2]."""
    server = Server(RAW, pace=0, idle_timeout=math.inf)
    heard = talk_to_original_client(server, [b"Ada"], Circumstances(thinks=1))
    assert heard == [WELCOME + PROMPT]


@pytest.mark.parametrize("framing", [AUTO, RAW])
@given(lists_of_names, cut_sizes)
@law(40)
def test_original_server(framing: Framing, names: list[bytes], sizes: list[int]) -> None:
    """The original server greets every name of a client that is RAW or finds out, and lets it go [C3.3, C3.6, C3.7]."""
    client = Client(framing)
    client.asks(*names)
    client.asks_exit()
    took = talk_to_original_server(client, sizes)
    assert client.greeted == names
    assert client.end is EndReason.EXIT
    first = [name + b"\n" for name in (names or [b"exit"])[:1]] if framing is AUTO else names[:1]
    assert took == [*first, *names[1:]], "only the first attempt is a line"


def test_original_server_and_lines() -> None:
    """A client that is told to speak LINES finds out that the original server does not [C1.3]."""
    client = Client(LINES)
    client.asks(b"Ada")
    talk_to_original_server(client, [100])
    assert client.end is EndReason.VIOLATION
    assert list(client.connection.unanswered) == [b"Ada"]
