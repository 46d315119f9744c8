"""What a caller may rely on (PROTOCOL.md, E): public names, wrong calls, outputs and the end."""

import inspect
import itertools
import math
import pydoc
import re
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, get_args

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import greeter_core as core
from tests.support import laws
from tests.support.laws import WAIT, Case, Script, cut, law, play
from tests.support.virtual import AUTO, LINES, RAW, Client, Server
from tests.support.words import ADA, GOODBYE, PROMPT, TOO_SLOW, WELCOME

ROLES = [core.ServerConnection, core.ClientConnection]
roles = pytest.mark.parametrize("role", ROLES, ids=["server", "client"])

# The public names


def test_all_names_everything_public() -> None:
    assert issubclass(core.LocalProtocolError, ValueError)
    core.Recording  # noqa: B018 - it imports all that is imported late
    names = [
        name
        for name, value in vars(core).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    assert core.__all__ == sorted(set(core.__all__)) == sorted(names)


@pytest.mark.parametrize("name", core.__all__)
def test_public_names_are_documented(name: str) -> None:
    public = getattr(core, name)
    if isinstance(public, type):
        assert public.__doc__
        for attribute, value in vars(public).items():
            if not attribute.startswith("_") and (callable(value) or isinstance(value, property)):
                assert inspect.getdoc(getattr(public, attribute)), attribute


def test_reads_while_sending() -> None:
    """A server's output is a multiple of its input [M2]."""
    assert core.ClientConnection.reads_while_sending
    assert not core.ServerConnection.reads_while_sending


@roles
def test_connection_is_the_contract_of_both_roles(role: type) -> None:
    assert issubclass(role, core.Connection)
    assert inspect.isabstract(core.Connection)
    assert {name for name in vars(core.Connection) if not name.startswith("_")} == {
        *("receive", "receive_data", "receive_eof", "handle_timeout", "data_in_flight"),
        "shutdown",
        *("connection_lost", "data_to_send", "eof_to_send", "events", "deadline", "timeout"),
        *("prompt_owed", "state", "framing", "finished", "time"),
    }


def test_receive() -> None:
    """It is four inputs in one; the kernel is asked only where it matters [S2.7, T3]."""
    asked: list[float] = []

    def is_in_flight() -> bool:
        asked.append(server.time)
        return len(asked) < 3

    server = core.ServerConnection(core.ServerConfig(pace=1, idle_timeout=9), now=0)
    said = []
    for now, data in ((0.5, None), (1, None), (2, None), (3, None), (4, None), (5, b"Ada\n")):
        server.receive(data, now, is_in_flight)
        said.append((now, server.data_to_send()))
    assert asked == [0.5, 1, 2], "when it was due, and owed"
    assert [(now, word) for now, word in said if word] == [
        (0.5, WELCOME),
        (3, PROMPT),
        (5, ADA + PROMPT),
    ]
    server.receive(None, 15)
    assert server.data_to_send() == TOO_SLOW, "without a kernel to ask"
    wrong: list[Any] = ["", 0, False, []]
    for nothing in wrong:
        with pytest.raises(core.LocalProtocolError, match="must be bytes or None"):
            server.receive(nothing, 16)
    server.receive(bytearray(), 16)
    assert server.state.is_ended


# Wrong calls. For each: the role, the history, the method, its arguments, and words of the message.

Wrong = tuple[type, Script, str, tuple[object, ...], str]

NOT_NOW: list[Any] = [math.nan, math.inf, -math.inf, 10**400, -(10**400), "1", None, 1j]
NO_ARGUMENT: dict[str, tuple[object, ...]] = dict.fromkeys(
    ["receive_eof", "handle_timeout", "shutdown", "data_in_flight", "timeout"], ()
)
TIMED = {"receive_data": (b"Ada",), **NO_ARGUMENT}
TIMED_OF_CLIENT = {"send_name": (b"Bob",), "send_names": ([b"Bob"],), "send_exit": ()}
NO_NAMES: list[tuple[str, list[object]]] = [
    ("empty", [b""]),
    ("bytes, not {kind}", ["Ada", bytearray(b"Ada"), 65, None]),
    ("{name!r}", [b"\n", b"Ada\n", b"two\nlines", b"\r", b"a\rb"]),
    ("1024", [b"x" * 1025]),
    ("send_exit", [b"exit"]),
]
PROMPTED: Script = [(0, ("receive_data", WELCOME + PROMPT)), (0, ("send_name", b"Ada"))]
EXIT: Script = [(0, ("send_exit", None))]
EOF: Script = [(0, ("receive_eof", None))]
LOST: Script = [(0, ("connection_lost", None))]
SHUTDOWN: Script = [(0, ("shutdown", None))]


def wrong_inputs() -> Iterator[Wrong]:
    for role in ROLES:
        for data in ("Ada", None, [65], 65):
            message = f"bytes, not {type(data).__name__}"
            yield role, [], "receive_data", (data, 0), message
        for empty, now in ((b"", 0), (bytearray(), 50)):
            yield role, [], "receive_data", (empty, now), "receive_eof"
        yield role, EOF, "receive_data", (b"Ada", 0), "after receive_eof"
        yield role, LOST, "timeout", (math.nan,), "nan"  # though it has no deadline
        methods = TIMED if role is core.ServerConnection else TIMED | TIMED_OF_CLIENT
        for (method, arguments), not_now in itertools.product(methods.items(), NOT_NOW):
            yield role, [], method, (*arguments, not_now), repr(not_now)


def wrong_names() -> Iterator[Wrong]:
    for history in ([], PROMPTED):
        for words, names in NO_NAMES:
            for name in names:
                message = words.format(kind=type(name).__name__, name=name)
                yield core.ClientConnection, history, "send_name", (name, 50), message
                yield core.ClientConnection, history, "send_names", ([b"Eve", name], 0), message
        for one in (b"Bob", "Bob", bytearray(b"Bob")):
            yield core.ClientConnection, history, "send_names", (one, 0), "send_name takes one"
        for none in (None, 5):
            yield (
                core.ClientConnection,
                history,
                "send_names",
                (none, 0),
                f"several names, not {none}",
            )
    for not_now in NOT_NOW:
        yield core.ClientConnection, PROMPTED, "send_name", (b"Bob", not_now), repr(not_now)


def names_too_late() -> Iterator[Wrong]:
    for history, now in ((EXIT, 0), (EXIT, 50), ([*PROMPTED, *EXIT], 0)):  # before any time passes
        yield core.ClientConnection, history, "send_name", (b"Bob", now), "after exit"
    for end in (GOODBYE, TOO_SLOW, b"nonsense"):
        history = [*PROMPTED, (0, ("receive_data", end))]
        yield core.ClientConnection, history, "send_name", (b"Bob", 0), "after the end"
    for end_of in (EOF, LOST, SHUTDOWN):
        yield core.ClientConnection, [*PROMPTED, *end_of], "send_name", (b"Bob", 0), "after the end"


AFTERWARDS: Script = [
    (1, ("receive_data", WELCOME + PROMPT + ADA + PROMPT)),
    (2, ("receive_data", b"Bob")),
    (4, ("shutdown", None)),
    (5, ("receive_eof", None)),
]


def described(wrong: Wrong) -> str:
    role, history, method, arguments, _ = wrong
    steps = " ".join([*(step[0] for _, step in history[:-1]), *map(repr, history[-1:])])
    return f"{role.__name__}.{method}{arguments!r:.40} after {steps:.75}"


@pytest.mark.parametrize(
    "wrong", [*wrong_inputs(), *wrong_names(), *names_too_late()], ids=described
)
def test_wrong_call_changes_nothing(wrong: Wrong) -> None:
    """Its error says what is wrong, and it leaves no trace later either [E2, C2.1, C2.2]."""
    role, history, method, arguments, message = wrong
    once, again = role(now=0), role(now=0)
    if history:  # where there is none, what is said on open still waits to be taken
        play(once, history)
        play(again, history)
    with pytest.raises(core.LocalProtocolError) as raised:
        getattr(again, method)(*arguments)
    assert message in str(raised.value)
    assert play(once, []) == play(again, [])
    ended = any(step == ("receive_eof", None) for _, step in history)
    rest = [(now, step) for now, step in AFTERWARDS if not (ended and step[0] == "receive_data")]
    assert play(once, rest) == play(again, rest)


@pytest.mark.parametrize("now", NOT_NOW)
@roles
def test_wrong_time_of_opening(role: Callable[..., object], now: object) -> None:
    """[E2]."""
    with pytest.raises(core.LocalProtocolError, match="finite number of seconds"):
        role(now=now)


@roles
def test_configuration_of_another_kind(role: Callable[..., Any]) -> None:
    """[E2]."""
    kind = role.__name__.replace("Connection", "Config")
    wrong = core.ClientConfig() if role is core.ServerConnection else core.ServerConfig()
    configs: list[object] = [{}, None, wrong]
    for config in configs:
        with pytest.raises(core.LocalProtocolError, match=f"config must be a {kind}, not "):
            role(config, now=0)


def test_names_from_a_generator() -> None:
    """If it fails, none of its names is asked [E2]."""

    def failing() -> Iterator[bytes]:
        yield b"Ada"
        raise OSError

    client = core.ClientConnection(now=0)
    with pytest.raises(OSError):  # noqa: PT011 - the generator's own error passes unchanged
        client.send_names(failing(), 0)
    assert list(client.unanswered) == []
    client.send_names((name for name in (b"Ada", b"Bob")), 0)
    assert list(client.unanswered) == [b"Ada", b"Bob"]


def test_names_that_wait_to_be_sent_are_counted() -> None:
    """Which `exit` is not [C3.6, C6.3]."""
    client = core.ClientConnection(now=0)
    client.send_names([b"Ada", b"Bob", b"Eve"], 0)
    client.send_exit(0)
    assert client.unsent == 3
    client.receive_data(b"Welcome!\nWhat's your name?", 0)
    assert client.unsent == 2  # the answer to the first one shows what the server understands
    client.receive_data(b"Hello Ada!\n", 0)
    assert client.unsent == 0


def test_names_that_are_not_there() -> None:
    assert dir(core) == core.__all__
    with pytest.raises(AttributeError, match=r"module 'greeter_core' has no attribute 'Grete'"):
        core.Grete  # type: ignore[attr-defined]  # noqa: B018


# Configuration

CONFIGS: dict[str, Any] = {"ServerConfig": core.ServerConfig, "ClientConfig": core.ClientConfig}
NO_FRAMING = ("Framing.AUTO, Framing.LINES or Framing.RAW", ["auto", None, 0])
NO_DELAY = ("0 or more", [-1, -0.001, math.nan, math.inf, 10**400, "1", None, True])
NO_TIMEOUT = ("more than 0", [0, -1, math.nan, -math.inf, 10**400, "1", None, True])
BAD: dict[tuple[str, str], tuple[str, Sequence[object]]] = {
    ("ServerConfig", "framing"): NO_FRAMING,
    ("ServerConfig", "max_name_size"): ("1 or more", [0, -1, 1.5, 1024.0, "1024", None, True]),
    ("ServerConfig", "pace"): NO_DELAY,
    ("ServerConfig", "quiet"): NO_DELAY,
    ("ServerConfig", "idle_timeout"): NO_TIMEOUT,
    ("ServerConfig", "max_lifetime"): NO_TIMEOUT,
    ("ServerConfig", "linger"): NO_DELAY,
    ("ClientConfig", "framing"): NO_FRAMING,
    ("ClientConfig", "reply_timeout"): NO_TIMEOUT,
    ("ClientConfig", "linger"): NO_DELAY,
}


@pytest.mark.parametrize(("config", "field"), BAD)
def test_wrong_configuration(config: str, field: str) -> None:
    """The message names the field, the bound and the value [E2]."""
    bound, values = BAD[config, field]
    for value in values:
        with pytest.raises(core.LocalProtocolError) as raised:
            CONFIGS[config](**{field: value})
        message = str(raised.value)
        assert message.startswith(f"{field} must be ")
        assert bound in message
        assert message.endswith(f"not {value!r}")


def test_every_field_of_a_configuration_is_checked() -> None:
    fields = [(name, field.name) for name, kind in CONFIGS.items() for field in attrs.fields(kind)]
    assert list(BAD) == fields


def test_bounds_of_a_configuration_are_allowed() -> None:
    values: Any = {"framing": RAW, "max_name_size": 1, "pace": 0, "quiet": 0, "linger": 0}
    values |= {"idle_timeout": math.inf, "max_lifetime": math.inf}
    assert attrs.asdict(core.ServerConfig(**values)) == values
    longest = math.nextafter(math.inf, 0)
    assert core.ClientConfig(reply_timeout=math.inf, linger=longest).linger == longest
    assert core.ClientConfig(linger=0).framing is AUTO
    assert core.ServerConfig(idle_timeout=1e-9, max_lifetime=1e-9).framing is AUTO


@pytest.mark.parametrize("kind", CONFIGS)
def test_configuration_is_frozen_and_documented(kind: str) -> None:
    config = CONFIGS[kind]()
    text = pydoc.plain(pydoc.render_doc(CONFIGS[kind]))  # without the bold letters of a terminal
    for field in attrs.fields(CONFIGS[kind]):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(config, field.name, getattr(config, field.name))
        assert re.search(rf"^ \|  {field.name}: [A-Z]\w* \w", text, re.MULTILINE), field.name
    assert {config: 1}[CONFIGS[kind]()] == 1


# Events are values, made for `match`

EVENTS: list[tuple[core.ServerEvent | core.ClientEvent, tuple[str, ...]]] = [
    (core.NamesReceived((b"Ada",)), ("names",)),
    (core.ExitReceived(), ()),
    (core.EOFReceived(), ()),
    (core.Refused(core.Refusal.IDLE, b"Sorry, x."), ("reason", "message")),
    (core.Welcomed(), ()),
    (core.NameRequested(), ()),
    (core.Greeted(b"Ada"), ("name",)),
    (core.SorryReceived(b"Sorry, x."), ("message",)),
    (core.GoodbyeReceived(), ()),
    (core.ProtocolViolated(b"a", b"b"), ("expected", "received")),
    (core.ConversationEnded(core.EndReason.EXIT, (b"Ada",)), ("reason", "unanswered")),
]


def test_unions_name_every_event() -> None:
    """And share only the last one, whose unanswered names are empty by default."""
    assert core.ConversationEnded(core.EndReason.EOF) == core.ConversationEnded(
        core.EndReason.EOF, ()
    )
    server, client = {*get_args(core.ServerEvent)}, {*get_args(core.ClientEvent)}
    assert server | client == {type(event) for event, _ in EVENTS}
    assert server & client == {core.ConversationEnded}


@pytest.mark.parametrize(("event", "parts"), EVENTS, ids=lambda value: type(value).__name__)
def test_event_is_a_frozen_value_made_for_match(event: Any, parts: tuple[str, ...]) -> None:
    assert type(event).__match_args__ == parts
    for part in parts:
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(event, part, None)
    copy = attrs.evolve(event)
    assert copy == event
    assert copy is not event
    assert {event: 1}[copy] == 1


def test_unanswered_names_are_empty_by_default() -> None:
    assert core.ConversationEnded(core.EndReason.EOF) == core.ConversationEnded(
        core.EndReason.EOF, ()
    )


# The names of one arrival are a sequence, cut on demand


def names_of(data: bytes) -> Sequence[bytes]:
    server = core.ServerConnection(core.ServerConfig(framing=LINES), now=0)
    server.receive_data(data, 0)
    server.data_to_send()
    (event,) = server.events()
    assert isinstance(event, core.NamesReceived)
    return event.names


def test_names_are_a_sequence() -> None:
    names = names_of(b"Ada\nBob\r\n\nAda\n")
    assert isinstance(names, Sequence)
    assert len(names) == 3
    assert list(names) == list(reversed(names)) == [b"Ada", b"Bob", b"Ada"]
    assert (names[0], names[1], names[-2]) == (b"Ada", b"Bob", b"Bob")
    assert (names[1:], names[::2], names[9:]) == ((b"Bob", b"Ada"), (b"Ada", b"Ada"), ())
    assert (names.count(b"Ada"), names.index(b"Bob")) == (2, 1)
    assert b"Bob" in names
    assert b"Ada\nBob" not in names
    with pytest.raises(IndexError):
        names[3]


def test_one_name_is_a_tuple() -> None:
    assert type(names_of(b"Ada\r\n")) is tuple
    assert names_of(b"Ada\r\n") == (b"Ada",)
    assert list(names_of(b"\nAda\n")) == [b"Ada"]


def test_names_equal_any_sequence_of_the_same_names() -> None:
    """And hash and show themselves as a tuple."""
    names = names_of(b"Ada\nBob\n")
    equals: list[Sequence[bytes]] = [(b"Ada", b"Bob"), [b"Ada", b"Bob"]]
    for equal in [*equals, names_of(b"\nAda\r\nBob\n")]:
        assert names == equal
        assert equal == names
        assert core.NamesReceived(equal) == core.NamesReceived(names)
        assert hash(core.NamesReceived(equal)) == hash(core.NamesReceived(names))
    others = [(b"Bob", b"Ada"), (b"Ada", b"Bob", b"Bob"), (), {b"Ada": 1}, b"Ada\nBob", None]
    for other in others:
        assert names != other
        assert other != names
    assert hash(names) == hash((b"Ada", b"Bob"))
    assert repr(names) == repr((b"Ada", b"Bob"))
    assert core.NamesReceived(names) != core.NamesReceived((b"Ada",))


def test_names_are_split_on_demand() -> None:
    """Before, they take no more room than their bytes; afterwards, they are kept."""
    data = b"Ada\n" * 10_000
    tracemalloc.start()
    try:
        names = names_of(data)
        assert len(names) == 10_000
        unseen, _ = tracemalloc.get_traced_memory()
        assert names[0] is names[0]
        seen, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert unseen < 2 * len(data)
    assert seen > 5 * len(data)


# Inputs


def strided(data: bytes) -> memoryview:
    return memoryview(b"".join(bytes([byte, 0]) for byte in data))[::2]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, strided])
def test_data_of_any_bytes_like_type(kind: Callable[[bytes], Any]) -> None:
    server = Server(LINES)
    assert server.hears(kind(b"Ada\n")) == ADA + PROMPT
    assert server.events == [core.NamesReceived((b"Ada",))]
    client = Client()
    client.hears(kind(WELCOME))
    assert client.connection.state is core.ClientState.WELCOMED


def test_buffer_can_be_used_again() -> None:
    server, buffer = Server(LINES), bytearray(b"Ad")
    server.hears(buffer)
    buffer[:] = b"XX"
    server.hears(b"a\n")
    assert server.names == [b"Ada"]


@pytest.mark.parametrize("method", ["receive_eof", "shutdown", "handle_timeout", "connection_lost"])
@roles
def test_repeated_call_does_nothing(role: Callable[..., Any], method: str) -> None:
    """[E4, T5]."""
    once, often = role(now=0), role(now=0)
    for connection, times in ((once, 1), (often, 3)):
        outcomes = []
        for _ in range(times):
            getattr(connection, method)(*[5] * (method != "connection_lost"))
            outcomes.append(play(connection, []))
        assert {(outcome.stream, outcome.eofs) for outcome in outcomes[1:]} <= {(b"", 0)}
        assert not any(outcome.events for outcome in outcomes[1:])
    assert (once.deadline, once.state) == (often.deadline, often.state)


# Outputs


def test_outputs_are_handed_out_once() -> None:
    """And the end of the stream only when the bytes before it are taken [E3]."""
    server = core.ServerConnection(now=0)
    assert not server.eof_to_send()
    server.receive_data(b"exit\n", 0)
    assert not server.eof_to_send()
    assert server.data_to_send() == WELCOME + PROMPT + GOODBYE
    assert server.eof_to_send()
    assert not server.eof_to_send()
    assert server.data_to_send() == b""
    assert server.events() == [core.ExitReceived()]
    assert server.events() == []


def test_finished_when_over_and_all_output_is_taken() -> None:
    """[E3, E4]."""
    server = core.ServerConnection(now=0)
    server.receive_data(b"Ada", 0)
    server.receive_eof(0)
    assert not server.finished
    server.data_to_send()
    assert not server.finished
    server.eof_to_send()
    assert server.finished


@pytest.mark.parametrize("history", [[(0, ("receive_data", b"Ada"))], SHUTDOWN, EOF, []])
@roles
def test_lost_connection_leaves_nothing_to_send(role: Callable[..., Any], history: Script) -> None:
    """Not even the end of the stream, in any state [E5, S8.4]."""
    connection = role(now=0)
    for now, (method, argument) in history:
        getattr(connection, method)(*[argument] * (argument is not None), now)
    connection.connection_lost()
    assert connection.finished
    assert connection.data_to_send() == b""
    assert not connection.eof_to_send()
    assert connection.deadline == math.inf
    events = connection.events()
    assert isinstance(events[-1], core.ConversationEnded)
    if not history:
        assert events == [core.ConversationEnded(core.EndReason.CONNECTION_LOST)]


def test_lost_connection_leaves_a_name_unsent() -> None:
    """And unanswered [E5, C4.1]."""
    client = Client.prompted(LINES)
    client.connection.send_name(b"Ada", 0)
    client.connection.connection_lost()
    assert client.take() == b""
    assert client.events[-1] == core.ConversationEnded(core.EndReason.CONNECTION_LOST, (b"Ada",))


# Questions


@pytest.mark.parametrize("now", [-5, 0, 0.25, 1, 1.5, 50])
def test_timeout_is_never_negative_and_none_for_never(now: float) -> None:
    for driven, deadline in ((Server(RAW), 1), (Client(), 10)):
        assert driven.connection.timeout(now) == max(0, deadline - now)
        assert driven.connection.deadline == deadline
        assert driven.take() == b""
        driven.loses_connection()
        assert driven.connection.timeout(now) is None
    assert Client.prompted().connection.timeout(now) is None
    assert Server(LINES, idle_timeout=math.inf).connection.timeout(now) is None


def test_repr() -> None:
    server = core.ServerConnection(now=0)
    shown = [repr(server)]
    server.receive_data(b"Ada\n", 1.5)
    shown.append(repr(server))
    server.shutdown(2)
    shown.append(repr(server))
    server.receive_eof(3)
    client = core.ClientConnection(core.ClientConfig(framing=RAW), now=0.5)
    assert [*shown, repr(server), repr(client)] == [
        "<ServerConnection OPEN framing=AUTO deadline=0.02>",
        "<ServerConnection OPEN framing=LINES deadline=301.5>",
        "<ServerConnection CLOSING framing=LINES deadline=4.0>",
        "<ServerConnection ENDED framing=LINES deadline=inf>",
        "<ClientConnection CONNECTED framing=RAW deadline=10.5>",
    ]


# Any conversation

noise = st.one_of(st.binary(min_size=1, max_size=64), st.just(b"Sorry, "))
arrival = st.tuples(st.just("receive_data"), noise)
junk = st.lists(st.tuples(st.floats(-1e3, 1e9), arrival), max_size=6)
configs = st.one_of(laws.server_configs, laws.client_configs)


@given(st.one_of(laws.cases, st.builds(Case, configs, junk)))
@law(200)
def test_any_peer(case: Case) -> None:
    """Whatever it sends, nothing is raised, and the end comes once and last [E1, E3, E4]."""
    connection = case.open()
    ended = eof = False
    for step in [(0.0, WAIT), *case.script, (1e9, WAIT)]:
        outcome = play(connection, [step])
        assert not (eof and outcome.stream), "bytes after the end of the stream"
        assert eof + outcome.eofs <= 1
        eof = eof or outcome.eofs == 1
        assert not (ended and outcome.events), "events after the last one"
        ends = [isinstance(event, core.ConversationEnded) for event in outcome.events]
        assert not any(ends[:-1])
        ended = ended or any(ends)
        over = connection.state.name == "ENDED"
        assert ended == connection.finished == over
        assert (connection.deadline == math.inf) >= over
        refused = step[1][0] == "send_name"  # perhaps: then no time has passed, either
        assert connection.deadline >= step[0] or refused, "what was due before is done"


@pytest.mark.parametrize("framing", core.Framing)
def test_any_byte(framing: core.Framing) -> None:
    """No single byte, first, in a word or alone, is an exception [E1]."""
    for byte in cut(bytes(range(256)), [1]):
        for before in (b"", b"Ada", b"Ada\r", b"\n"):
            Server(framing, max_name_size=3).hears(before + byte)
        for before in (b"", b"Wel", WELCOME, WELCOME + PROMPT + b"Hello ", b"Sorry, "):
            client = Client(framing)
            client.asks(b"Ada")
            client.hears(before + byte)


@pytest.mark.parametrize("driven", [Server(LINES), Client(LINES)], ids=["server", "client"])
def test_nothing_after_the_end(driven: Server | Client) -> None:
    """[E4]."""
    driven.loses_connection(at=1)
    said, events = [*driven.said], [*driven.events]
    driven.hears(b"Ada\nexit\n" + WELCOME, at=2)
    driven.shuts_down(at=3)
    driven.hears_eof(at=4)
    driven.loses_connection(at=5)
    driven.waits(1000)
    driven.looks(1000)
    assert (driven.said, driven.events) == (said, events)
    assert driven.end is core.EndReason.CONNECTION_LOST
