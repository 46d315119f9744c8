"""What a caller may rely on (PROTOCOL.md, E): public names, wrong calls, outputs, events and the end."""

import inspect
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

import greeter_core
from greeter_core import (
    ClientConfig,
    ClientConnection,
    ClientEvent,
    ClientState,
    Connection,
    ConversationEnded,
    EndReason,
    EOFReceived,
    ExitReceived,
    Framing,
    GoodbyeReceived,
    Greeted,
    LocalProtocolError,
    NameRequested,
    NamesReceived,
    ProtocolViolated,
    Refusal,
    Refused,
    ServerConfig,
    ServerConnection,
    ServerEvent,
    ServerState,
    SorryReceived,
    Welcomed,
)

from .helpers import (
    AUTO,
    GOODBYE,
    LINES,
    PROMPT,
    RAW,
    WELCOME,
    Client,
    Script,
    Server,
    client_configs,
    client_scripts,
    hello,
    law,
    play,
    server_configs,
    server_scripts,
)

# The public names


def test_all() -> None:
    """`__all__` is sorted, names nothing twice, and names everything public that the package holds."""
    names = [
        name
        for name, value in vars(greeter_core).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    assert greeter_core.__all__ == sorted(set(greeter_core.__all__)) == sorted(names)


@pytest.mark.parametrize("name", greeter_core.__all__)
def test_public_classes_are_documented(name: str) -> None:
    """Every public class has a docstring, and so has everything public on it that is not a plain value."""
    public = getattr(greeter_core, name)
    if isinstance(public, type):
        assert public.__doc__
        for attribute, value in vars(public).items():
            if not attribute.startswith("_") and (callable(value) or isinstance(value, property)):
                assert value.__doc__, attribute


@pytest.mark.parametrize("role", [ServerConnection, ClientConnection])
def test_roles_share_a_public_class(role: type) -> None:
    """Both roles are a `Connection`, which is abstract, and has all that an adapter needs."""
    assert issubclass(role, Connection)
    assert inspect.isabstract(Connection)
    contract = {
        *("receive_data", "receive_eof", "handle_timeout", "data_in_flight", "shutdown"),
        *("connection_lost", "data_to_send", "eof_to_send", "events", "deadline", "timeout"),
        *("prompt_owed", "state", "framing", "finished"),
    }
    assert {name for name in vars(Connection) if not name.startswith("_")} == contract


def test_reading_while_sending() -> None:
    """An adapter reads on while a send is blocked for a client, and not for a server [M2]."""
    assert ClientConnection.reads_while_sending
    assert not ServerConnection.reads_while_sending


@pytest.mark.parametrize("config", [ServerConfig, ClientConfig])
def test_help_of_configurations(config: type) -> None:
    """`help()` of a configuration says of each field what it is for."""
    text = pydoc.plain(pydoc.render_doc(config))  # without the bold letters of a terminal
    for field in attrs.fields(config):
        assert re.search(rf"^ \|  {field.name}: [A-Z]\w* \w", text, re.MULTILINE), field.name


# Wrong calls. For each: the history before it, the call, and what the message says.

Call = Callable[[Any], object]
NOT_NOW = [math.nan, math.inf, -math.inf, 10**400, -(10**400), "1", None, 1j]

WRONG: list[tuple[type, Script, Call, str]] = [
    (role, [], call, message)
    for role in (ServerConnection, ClientConnection)
    for call, message in [
        (lambda c: c.receive_data("Ada", 0), "bytes, not str"),
        (lambda c: c.receive_data(None, 0), "bytes, not NoneType"),
        (lambda c: c.receive_data([65], 0), "bytes, not list"),
        (lambda c: c.receive_data(65, 0), "bytes, not int"),
        (lambda c: c.receive_data(b"", 0), "receive_eof"),
        (lambda c: c.receive_data(bytearray(), 50), "receive_eof"),
        (lambda c: c.receive_data(memoryview(b""), 50), "receive_eof"),
        *((lambda c, now=now: c.receive_data(b"Ada", now), repr(now)) for now in NOT_NOW),
        *((lambda c, now=now: c.receive_eof(now), repr(now)) for now in NOT_NOW),
        *((lambda c, now=now: c.handle_timeout(now), repr(now)) for now in NOT_NOW),
        *((lambda c, now=now: c.shutdown(now), repr(now)) for now in NOT_NOW),
        *((lambda c, now=now: c.data_in_flight(now), repr(now)) for now in NOT_NOW),
        *((lambda c, now=now: c.timeout(now), repr(now)) for now in NOT_NOW),
    ]
]
WRONG += [
    (role, [(0, ("eof", None))], lambda c: c.receive_data(b"Ada", 0), "after receive_eof")
    for role in (ServerConnection, ClientConnection)
]
WRONG += [
    (role, [(0, ("lost", None))], lambda c: c.timeout(math.nan), "nan")  # though it has no deadline
    for role in (ServerConnection, ClientConnection)
]
PROMPTED: Script = [(0, ("data", WELCOME + PROMPT)), (0, ("name", b"Ada"))]
WRONG += [
    (ClientConnection, history, call, message)
    for history in ([], PROMPTED)
    for call, message in [
        (lambda c: c.send_name(b"", 0), "empty"),
        (lambda c: c.send_name("Ada", 50), "bytes, not str"),
        (lambda c: c.send_name(b"x" * 1025, 50), "1024"),
        (lambda c: c.send_name(b"two\nlines", 0), "two"),
        (lambda c: c.send_name(b"exit", 0), "send_exit"),
        (lambda c: c.send_names([b"Bob", b"Eve\r"], 0), "Eve"),
        (lambda c: c.send_names(b"Bob", 0), "send_name takes one"),
        (lambda c: c.send_names("Bob", 0), "send_name takes one"),
        (lambda c: c.send_names(None, 0), "several names, not None"),
        (lambda c: c.send_names(5, 0), "several names, not 5"),
        *((lambda c, now=now: c.send_name(b"Bob", now), repr(now)) for now in NOT_NOW),
        *((lambda c, now=now: c.send_names([b"Bob"], now), repr(now)) for now in NOT_NOW),
        *((lambda c, now=now: c.send_exit(now), repr(now)) for now in NOT_NOW),
    ]
]
WRONG += [
    (ClientConnection, [*PROMPTED, last], lambda c: c.send_name(b"Bob", 0), message)
    for last, message in [
        ((0, ("exit", None)), "after exit"),
        ((0, ("data", GOODBYE)), "after the end"),
        ((0, ("eof", None)), "after the end"),
        ((0, ("shutdown", None)), "after the end"),
        ((0, ("lost", None)), "after the end"),
    ]
]

AFTERWARDS: Script = [
    (1, ("data", WELCOME + PROMPT + b"Hello Ada!\n" + PROMPT)),
    (2, ("data", b"Bob")),
    (4, ("shutdown", None)),
    (5, ("eof", None)),
]


@pytest.mark.parametrize(
    ("connection", "history", "call", "message"),
    WRONG,
    ids=[f"{number} {case[-1]}" for number, case in enumerate(WRONG)],
)
def test_wrong_calls(connection: type, history: Script, call: Call, message: str) -> None:
    """A wrong call raises `LocalProtocolError`, which says what is wrong, and changes nothing, now or later [E2]."""
    once, again = connection(now=0), connection(now=0)
    if history:  # where there is none, what is said on open still waits to be taken
        play(once, history)
        play(again, history)
    with pytest.raises(LocalProtocolError) as raised:
        call(again)
    assert message in str(raised.value)
    assert play(once, []) == play(again, [])
    ended = any(step == ("eof", None) for _, step in history)
    rest = [(now, step) for now, step in AFTERWARDS if not (ended and step[0] == "data")]
    assert play(once, rest) == play(again, rest)


@pytest.mark.parametrize("now", NOT_NOW)
@pytest.mark.parametrize("connection", [ServerConnection, ClientConnection])
def test_wrong_times_of_opening(connection: Callable[..., object], now: object) -> None:
    """A connection cannot be opened at a time that is no finite number [E2]."""
    with pytest.raises(LocalProtocolError, match="finite number of seconds"):
        connection(now=now)


def test_errors_are_value_errors() -> None:
    """`LocalProtocolError` is a `ValueError`, so that a caller who does not know it can still catch it [E2]."""
    assert issubclass(LocalProtocolError, ValueError)


def test_names_after_a_deadline() -> None:
    """A name that is asked after the patience has ended is refused, and that end is reported as always [E2, T3]."""
    client = Client()
    with pytest.raises(LocalProtocolError, match="after the end"):
        client.connection.send_name(b"Ada", 10)
    client.take()
    assert client.events == [ConversationEnded(EndReason.TIMED_OUT)]


def test_generators_of_names() -> None:
    """Names may come from a generator; if that fails, or one of its names is wrong, none is asked [E2]."""

    def failing() -> Iterator[bytes]:
        yield b"Ada"
        raise OSError

    client = Client()
    with pytest.raises(OSError):  # noqa: PT011 - the generator's own error passes unchanged, and it has no words
        client.connection.send_names(failing(), 0)
    assert list(client.connection.unanswered) == []
    client.connection.send_names((name for name in (b"Ada", b"Bob")), 0)
    assert list(client.connection.unanswered) == [b"Ada", b"Bob"]


# Configuration

CONFIGS: dict[str, Any] = {config.__name__: config for config in (ServerConfig, ClientConfig)}
NO_DELAY = [-1, -0.001, math.nan, math.inf, 10**400, "1", None, True]
NO_TIMEOUT = [0, -1, math.nan, -math.inf, 10**400, "1", None, True]
BAD: list[tuple[str, str, Sequence[object], str]] = [
    ("ServerConfig", "framing", ["auto", None, 0], "Framing.AUTO, Framing.LINES or Framing.RAW"),
    ("ServerConfig", "max_name_size", [0, -1, 1.5, 1024.0, "1024", None, True], "1 or more"),
    ("ServerConfig", "pace", NO_DELAY, "0 or more"),
    ("ServerConfig", "quiet", NO_DELAY, "0 or more"),
    ("ServerConfig", "idle_timeout", NO_TIMEOUT, "more than 0"),
    ("ServerConfig", "max_lifetime", NO_TIMEOUT, "more than 0"),
    ("ServerConfig", "linger", NO_DELAY, "0 or more"),
    ("ClientConfig", "framing", ["auto", None, 0], "Framing.AUTO, Framing.LINES or Framing.RAW"),
    ("ClientConfig", "reply_timeout", NO_TIMEOUT, "more than 0"),
    ("ClientConfig", "linger", NO_DELAY, "0 or more"),
]


@pytest.mark.parametrize(("config", "field", "values", "bound"), BAD)
def test_wrong_configuration(config: str, field: str, values: Sequence[object], bound: str) -> None:
    """A wrong value is refused with a message that names the field, the bound and the value [E2]."""
    for value in values:
        with pytest.raises(LocalProtocolError) as raised:
            CONFIGS[config](**{field: value})
        message = str(raised.value)
        assert message.startswith(f"{field} must be ")
        assert bound in message
        assert message.endswith(f"not {value!r}")


def test_every_field_is_checked() -> None:
    """The table above leaves out no field of either configuration [E2]."""
    fields = [(name, field.name) for name, config in CONFIGS.items() for field in attrs.fields(config)]
    assert [(config, field) for config, field, *_ in BAD] == fields


def test_right_configuration() -> None:
    """The bounds themselves are allowed, whole numbers of seconds are, and so is infinite patience."""
    config = ServerConfig(
        framing=RAW, max_name_size=1, pace=0, quiet=0, idle_timeout=math.inf, max_lifetime=math.inf, linger=0
    )
    assert attrs.asdict(config) == {
        "framing": RAW,
        "max_name_size": 1,
        "pace": 0,
        "quiet": 0,
        "idle_timeout": math.inf,
        "max_lifetime": math.inf,
        "linger": 0,
    }
    assert ClientConfig(reply_timeout=math.inf, linger=0) == ClientConfig(linger=0, reply_timeout=math.inf)
    assert ServerConfig(idle_timeout=1e-9, max_lifetime=1e-9).framing is ClientConfig().framing is AUTO


@pytest.mark.parametrize("config", [ServerConfig(), ClientConfig()])
def test_configurations_are_frozen(config: ServerConfig | ClientConfig) -> None:
    """A configuration cannot be changed, equals another with the same values, and can be a key."""
    for field in attrs.fields(type(config)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(config, field.name, getattr(config, field.name))
    assert {config: 1}[type(config)()] == 1


# Inputs


def strided(data: bytes) -> memoryview:
    """Return the bytes as a view of every second byte of a buffer."""
    return memoryview(b"".join(bytes([byte, 0]) for byte in data))[::2]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, strided])
def test_bytes_like(kind: Callable[[bytes], bytes | bytearray | memoryview]) -> None:
    """Data may be of any bytes-like type."""
    server = Server(LINES)
    assert server.hears(kind(b"Ada\n")) == hello(b"Ada") + PROMPT
    assert server.events == [NamesReceived((b"Ada",))]
    client = Client()
    client.hears(kind(WELCOME))
    assert client.connection.state is ClientState.WELCOMED


def test_buffers_can_be_used_again() -> None:
    """A buffer that is written anew after a call does not change what was received."""
    server, buffer = Server(LINES), bytearray(b"Ad")
    server.hears(buffer)
    buffer[:] = b"XX"
    server.hears(b"a\n")
    assert server.names == [b"Ada"]


@pytest.mark.parametrize(
    "repeated",
    [
        lambda connection: connection.receive_eof(5),
        lambda connection: connection.shutdown(5),
        lambda connection: connection.handle_timeout(5),
        lambda connection: connection.connection_lost(),
    ],
    ids=["receive_eof", "shutdown", "handle_timeout", "connection_lost"],
)
def test_repeated_calls_do_nothing(repeated: Call) -> None:
    """Telling the end of the stream, the time, a shutdown or a loss again does nothing [E4, T5]."""
    for make in (lambda: Server(RAW), Client):
        once, often = make(), make()
        for driven, times in ((once, 1), (often, 3)):
            for _ in range(times):
                repeated(driven.connection)
                driven.take()
        assert often.said == once.said
        assert often.events == once.events
        assert often.connection.deadline == once.connection.deadline
        assert often.connection.state is once.connection.state


# Outputs


def test_bytes_come_before_the_end() -> None:
    """The end of the stream is reported once, and only when the bytes before it are taken [E3]."""
    server = ServerConnection(now=0)
    assert not server.eof_to_send()
    server.receive_data(b"exit\n", 0)
    assert not server.eof_to_send()
    assert server.data_to_send() == WELCOME + PROMPT + GOODBYE
    assert server.eof_to_send()
    assert not server.eof_to_send()
    assert server.data_to_send() == b""


def test_outputs_are_handed_out_once() -> None:
    """Bytes and events are handed out once, and asking for them again gives nothing [E3]."""
    server = ServerConnection(ServerConfig(framing=LINES), now=0)
    server.receive_data(b"Ada\n", 0)
    assert server.data_to_send() == WELCOME + PROMPT + hello(b"Ada") + PROMPT
    assert server.data_to_send() == b""
    assert server.events() == [NamesReceived((b"Ada",))]
    assert server.events() == []


def test_finished() -> None:
    """A connection is finished when the conversation is over and bytes and end are taken, not before [E3, E4]."""
    server = ServerConnection(now=0)
    server.receive_data(b"Ada", 0)
    server.receive_eof(0)
    finished = [server.finished]
    server.data_to_send()
    finished.append(server.finished)
    server.eof_to_send()
    finished.append(server.finished)
    assert finished == [False, False, True]
    server = ServerConnection(now=0)
    server.shutdown(0)
    server.data_to_send()
    server.eof_to_send()
    assert not server.finished, "the client has not ended its stream"


@pytest.mark.parametrize("history", [[], [(0, ("data", b"Ada"))], [(0, ("shutdown", None))], [(0, ("eof", None))]])
def test_lost_connection(history: Script) -> None:
    """When the connection is lost nothing is left to send, not even the end of the stream, in any state [E5]."""
    for connection in (ServerConnection(now=0), ClientConnection(now=0)):
        for now, (what, argument) in history:
            match what:
                case "data":
                    connection.receive_data(argument, now)
                case "shutdown":
                    connection.shutdown(now)
                case "eof":
                    connection.receive_eof(now)
        connection.connection_lost()
        assert connection.finished
        assert connection.data_to_send() == b""
        assert not connection.eof_to_send()
        assert connection.deadline == math.inf
        assert isinstance(connection.events()[-1], ConversationEnded)


def test_lost_connection_is_the_reason() -> None:
    """A connection that is lost in the midst of a conversation ends it with that reason [E5, S8.4]."""
    server, client = Server(), Client()
    server.loses_connection()
    client.loses_connection()
    assert server.events == client.events == [ConversationEnded(EndReason.CONNECTION_LOST)]


def test_losing_names() -> None:
    """Names that a client could not send any more are not sent, and are reported [E5, C4.1]."""
    client = Client(LINES)
    client.hears(WELCOME + PROMPT)
    client.connection.send_name(b"Ada", 0)
    client.connection.connection_lost()
    assert client.take() == b""
    assert client.events[-1] == ConversationEnded(EndReason.CONNECTION_LOST, (b"Ada",))


# Questions


@pytest.mark.parametrize("now", [-5, 0, 0.25, 1, 1.5, 50])
def test_timeout(now: float) -> None:
    """`timeout` is in seconds, never below 0, and None for never; it changes nothing."""
    for driven, deadline in ((Server(RAW), 1), (Client(), 10)):
        assert driven.connection.timeout(now) == max(0, deadline - now)
        assert driven.connection.deadline == deadline
        assert driven.take() == b""
        driven.loses_connection()
        assert driven.connection.timeout(now) is None
    client = Client()
    client.hears(WELCOME + PROMPT)
    assert client.connection.timeout(now) is None
    server = Server(LINES, idle_timeout=math.inf)
    assert server.connection.timeout(now) is None


def test_prompt_owed() -> None:
    """A server says whether a PROMPT waits for its time; a client owes none [S2.7]."""
    server = Server(AUTO)
    owed = [server.connection.prompt_owed]
    server.waits(1)
    owed.append(server.connection.prompt_owed)
    server.hears(b"Ada")
    server.waits(3)
    owed.append(server.connection.prompt_owed)
    server.hears(b"\n")
    owed.append(server.connection.prompt_owed)
    assert owed == [True, False, True, False]
    for other in (Server(LINES), Server(full=True), Client(), Client(RAW)):
        assert not other.connection.prompt_owed
    server = Server(RAW)
    server.shuts_down()
    assert not server.connection.prompt_owed


def test_repr() -> None:
    """A connection shows its role, its state, its framing and its deadline."""
    server = ServerConnection(now=0)
    shown = [repr(server)]
    server.receive_data(b"Ada\n", 1.5)
    shown.append(repr(server))
    server.shutdown(2)
    shown.append(repr(server))
    server.receive_eof(3)
    shown.append(repr(server))
    assert shown == [
        "<ServerConnection OPEN framing=AUTO deadline=0.02>",
        "<ServerConnection OPEN framing=LINES deadline=301.5>",
        "<ServerConnection CLOSING framing=LINES deadline=4.0>",
        "<ServerConnection ENDED framing=LINES deadline=inf>",
    ]
    client = ClientConnection(ClientConfig(framing=RAW), now=0.5)
    shown = [repr(client)]
    client.receive_data(WELCOME + PROMPT, 1)
    shown.append(repr(client))
    client.receive_data(b"?", 1)
    shown.append(repr(client))
    assert shown == [
        "<ClientConnection CONNECTED framing=RAW deadline=10.5>",
        "<ClientConnection PROMPTED framing=RAW deadline=inf>",
        "<ClientConnection ENDED framing=RAW deadline=inf>",
    ]


# Any conversation


def follow(connection: ServerConnection | ClientConnection, script: Script) -> None:
    """Play a script, and see after every step that the outputs are in order."""
    ended = eof = False
    for step in [(0.0, ("wait", None)), *script, (1e9, ("wait", None))]:
        outcome = play(connection, [step])
        assert not (eof and outcome.stream), "bytes after the end of the stream"
        assert eof + outcome.eofs <= 1
        eof = eof or outcome.eofs == 1
        assert not (ended and outcome.events), "events after the last one"
        ends = [isinstance(event, ConversationEnded) for event in outcome.events]
        assert not any(ends[:-1])
        ended = ended or any(ends)
        over = connection.state.name == "ENDED"
        assert ended == connection.finished == over
        assert (connection.deadline == math.inf) >= over
        refused = step[1][0] == "name"  # perhaps: then no time has passed, either
        assert connection.deadline >= step[0] or refused, "what was due before is done"


junk = st.lists(
    st.tuples(
        st.floats(-1e3, 1e9),
        st.tuples(st.just("data"), st.one_of(st.binary(min_size=1, max_size=64), st.just(b"Sorry, "))),
    ),
    max_size=6,
)


@given(server_configs, st.one_of(server_scripts, junk), st.booleans())
@law(100)
def test_any_server(config: ServerConfig, script: Script, full: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever a client sends, nothing is raised, and the end comes once and last [E1, E3, E4]."""
    follow(ServerConnection(config, now=0, full=full), script)


@given(client_configs, st.one_of(client_scripts, junk))
@law(100)
def test_any_client(config: ClientConfig, script: Script) -> None:
    """Whatever a server sends, nothing is raised, and the end comes once and last [E1, E3, E4]."""
    follow(ClientConnection(config, now=0), script)


@pytest.mark.parametrize("byte", range(256))
def test_any_byte(byte: int) -> None:
    """No single byte, first, in a word or alone, is an exception [E1]."""
    for framing in Framing:
        for before in (b"", b"Ada", b"Ada\r", b"\n"):
            Server(framing, max_name_size=3).hears(before + bytes([byte]))
        for before in (b"", b"Wel", WELCOME, WELCOME + PROMPT, WELCOME + PROMPT + b"Hello ", b"Sorry, "):
            client = Client(framing)
            client.asks(b"Ada")
            client.hears(before + bytes([byte]))


def test_nothing_after_the_end() -> None:
    """After `ConversationEnded` every input does nothing [E4]."""
    for driven in (Server(LINES), Client(LINES)):
        driven.loses_connection(at=1)
        told = len(driven.events)
        driven.hears(b"Ada\nexit\n" + WELCOME, at=2)
        driven.shuts_down(at=3)
        driven.hears_eof(at=4)
        driven.loses_connection(at=5)
        driven.waits(1000)
        driven.connection.handle_timeout(1000)
        driven.take()
        assert driven.events[told:] == []
        assert driven.end is EndReason.CONNECTION_LOST
        assert driven.said == [(0, WELCOME + PROMPT)] or driven.said == []


# Events


def describe(event: ServerEvent | ClientEvent) -> object:
    """Take an event apart, as its users will."""
    match event:
        case NamesReceived(names):
            return tuple(names)
        case Refused(reason, message):
            return reason, message
        case SorryReceived(message) | Greeted(message):
            return message
        case ProtocolViolated(expected, received):
            return expected, received
        case ConversationEnded(reason, unanswered):
            return reason, unanswered
        case ExitReceived() | EOFReceived() | Welcomed() | NameRequested() | GoodbyeReceived():
            return type(event)


EVENTS: dict[type, tuple[ServerEvent | ClientEvent, object]] = {
    NamesReceived: (NamesReceived((b"Ada",)), (b"Ada",)),
    ExitReceived: (ExitReceived(), ExitReceived),
    EOFReceived: (EOFReceived(), EOFReceived),
    Refused: (Refused(Refusal.IDLE, b"Sorry, x."), (Refusal.IDLE, b"Sorry, x.")),
    Welcomed: (Welcomed(), Welcomed),
    NameRequested: (NameRequested(), NameRequested),
    Greeted: (Greeted(b"Ada"), b"Ada"),
    SorryReceived: (SorryReceived(b"Sorry, x."), b"Sorry, x."),
    GoodbyeReceived: (GoodbyeReceived(), GoodbyeReceived),
    ProtocolViolated: (ProtocolViolated(b"a", b"b"), (b"a", b"b")),
    ConversationEnded: (ConversationEnded(EndReason.EXIT, (b"Ada",)), (EndReason.EXIT, (b"Ada",))),
}


def test_every_event_is_known() -> None:
    """The two unions of events name every event there is, and share only the last one."""
    assert {*get_args(ServerEvent), *get_args(ClientEvent)} == set(EVENTS)
    assert {*get_args(ServerEvent)} & {*get_args(ClientEvent)} == {ConversationEnded}


@pytest.mark.parametrize(("event", "parts"), EVENTS.values(), ids=lambda value: type(value).__name__)
def test_events_match(event: ServerEvent | ClientEvent, parts: object) -> None:
    """Every event can be taken apart by `match`."""
    assert describe(event) == parts


@pytest.mark.parametrize("event", [event for event, _ in EVENTS.values()], ids=lambda event: type(event).__name__)
def test_events_are_frozen(event: ServerEvent | ClientEvent) -> None:
    """An event is a value: it cannot be changed, equals its copy, and can be a key."""
    for field in attrs.fields(type(event)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(event, field.name, None)
    copy = attrs.evolve(event)
    assert copy == event
    assert copy is not event
    assert {event: 1}[copy] == 1


def test_the_end_of_a_server() -> None:
    """A server has nothing unanswered, and need not say so."""
    assert ConversationEnded(EndReason.EOF) == ConversationEnded(EndReason.EOF, ())


def names_of(data: bytes) -> Sequence[bytes]:
    """Return the names that a server reports for one arrival."""
    server = ServerConnection(ServerConfig(framing=LINES), now=0)
    server.receive_data(data, 0)
    server.data_to_send()
    (event,) = server.events()
    assert isinstance(event, NamesReceived)
    return event.names


def test_names_are_a_sequence() -> None:
    """The names of one arrival are a sequence: length, iteration, index and slice, search, from either end."""
    names = names_of(b"Ada\nBob\r\n\nAda\n")
    assert isinstance(names, Sequence)
    assert len(names) == 3
    assert list(names) == [b"Ada", b"Bob", b"Ada"]
    assert list(reversed(names)) == [b"Ada", b"Bob", b"Ada"]
    assert (names[0], names[1], names[-2]) == (b"Ada", b"Bob", b"Bob")
    assert (names[1:], names[::2], names[9:]) == ((b"Bob", b"Ada"), (b"Ada", b"Ada"), ())
    assert (names.count(b"Ada"), names.index(b"Bob")) == (2, 1)
    assert b"Bob" in names
    assert b"Ada\nBob" not in names
    with pytest.raises(IndexError):
        names[3]


def test_one_name_is_a_tuple() -> None:
    """Where one name came alone, the names are a plain tuple."""
    assert type(names_of(b"Ada\r\n")) is tuple
    assert names_of(b"Ada\r\n") == (b"Ada",)
    assert list(names_of(b"\nAda\n")) == [b"Ada"]


def test_names_are_a_value() -> None:
    """The names of one arrival equal any sequence of the same names, and hash and show themselves as a tuple."""
    names = names_of(b"Ada\nBob\n")
    equals: list[object] = [(b"Ada", b"Bob"), [b"Ada", b"Bob"], names_of(b"\nAda\r\nBob\n")]
    for equal in equals:
        assert names == equal
        assert equal == names
    others: list[object] = [(b"Bob", b"Ada"), (b"Ada", b"Bob", b"Bob"), (), {b"Ada": 1, b"Bob": 2}, b"Ada\nBob", None]
    for other in others:
        assert names != other
        assert other != names
    assert hash(names) == hash((b"Ada", b"Bob"))
    assert repr(names) == repr((b"Ada", b"Bob"))
    for equal in (names, (b"Ada", b"Bob"), [b"Ada", b"Bob"]):
        event = NamesReceived(equal)
        assert event == NamesReceived(names)
        assert hash(event) == hash(NamesReceived(names))
    assert NamesReceived(names) != NamesReceived((b"Ada",))


def test_names_are_split_on_demand() -> None:
    """Names that nobody looks at take no more room than their bytes; looked at once, they are kept."""
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


# States


def test_states() -> None:
    """Every state says whether the conversation goes on and whether it is over."""
    for state in (*ServerState, *ClientState):
        assert state.is_ended == (state.name == "ENDED")
        assert state.is_open == (state.name not in ("CLOSING", "ENDED"))
    assert len({*ServerState, *ClientState}) == 9


# More wrong calls


@pytest.mark.parametrize("connection", [ServerConnection, ClientConnection])
def test_wrong_config(connection: Callable[..., object]) -> None:
    """A configuration of another kind is refused, by the name of the right one [E2]."""
    wrong = ClientConfig() if connection is ServerConnection else ServerConfig()
    configs: list[object] = [{}, None, wrong]
    for config in configs:
        with pytest.raises(LocalProtocolError, match=r"config must be a (Server|Client)Config, not "):
            connection(config, now=0)


def test_time_stands_still_for_a_name_after_exit() -> None:
    """A name that comes after `exit` is refused before any time passes [C2.2, E2]."""
    client = ClientConnection(ClientConfig(reply_timeout=1), now=0)
    client.send_exit(0)
    with pytest.raises(LocalProtocolError, match="after exit"):
        client.send_name(b"Ada", 50)
    assert client.deadline == 1
    assert client.events() == []
