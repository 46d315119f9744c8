"""Both sides against each other, and each side against the original script of the other."""

import math
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

import greeter_core as core
from tests.support.laws import cut_sizes, law
from tests.support.virtual import AUTO, LINES, RAW, Client, Server
from tests.support.words import GOODBYE, PROMPT, WELCOME, hello

from .originals import Circumstances, talk_to_original_client, talk_to_original_server
from .pair import Pair, Path

EXIT, EOF = core.EndReason.EXIT, core.EndReason.EOF
REFUSED, SHUTDOWN = core.EndReason.REFUSED, core.EndReason.SHUTDOWN
LIFETIME = core.EndReason.LIFETIME

lists_of_names = st.lists(
    st.binary(min_size=1, max_size=12)
    .map(lambda name: name.translate(bytes.maketrans(b"\r\n", b"..")))
    .filter(lambda name: name != b"exit"),
    max_size=8,
)

latencies = st.sampled_from([0.0, 0.003, 0.02, 1.0])
gaps = st.lists(st.sampled_from([0.0, 0.0, 0.005, 0.019]), min_size=1, max_size=8)  # under `quiet`
cut_paths = st.builds(Path, latency=latencies, sizes=cut_sizes, gaps=gaps, merges=st.booleans())
whole_paths = st.builds(Path, latency=latencies, gaps=gaps, merges=st.booleans())
ways = st.tuples(cut_paths, cut_paths)
"""To the server, and to the client."""
whole_ways = st.tuples(whole_paths, cut_paths)
"""Where arrivals tell where a name ends, the way to the server must not cut them."""

Framings = tuple[core.Framing, core.Framing]
Ways = tuple[Path, Path]
Names = list[bytes]
SPEAKS_LINES = [(AUTO, AUTO), (AUTO, LINES), (LINES, AUTO), (LINES, LINES)]  # client, server
NEEDS_WHOLE_ARRIVALS = [(RAW, AUTO), (RAW, RAW), (AUTO, RAW)]
MISUNDERSTANDS = (LINES, RAW)


def pair_of(
    framings: Framings, ways: Ways, *, full: bool = False, lifetime: float = math.inf
) -> Pair:
    client = core.ClientConfig(framing=framings[0])
    server = core.ServerConfig(framing=framings[1], max_lifetime=lifetime)
    return Pair(client, server, to_server=ways[0], to_client=ways[1], full=full)


def talk(framings: Framings, names: Names, ways: Ways) -> None:
    """See that all that a client asks for is answered, in order, on both sides."""
    pair = pair_of(framings, ways)
    pair.asks(names)
    pair.runs()
    received = names
    if framings == (AUTO, RAW):  # the first word went out as a line, and was taken for a name
        first, *others = names or [b"exit"]
        received = [first + b"\n", *others]
        assert pair.client.connection.framing is RAW
    assert (pair.client.names, pair.server.names) == (names, received)
    assert pair.client.connection.unanswered == ()
    assert pair.ends == (EXIT, EXIT)


@pytest.mark.parametrize("framings", SPEAKS_LINES)
@given(lists_of_names, ways)
@law(40)
def test_lines_over_any_path(framings: Framings, names: Names, ways: Ways) -> None:
    """That delays, cuts and merges [F1, F2, F3]."""
    talk(framings, names, ways)


@pytest.mark.parametrize("framings", NEEDS_WHOLE_ARRIVALS)
@given(lists_of_names, whole_ways)
@law(40)
def test_raw_over_a_path_that_keeps_arrivals_whole(
    framings: Framings, names: Names, ways: Ways
) -> None:
    """[C3.3, C3.6, C3.7, S3.3, S4.3, F3]."""
    talk(framings, names, ways)


@given(lists_of_names, whole_ways)
@law(40)
def test_lines_to_a_raw_server_are_a_violation(names: Names, ways: Ways) -> None:
    """A client told to speak LINES finds out that a server told RAW does not [S3.3, C1.3, C4.1]."""
    pair = pair_of(MISUNDERSTANDS, ways)
    pair.asks(names)
    pair.runs()
    assert pair.ends[0] is core.EndReason.VIOLATION
    assert pair.answered_and_unanswered == names


def test_pipelining_saves_round_trips() -> None:
    """Two more than the opening, however many names are sent as lines [C3.4, C3.5]."""
    pair = pair_of((AUTO, AUTO), (Path(latency=1), Path(latency=1)))
    pair.asks([b"name %d" % number for number in range(1000)])
    pair.runs()
    assert len(pair.client.names) == 1000
    assert [when for when, data in pair.server.said if data is None] == [pytest.approx(4.02)]
    said = [when for when, data in pair.client.said if data]
    assert said == [pytest.approx(1.02), pytest.approx(3.02)]


# Other ends


@pytest.mark.parametrize("reason", [SHUTDOWN, LIFETIME])
@given(lists_of_names, st.sampled_from([AUTO, LINES]), whole_ways, st.floats(0.001, 0.2))
@law(60)
def test_goodbye_of_the_server_loses_no_name_silently(
    reason: core.EndReason, names: Names, framing: core.Framing, ways: Ways, after: float
) -> None:
    """Each is greeted on both sides, or reported [C4.1, S10.2, S11.1, S11.2]."""
    pair = pair_of((framing, AUTO), ways, lifetime=after if reason is LIFETIME else math.inf)
    pair.asks(names)
    pair.runs(after)
    if reason is SHUTDOWN:
        pair.server.shuts_down()
    pair.runs()
    assert pair.client.names == pair.server.names
    assert pair.answered_and_unanswered == names
    # A GOODBYE that crosses an `exit` cannot be told from its answer; the reverse cannot happen.
    assert pair.ends in ((SHUTDOWN, reason), (EXIT, reason), (EXIT, EXIT))


@given(lists_of_names, st.sampled_from(SPEAKS_LINES), ways, st.floats(0, 0.2))
@law(60)
def test_shutdown_of_the_client(names: Names, framings: Framings, ways: Ways, after: float) -> None:
    """The server answers what it got, and both end in finite time [C6.1, S7.2]."""
    pair = pair_of(framings, ways)
    pair.asks(names, exits=False)
    pair.runs(after)
    pair.client.shuts_down()
    pair.runs()
    assert pair.answered_and_unanswered == names
    assert pair.server.names[: len(pair.client.names)] == pair.client.names
    assert pair.ends == (SHUTDOWN, EOF)


@given(
    lists_of_names, st.sampled_from([*SPEAKS_LINES, *NEEDS_WHOLE_ARRIVALS, MISUNDERSTANDS]), ways
)
@law(40)
def test_full_server_says_why(names: Names, framings: Framings, ways: Ways) -> None:
    """And nothing else, over any path [S12.1, S12.2, C1.2, C4.1]."""
    pair = pair_of(framings, ways, full=True)
    pair.asks(names)
    pair.runs()
    ended = core.ConversationEnded(REFUSED, tuple(names))
    assert pair.client.events == [core.SorryReceived(b"Sorry, the server is full."), ended]
    assert pair.ends == (REFUSED, REFUSED)


def test_idle_client_is_refused() -> None:
    """It has nothing unanswered [S9.1, C1.2]."""
    pair = pair_of((AUTO, AUTO), (Path(), Path(latency=1, sizes=[3])))
    pair.asks([b"Ada", b"Bob"], exits=False)
    pair.runs()
    assert pair.client.names == [b"Ada", b"Bob"]
    assert pair.client.events[-2:] == [
        core.SorryReceived(b"Sorry, no name came in time."),
        core.ConversationEnded(REFUSED),
    ]
    assert pair.ends == (REFUSED, REFUSED)


def test_long_name_is_refused() -> None:
    """It and those behind it are reported unanswered [C4.1]."""
    server = core.ServerConfig(max_name_size=4)
    pair = Pair(core.ClientConfig(), server, to_server=Path(sizes=[3], gaps=[0.01]))
    pair.asks([b"Ada", b"Bob", b"Grace", b"Eve"])
    pair.runs()
    assert pair.client.names == pair.server.names == [b"Ada", b"Bob"]
    assert pair.client.connection.unanswered == (b"Grace", b"Eve")
    assert pair.ends == (REFUSED, REFUSED)


def test_path_that_swallows_the_words_of_the_server() -> None:
    """The client's patience finds it out [C3.1, C5.1]."""
    pair = pair_of((AUTO, AUTO), (Path(), Path(latency=1e6)))
    pair.asks([b"Ada"])
    pair.runs(11)
    assert pair.client.said == [(10, None)]
    assert pair.ends == (core.EndReason.TIMED_OUT, EOF)


# The original scripts

thinking = st.sampled_from([0.0, 0.001, 0.02, 1.0])
stopping = st.lists(st.sampled_from([0.0, 0.001, 0.025, 0.06, 70.0]), min_size=1, max_size=6)
stopping_briefly = st.lists(st.sampled_from([0.0, 0.0, 0.025, 0.06]), min_size=1, max_size=6)
delaying = st.lists(st.sampled_from([0.001, 0.15, 0.17, 0.9]), min_size=2, max_size=8)


@pytest.mark.parametrize("framing", [AUTO, RAW])
@given(
    lists_of_names,
    st.one_of(
        st.builds(Circumstances, st.floats(0, 0.019), thinking),
        st.builds(Circumstances, st.floats(0, 0.019), thinking, stopping),
        st.builds(
            partial(Circumstances, 0, asks_kernel=True), thinking, stopping_briefly, delaying
        ),
    ),
)
@law(160)
def test_original_client_finds_one_word_in_each_recv(
    framing: core.Framing, names: Names, circumstances: Circumstances
) -> None:
    """However late the server's process is, or, if the kernel is asked, however long the path.

    [S2.2, S2.7, S4.2, S4.3, T1, T3]
    """
    server = Server(framing, pace=0.02, quiet=0.02, idle_timeout=math.inf)
    words = [WELCOME, *(word for name in names for word in (PROMPT, hello(name))), PROMPT, GOODBYE]
    assert talk_to_original_client(server, names, circumstances) == words
    assert server.names == names
    assert server.end is EXIT


@pytest.mark.parametrize(
    ("pace", "circumstances"),
    [(0.02, Circumstances(delays=[0.17, 0.01, 0.15])), (0, Circumstances(thinks=1))],
    ids=["kernel not asked", "no pace"],
)
def test_original_client_hangs(pace: float, circumstances: Circumstances) -> None:
    """Words that meet on the way reach it together: hence the pace, and S2.7 [S2.2, S2.7]."""
    server = Server(RAW, pace=pace, idle_timeout=math.inf)
    assert talk_to_original_client(server, [b"Ada"], circumstances) == [WELCOME + PROMPT]


@pytest.mark.parametrize("framing", [AUTO, RAW])
@given(lists_of_names, cut_sizes)
@law(40)
def test_original_server(framing: core.Framing, names: Names, sizes: list[int]) -> None:
    """It greets every name of a client that is RAW, or finds out [C3.3, C3.6, C3.7]."""
    client = Client(framing)
    client.asks(*names)
    client.asks_exit()
    took = talk_to_original_server(client, sizes)
    assert client.names == names
    assert client.end is EXIT
    first = [name + b"\n" for name in (names or [b"exit"])[:1]] if framing is AUTO else names[:1]
    assert took == [*first, *names[1:]], "only the first attempt is a line"


def test_original_server_does_not_understand_lines() -> None:
    """[C1.3]."""
    client = Client(LINES)
    client.asks(b"Ada")
    talk_to_original_server(client, [100])
    assert client.end is core.EndReason.VIOLATION
    assert list(client.connection.unanswered) == [b"Ada"]
