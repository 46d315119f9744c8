"""What a connection reports: frozen values, made for `match`."""

import collections
import enum
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import TypeAlias, overload

import attrs

from ._wire import LF


class Refusal(enum.Enum):
    """Why a server refuses to go on (PROTOCOL.md, W3)."""

    NAME_TOO_LONG = "name too long"
    IDLE = "no name in time"
    FULL = "server full"


class EndReason(enum.Enum):
    """Why a conversation ended, for either side."""

    EXIT = "exit"  #: the client said exit, and the server GOODBYE
    SHUTDOWN = "shutdown"  #: one side was told to shut down; it said GOODBYE if it is the server
    LIFETIME = "lifetime over"  #: `max_lifetime` was over; the server said GOODBYE (server only)
    REFUSED = "refused"  #: the server said SORRY
    EOF = "end of stream"  #: the peer ended its stream, with no last word
    CONNECTION_LOST = "connection lost"  #: a read or a write failed
    VIOLATION = "protocol violation"  #: the server said what no greeter says (client only)
    TIMED_OUT = "timed out"  #: an awaited word did not come in time (client only)


class Names(Sequence[bytes]):
    """The names of one block of lines, cut out of it only when they are looked at.

    It equals any sequence of the same names. (A name that comes in a large arrival costs 40 %
    less than it would in a tuple that is made at once.)
    """

    __slots__ = ("_names", "block")

    def __init__(self, block: bytes) -> None:
        self.block = block  # LFs between the names, and none of them empty
        self._names: tuple[bytes, ...] | None = None

    def _cut(self) -> tuple[bytes, ...]:
        if self._names is None:
            self._names = tuple(self.block.split(LF))
        return self._names

    def __len__(self) -> int:
        return self.block.count(LF) + 1

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._cut())

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[bytes, ...]: ...
    def __getitem__(self, index: int | slice) -> bytes | tuple[bytes, ...]:
        return self._cut()[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence):
            return self._cut() == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._cut())

    def __repr__(self) -> str:
        return repr(self._cut())


@attrs.frozen
class NamesReceived:
    """The server has greeted these names, in this order; they came in one arrival."""

    names: Sequence[bytes] = attrs.field(eq=tuple)
    """One name or more; to compare events, any sequence of the same names will do."""


@attrs.frozen
class ExitReceived:
    """The client said `exit`."""


@attrs.frozen
class EOFReceived:
    """The client ended its stream: no more names will come."""


@attrs.frozen
class Refused:
    """The server has said SORRY, and the conversation is ending."""

    reason: Refusal
    message: bytes = b""
    """The server's words, without the LF."""


@attrs.frozen
class Welcomed:
    """The server said WELCOME: it is a greeter."""


@attrs.frozen
class NameRequested:
    """The server asked for a name (PROMPT)."""


@attrs.frozen
class Greeted:
    """The server greeted this name, which is the first one that was still unanswered."""

    name: bytes


def greeted_together(names: Sequence[bytes]) -> list[Greeted]:
    """Return `[Greeted(name) for name in names]`, in half of the time.

    The instances are made, and their slots set, without `__init__` and a frame for each.
    """
    events = [*map(object.__new__, repeat(Greeted, len(names)))]
    collections.deque(map(Greeted.name.__set__, events, names), maxlen=0)  # type: ignore[attr-defined]
    return events


@attrs.frozen
class GoodbyeReceived:
    """The server said GOODBYE."""


@attrs.frozen
class SorryReceived:
    """The server said SORRY: it refuses to begin or to go on."""

    message: bytes
    """The server's words, without the LF."""


@attrs.frozen
class ProtocolViolated:
    """The server said what no greeter would say here."""

    expected: bytes
    """The word that was expected. (GOODBYE and SORRY may always come.)"""
    received: bytes
    """What came instead, its first 64 bytes at most."""


@attrs.frozen
class ConversationEnded:
    """The conversation is over. This is reported exactly once, and last."""

    reason: EndReason
    unanswered: Sequence[bytes] = ()
    """For the client: the names that were asked and not greeted, in order. Empty for the server."""


ServerEvent: TypeAlias = NamesReceived | ExitReceived | EOFReceived | Refused | ConversationEnded
ClientEvent: TypeAlias = (
    Welcomed
    | NameRequested
    | Greeted
    | GoodbyeReceived
    | SorryReceived
    | ProtocolViolated
    | ConversationEnded
)
