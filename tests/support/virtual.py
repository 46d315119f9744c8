"""Connections in virtual time, and plays: conversations written down as text.

Nothing here sleeps, reads a clock or opens a socket. Time is a number that the test chooses;
seconds are small whole numbers wherever possible, so that deadlines can be compared exactly.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import pytest

from greeter_core import (
    ClientConfig,
    ClientConnection,
    ConversationEnded,
    EndReason,
    Framing,
    Greeted,
    NamesReceived,
    ServerConfig,
    ServerConnection,
)

from . import words

AUTO, LINES, RAW = Framing.AUTO, Framing.LINES, Framing.RAW

ConnectionT = TypeVar("ConnectionT", bound=ServerConnection | ClientConnection)

EOF: None = None
"""In a record of what was said: the end of the stream."""

Said = list[tuple[float, bytes | None]]


class Driven(Generic[ConnectionT]):
    """A connection whose timers fire exactly on time, and a record of its output and its events.

    Each input comes at the time `at`, by default the present. Deadlines up to then are noticed on
    time, or not at all if the input is `late`. The method returns what is said in reply, without
    what a timer said before it.
    """

    def __init__(self, connection: ConnectionT, opened: float = 0) -> None:
        self.connection = connection
        self.now = opened
        self.said: Said = []
        self.events: list[object] = []
        self.take()

    def take(self) -> bytes:
        """Take all outputs, as must be done after every input; return the bytes."""
        data = self.connection.data_to_send()
        if data:
            self.said.append((self.now, data))
        if self.connection.eof_to_send():
            self.said.append((self.now, EOF))
        self.events += self.connection.events()
        return data

    def waits(self, until: float) -> None:
        """Let time pass; every deadline is noticed on time."""
        for _ in range(1000):
            if self.connection.deadline > until:
                self.now = until
                return
            self.now = self.connection.deadline
            self.connection.handle_timeout(self.now)
            self.take()
        msg = "the timers do not come to rest"
        raise AssertionError(msg)

    def _goes_to(self, at: float | None, *, late: bool = False) -> None:
        if at is not None and late:
            self.now = at
        elif at is not None:
            self.waits(at)

    def does(self, what: str, *data: object, at: float | None = None, late: bool = False) -> bytes:
        """Call this method of the connection."""
        self._goes_to(at, late=late)
        times = [] if what == "connection_lost" else [self.now]
        getattr(self.connection, what)(*data, *times)
        return self.take()

    def hears(
        self, data: bytes | bytearray | memoryview, at: float | None = None, *, late: bool = False
    ) -> bytes:
        return self.does("receive_data", data, at=at, late=late)

    def hears_eof(self, at: float | None = None, *, late: bool = False) -> bytes:
        return self.does("receive_eof", at=at, late=late)

    def shuts_down(self, at: float | None = None, *, late: bool = False) -> bytes:
        return self.does("shutdown", at=at, late=late)

    def loses_connection(self, at: float | None = None) -> bytes:
        return self.does("connection_lost", at=at)

    def looks(self, at: float) -> bytes:
        """Call `handle_timeout` now, however long deadlines have been over."""
        return self.does("handle_timeout", at=at, late=True)

    def is_unacknowledged(self, at: float) -> bytes:
        """Call `data_in_flight` in place of the timeout that is due at that time."""
        self.waits(math.nextafter(at, -math.inf))
        return self.does("data_in_flight", at=at, late=True)

    @property
    def stream(self) -> bytes:
        return b"".join(data for _, data in self.said if data is not EOF)

    @property
    def end(self) -> EndReason | None:
        """The reason with which the conversation ended; None while it has not."""
        ends = [event.reason for event in self.events if isinstance(event, ConversationEnded)]
        return ends[-1] if ends else None

    @property
    def names(self) -> list[bytes]:
        """The names that a server received, or that a client knows to be greeted."""
        names: list[bytes] = []
        for event in self.events:
            match event:
                case NamesReceived(received):
                    names += received
                case Greeted(name):
                    names.append(name)
        return names


class Server(Driven[ServerConnection]):
    """A server with easy numbers for its times."""

    def __init__(
        self,
        framing: Framing = AUTO,
        *,
        full: bool = False,
        **settings: Any,
    ) -> None:
        easy = {"pace": 1, "quiet": 2, "idle_timeout": 100, "linger": 10}
        config = ServerConfig(framing=framing, **(easy | settings))
        super().__init__(ServerConnection(config, now=0, full=full))

    @classmethod
    def asked(cls, framing: Framing, *, max_name_size: int = 1024) -> "Server":
        """Return a server that has said WELCOME and PROMPT, which its record omits; now is 1."""
        server = cls(framing, max_name_size=max_name_size)
        server.waits(1)
        assert server.stream == words.WELCOME + words.PROMPT
        server.said.clear()
        return server


class Client(Driven[ClientConnection]):
    """A client with easy numbers for its times."""

    def __init__(self, framing: Framing = AUTO, **settings: float) -> None:
        config = ClientConfig(framing=framing, **({"reply_timeout": 10, "linger": 5} | settings))
        super().__init__(ClientConnection(config, now=0))

    @classmethod
    def prompted(cls, framing: Framing = AUTO, *names: bytes) -> "Client":
        """Return a client that has heard WELCOME and PROMPT, and is then asked for names, at 0."""
        client = cls(framing)
        client.hears(words.WELCOME + words.PROMPT)
        client.asks(*names)
        return client

    def asks(self, *names: bytes, at: float | None = None) -> bytes:
        return self.does("send_names", names, at=at)

    def asks_exit(self, at: float | None = None) -> bytes:
        return self.does("send_exit", at=at)


# Plays
#
# A play is a configuration and steps, with a `|` before each step:
#
#     RAW pace=3 | 0 S WELCOME | 1 C Ada | 1 S PROMPT HELLO:Ada | 1 is OPEN | 4 S PROMPT | 9 wait
#
# A step is a time and what happens then. S is what the server says, and C what the client says:
# the other side's words are given to the connection, and its own are what it must have said by
# the end of the play, at exactly these times and in exactly these pieces, and nothing else.
#
# Timers fire on time, but not before a step that is `late`; `late` alone is a call of
# `handle_timeout`. `7-` is the last moment before 7. `next` is the deadline. `AUTO/RAW` makes two
# plays, and so do groups like `(1/2)`, of which all take the first, and then the second. `asked`
# and `prompted` begin when WELCOME and PROMPT are over: at 1 for the server, at 0 for the client.

METHODS = {
    "look": "handle_timeout",
    "shutdown": "shutdown",
    "lost": "connection_lost",
    "exit": "send_exit",
    "unacknowledged": "data_in_flight",
}


def plays(text: str) -> pytest.MarkDecorator:
    """Parametrize a test with plays: lines of text, each play indented below its title."""
    titled = re.findall(r"^(\S.*)\n +(\S+)( .*\n(?: +\S.*\n)*)", text, re.MULTILINE)
    assert len(titled) == len(re.findall(r"^\S", text, re.MULTILINE)), "a play is not understood"
    return pytest.mark.parametrize(
        "play",
        [
            pytest.param(play, id=f"{variant} {play.split()[0]}")
            for title, framings, steps in titled
            for framing in ([framings] if "(" in framings else framings.split("/"))
            for variant, play in _variants(title, framing + steps)
        ],
    )


def _variants(title: str, play: str) -> Iterator[tuple[str, str]]:
    """Yield a play once for each alternative in its groups, with a title."""
    group = re.compile(r"\(([^()]*/[^()]*)\)")
    for number in range(max((found.count("/") + 1 for found in group.findall(play)), default=1)):
        yield tuple(  # type: ignore[misc]
            group.sub(lambda match: match[1].split("/")[number], text)  # noqa: B023 - used at once
            for text in (title, play)
        )


def _unescaped(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


def spoken(text: str) -> bytes:
    """Return the bytes of several words: `WELCOME`, `HELLO:Ada`, `TOO_LONG:5`, or as they are."""
    said = b""
    for word in text.split():
        name, _, argument = word.partition(":")
        match name:
            case "HELLO":
                said += words.hello(_unescaped(argument))
            case "TOO_LONG":
                said += words.too_long(int(argument))
            case "WELCOME" | "PROMPT" | "GOODBYE" | "TOO_SLOW" | "FULL":
                said += getattr(words, name)
            case _:
                said += _unescaped(word)
    return said


def _opened(side: type[Server | Client], settings: str) -> Server | Client:
    framing, *words_and_values = settings.split()
    options: dict[str, Any] = {}
    for option in words_and_values:
        name, _, value = option.partition("=")
        options[name] = int(value) if value.isdigit() else float(value) if value else True
    begins = {name: options.pop(name, False) for name in ("asked", "prompted")}
    driven = side(Framing[framing], **options)
    if begins["asked"]:
        driven.waits(1)
        driven.said.clear()
    if begins["prompted"]:
        driven.hears(words.WELCOME + words.PROMPT)
    return driven


def perform(side: type[Server | Client], play: str) -> Server | Client:
    """Perform a play with a server or a client, which is returned."""
    settings, *steps = play.split("|")
    driven = _opened(side, settings)
    must_say: Said = []
    for step in steps:
        time, *rest = step.split()
        now = math.nextafter(float(time[:-1]), -math.inf) if time.endswith("-") else float(time)
        late = rest[0] == "late"
        what, *texts = rest[late:] or ["look"]
        if what == side.__name__[0]:
            pieces = [texts[:-1], EOF] if texts[-1] == "EOF" else [texts]
            said = [EOF if piece is EOF else spoken(" ".join(piece)) for piece in pieces]
            must_say += [(now, piece) for piece in said if piece != b""]
        else:
            _happens(driven, what, texts, now, late=late)
    if now > driven.now:  # otherwise what is due must have been noticed by the last input
        driven.waits(now)
    assert driven.said == must_say
    return driven


def _happens(
    driven: Server | Client, what: str, texts: list[str], now: float, *, late: bool
) -> None:
    match what:
        case "C" | "S" if texts == ["EOF"]:
            driven.hears_eof(now, late=late)
        case "C" | "S":
            driven.hears(spoken(" ".join(texts)), now, late=late)
        case "asks":
            driven.does("send_names", [_unescaped(name) for name in texts], at=now)
        case "unacknowledged" if not late:
            driven.is_unacknowledged(now)
        case "look" | "shutdown" | "lost" | "exit" | "unacknowledged":
            driven.does(METHODS[what], at=now, late=late or what == "look")
        case _:
            if now > driven.now:
                driven.waits(now)
            _is_so(driven, what, texts)


def _is_so(driven: Server | Client, what: str, texts: list[str]) -> None:
    connection = driven.connection
    match what:
        case "wait":
            pass
        case "next":
            assert connection.deadline == float(texts[0])
        case "names":
            assert driven.names == list(map(_unescaped, texts))
        case "unanswered" if isinstance(connection, ClientConnection):
            assert list(connection.unanswered) == list(map(_unescaped, texts))
        case "events":
            assert [type(event).__name__ for event in driven.events] == texts
        case "is":
            end = driven.end.name if driven.end else "going on"
            owing = "owing" if connection.prompt_owed else "not-owing"
            finished = "finished" if connection.finished else "unfinished"
            state = {connection.framing.name, connection.state.name, end, owing, finished}
            assert set(texts) - state == set()
        case _:
            msg = f"no such step: {what} {texts}"
            raise AssertionError(msg)
