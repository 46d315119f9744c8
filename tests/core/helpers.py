"""What the tests of the core share: the words, connections in virtual time, scripts, and the laws' settings.

Nothing here sleeps, reads a clock or opens a socket. Time is a number that the test chooses; seconds are small whole
numbers wherever possible, so that deadlines can be compared exactly.
"""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs
from hypothesis import settings
from hypothesis import strategies as st

from greeter_core import (
    ClientConfig,
    ClientConnection,
    ConversationEnded,
    EndReason,
    Framing,
    Greeted,
    LocalProtocolError,
    NamesReceived,
    ServerConfig,
    ServerConnection,
)

AUTO, LINES, RAW = Framing.AUTO, Framing.LINES, Framing.RAW

ROOT = Path(__file__).parents[2]
PROTOCOL = ROOT / "greeter_core" / "PROTOCOL.md"

# The words are written out here, not imported: the tests have their own opinion of what is on the wire.
WELCOME = b"Welcome!\n"
PROMPT = b"What's your name?"
GOODBYE = b"Goodbye!\n"
TOO_SLOW = b"Sorry, no name came in time.\n"
FULL = b"Sorry, the server is full.\n"


def hello(name: bytes) -> bytes:
    """Return the greeting of one name."""
    return b"Hello " + name + b"!\n"


def too_long(limit: int) -> bytes:
    """Return the refusal of a name that is longer than the limit."""
    return b"Sorry, names are limited to %d bytes.\n" % limit


# Connections in virtual time

ConnectionT = TypeVar("ConnectionT", bound=ServerConnection | ClientConnection)

EOF: None = None
"""In a record of what was said: the end of the stream."""


class Driven(Generic[ConnectionT]):
    """A connection whose timers fire exactly on time, and a record of what it said, when, and of what it reported."""

    def __init__(self, connection: ConnectionT, opened: float = 0) -> None:
        self.connection = connection
        self.now = opened
        self.said: list[tuple[float, bytes | None]] = []
        self.events: list[object] = []
        self.take()

    def take(self) -> bytes:
        """Take all outputs, as has to be done after every input; return the bytes."""
        data = self.connection.data_to_send()
        if data:
            self.said.append((self.now, data))
        if self.connection.eof_to_send():
            self.said.append((self.now, EOF))
        self.events += self.connection.events()
        return data

    def waits(self, until: float) -> None:
        """Let the time pass; every timer is noticed the moment it is due."""
        for _ in range(1000):
            if self.connection.deadline > until:
                self.now = until
                return
            self.now = self.connection.deadline
            self.connection.handle_timeout(self.now)
            self.take()
        msg = "the timers do not come to rest"
        raise AssertionError(msg)

    def _goes_to(self, at: float | None) -> None:
        if at is not None:
            self.waits(at)

    # Each of these returns what is said in reply, and nothing that a timer said on the way there.

    def hears(self, data: bytes | bytearray | memoryview, at: float | None = None) -> bytes:
        """Receive one arrival."""
        self._goes_to(at)
        self.connection.receive_data(data, self.now)
        return self.take()

    def hears_eof(self, at: float | None = None) -> bytes:
        """Receive the end of the peer's stream."""
        self._goes_to(at)
        self.connection.receive_eof(self.now)
        return self.take()

    def is_unacknowledged(self, at: float | None = None) -> bytes:
        """Be told that not all that was sent is acknowledged."""
        if at is not None:  # this is told in place of the timeout that is due then
            self.waits(math.nextafter(at, 0))
            self.now = at
        self.connection.data_in_flight(self.now)
        return self.take()

    def late(self, at: float) -> bytes:
        """Notice the time only now, however long deadlines have been over."""
        self.now = at
        self.connection.handle_timeout(at)
        return self.take()

    def hears_late(self, data: bytes, at: float) -> bytes:
        """Receive one arrival, though nobody noticed the deadlines before it."""
        self.now = at
        self.connection.receive_data(data, at)
        return self.take()

    def shuts_down(self, at: float | None = None) -> bytes:
        """Be told to shut down."""
        self._goes_to(at)
        self.connection.shutdown(self.now)
        return self.take()

    def loses_connection(self, at: float | None = None) -> bytes:
        """Be told that the connection is lost."""
        self._goes_to(at)
        self.connection.connection_lost()
        return self.take()

    @property
    def stream(self) -> bytes:
        """All bytes that were said."""
        return b"".join(data for _, data in self.said if data is not None)

    @property
    def eofs(self) -> list[float]:
        """When the end of the stream was said."""
        return [when for when, data in self.said if data is EOF]

    @property
    def end(self) -> EndReason | None:
        """The reason with which the conversation ended; None while it has not."""
        ends = [event.reason for event in self.events if isinstance(event, ConversationEnded)]
        return ends[-1] if ends else None


class Server(Driven[ServerConnection]):
    """A server with easy numbers for its times."""

    def __init__(
        self,
        framing: Framing = AUTO,
        *,
        max_name_size: int = 1024,
        pace: float = 1,
        quiet: float = 2,
        idle_timeout: float = 100,
        max_lifetime: float = math.inf,
        linger: float = 10,
        full: bool = False,
    ) -> None:
        self.config = ServerConfig(
            framing=framing,
            max_name_size=max_name_size,
            pace=pace,
            quiet=quiet,
            idle_timeout=idle_timeout,
            max_lifetime=max_lifetime,
            linger=linger,
        )
        super().__init__(ServerConnection(self.config, now=0, full=full))

    @property
    def names(self) -> list[bytes]:
        """The names that were reported, of all arrivals."""
        return [name for event in self.events if isinstance(event, NamesReceived) for name in event.names]


class Client(Driven[ClientConnection]):
    """A client with easy numbers for its times."""

    def __init__(self, framing: Framing = AUTO, *, reply_timeout: float = 10, linger: float = 5) -> None:
        config = ClientConfig(framing=framing, reply_timeout=reply_timeout, linger=linger)
        super().__init__(ClientConnection(config, now=0))

    def asks(self, *names: bytes, at: float | None = None) -> bytes:
        """Ask for names to be greeted."""
        self._goes_to(at)
        self.connection.send_names(names, self.now)
        return self.take()

    def asks_exit(self, at: float | None = None) -> bytes:
        """Ask for `exit`."""
        self._goes_to(at)
        self.connection.send_exit(self.now)
        return self.take()

    @property
    def greeted(self) -> list[bytes]:
        """The names that were reported as greeted."""
        return [event.name for event in self.events if isinstance(event, Greeted)]


# Scripts: what happens to a connection, and when

Step = tuple[str, Any]
"""What happens: "data" with the bytes, "name" with a name; and with None "eof", "shutdown",
"lost", "exit", "wait" and "in flight"."""

Script = list[tuple[float, Step]]
"""Steps with their times, which never decrease."""


@attrs.frozen
class Outcome:
    """All that a caller can know after a script."""

    stream: bytes
    eofs: int
    events: Sequence[object]
    errors: int
    state: object
    framing: Framing
    deadline: float
    finished: bool


def play(connection: ServerConnection | ClientConnection, script: Iterable[tuple[float, Step]]) -> Outcome:
    """Play a script, taking all outputs before it and after every step."""
    stream, eofs, errors = connection.data_to_send(), 0, 0
    events: list[object] = []
    for now, step in script:
        if step[0] == "lost":  # it has no time of its own: what was due before it, and what was said, comes first
            connection.handle_timeout(now)
            stream += connection.data_to_send()
            eofs += connection.eof_to_send()
        try:
            _do(connection, step, now)
        except LocalProtocolError:  # names after the end: whether that is an error must not depend on other calls
            errors += 1
        stream += connection.data_to_send()
        eofs += connection.eof_to_send()
        events += connection.events()
    return Outcome(
        stream,
        eofs,
        events,
        errors,
        connection.state,
        connection.framing,
        connection.deadline,
        connection.finished,
    )


def _do(connection: ServerConnection | ClientConnection, step: Step, now: float) -> None:
    what, argument = step
    match what, connection:
        case "data", _:
            connection.receive_data(argument, now)
        case "eof", _:
            connection.receive_eof(now)
        case "shutdown", _:
            connection.shutdown(now)
        case "lost", _:
            connection.connection_lost()
        case "wait", _:
            connection.handle_timeout(now)
        case "in flight", _:
            connection.data_in_flight(now)
        case "name", ClientConnection():
            connection.send_name(argument, now)
        case "exit", ClientConnection():
            connection.send_exit(now)
        case _:
            msg = f"no such step: {step}"
            raise AssertionError(msg)


# What the laws draw from

small_sizes = st.integers(1, 6)
"""Limits so low that random names often reach them; below 4 even `exit` is too long."""

fragments = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r", b"exit", b"exit\n", b"a", b"bc", b"Ada\n", b"12345", b"!"])
client_bytes = st.lists(fragments, min_size=1, max_size=6).map(b"".join)
"""What a client may send: rich in everything that has a meaning."""

seconds = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 7.0, 20.0])
"""Waits, in halves of a second: sums are exact, and coincidences frequent."""

lifetimes = st.sampled_from([math.inf, math.inf, 0.5, 1.5, 3.0, 20.0])
"""How long a conversation may last: often for ever, so that it also comes to its other ends."""

server_configs = st.builds(
    ServerConfig,
    framing=st.sampled_from(Framing),
    max_name_size=small_sizes,
    pace=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    quiet=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    idle_timeout=st.sampled_from([0.5, 2.0, 3.0, 20.0, math.inf]),
    max_lifetime=lifetimes,
    linger=st.sampled_from([0.0, 1.0, 5.0]),
)

client_configs = st.builds(
    ClientConfig,
    framing=st.sampled_from(Framing),
    reply_timeout=st.sampled_from([0.5, 2.0, 3.0, 20.0, math.inf]),
    linger=st.sampled_from([0.0, 1.0, 5.0]),
)

client_names = st.sampled_from([b"a", b"Ada", b"Hello ", b"!", b"\x00\xff"])

server_words = st.sampled_from(
    [WELCOME, PROMPT, hello(b"a"), hello(b"Ada"), hello(b"a\n"), hello(b"Ada\n"), hello(b"exit\n"), GOODBYE, TOO_SLOW]
)
server_streams = st.one_of(
    st.lists(server_words, max_size=6).map(lambda words: WELCOME + PROMPT + b"".join(words)),
    st.lists(server_words, max_size=6).map(b"".join),
    st.tuples(st.lists(server_words, max_size=6).map(b"".join), st.binary(max_size=4)).map(b"".join),
)
"""What a server may send, mostly sense, sometimes nonsense."""


def scripts(steps: st.SearchStrategy[Step]) -> st.SearchStrategy[Script]:
    """Draw scripts of these steps; no data comes after the end of the stream."""
    return st.lists(st.tuples(seconds, steps), max_size=8).map(_timed)


def _timed(waits_and_steps: list[tuple[float, Step]]) -> Script:
    script: Script = []
    now, ended = 0.0, False
    for wait, step in waits_and_steps:
        now += wait
        if not (ended and step[0] == "data"):
            script.append((now, step))
        ended = ended or step[0] == "eof"
    return script


def _steps(**arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.one_of(*(st.tuples(st.just(what), argument) for what, argument in arguments.items()))


server_scripts = scripts(
    st.one_of(
        _steps(data=client_bytes),
        st.one_of(
            _steps(data=client_bytes, eof=st.none(), shutdown=st.none(), lost=st.none()),
            st.just(("in flight", None)),
        ),
    )
)

client_scripts = scripts(
    st.one_of(
        _steps(data=server_streams.filter(bool), name=client_names),
        _steps(data=server_words, name=client_names, exit=st.none(), eof=st.none(), shutdown=st.none(), lost=st.none()),
    )
)


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Cut bytes into pieces of these sizes, taken in turn, again and again."""
    pieces: list[bytes] = []
    while data:
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[:size])
        data = data[size:]
    return pieces


cut_sizes = st.lists(st.one_of(st.integers(1, 4), st.integers(1, 40)), min_size=1, max_size=8)


EXPLORE = int(os.environ.get("GREETER_EXPLORE", "0"))
"""0: the same examples at every run. N: N times as many, drawn at random, to look for what nobody has seen yet."""


def law(examples: int) -> settings:
    """Return the settings of a law: how many examples are tried; nothing depends on the speed of the machine."""
    return settings(max_examples=examples * max(EXPLORE, 1), derandomize=not EXPLORE, deadline=None, database=None)
