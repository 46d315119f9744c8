"""What a connection reports: frozen values, made for `match`."""

import enum
from collections.abc import Iterator, Sequence
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
    """The names of one arrival, split out of one block of bytes only when somebody looks at them.

    It is equal to any sequence of the same names.
    """

    __slots__ = ("_block", "_split")

    def __init__(self, block: bytes) -> None:
        self._block = block  # not empty; LFs between the names, none of which is empty
        self._split: tuple[bytes, ...] | None = None

    def _names(self) -> tuple[bytes, ...]:
        if self._split is None:
            self._split = tuple(self._block.split(LF))
        return self._split

    def __len__(self) -> int:
        return self._block.count(LF) + 1

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._names())

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[bytes, ...]: ...
    def __getitem__(self, index: int | slice) -> bytes | tuple[bytes, ...]:
        return self._names()[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence):
            return self._names() == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._names())

    def __repr__(self) -> str:
        return repr(self._names())


@attrs.frozen
class NamesReceived:
    """The server has greeted these names, in this order; they came in one arrival."""

    names: Sequence[bytes]


@attrs.frozen
class ExitReceived:
    """The client said `exit`."""


@attrs.frozen
class EOFReceived:
    """The client ended its stream: no more names will come."""


@attrs.frozen
class Refused:
    """The server said SORRY, and the conversation is ending."""

    reason: Refusal | bytes
    """Why: for the server a `Refusal`; for the client, who is told in words only, these words."""
    message: bytes = attrs.field()
    """The server's words, without the LF."""

    @message.default
    def _words(self) -> bytes:
        return self.reason if isinstance(self.reason, bytes) else b""


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


@attrs.frozen
class GoodbyeReceived:
    """The server said GOODBYE."""


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
    Welcomed | NameRequested | Greeted | GoodbyeReceived | Refused | ProtocolViolated | ConversationEnded
)
