"""What a transcript consists of: the steps of connections, and what was observed around them.

TRANSCRIPT.md describes the same as lines of a file.
"""

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from ._config import ClientConfig, Framing, ServerConfig
from ._events import ClientEvent, ServerEvent
from ._states import ClientState, ServerState

Event: TypeAlias = ServerEvent | ClientEvent


def _names(names: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(names)


def _events(events: Iterable[Event]) -> tuple[Event, ...]:
    return tuple(events)


class StepInput(enum.Enum):
    """Which input a step begins with: a method of `Connection`, or the making of one."""

    OPEN = "open"
    DATA = "data"  #: receive_data
    EOF = "eof"  #: receive_eof
    TIMEOUT = "timeout"  #: handle_timeout
    IN_FLIGHT = "in_flight"  #: data_in_flight
    SHUTDOWN = "shutdown"  #: shutdown
    LOST = "lost"  #: connection_lost
    NAMES = "names"  #: send_name, send_names (client)
    EXIT = "exit"  #: send_exit (client)


@attrs.frozen(kw_only=True)
class Opening:
    """How a connection was made."""

    config: ServerConfig | ClientConfig
    """Its type tells the role, too."""
    full: bool = False
    """Whether it is a server that has no place for this client."""
    peer: str | None = None
    """The peer's address, if the recorder was told."""
    began: float = 0.0
    """When it was opened, in seconds from the beginning of the recording."""

    @property
    def role(self) -> str:
        """Return `server` or `client`."""
        return "server" if isinstance(self.config, ServerConfig) else "client"


@attrs.frozen(kw_only=True)
class Step:
    """One input to a connection, and all that came of it."""

    id: int
    """Which conversation of the transcript this is."""
    at: float
    """When the input came, in seconds from the opening; it is the time that counts (T4)."""
    input: StepInput
    opening: Opening | None = None
    """Of an OPEN."""
    data: bytes = b""
    """What arrived, of DATA."""
    names: Sequence[bytes] = attrs.field(default=(), converter=_names)
    """What was asked, of NAMES."""
    output: bytes = b""
    """The bytes to send."""
    eof: bool = False
    """Whether the stream is to be ended after them."""
    events: Sequence[Event] = attrs.field(default=(), converter=_events)
    deadline: float = math.inf
    """The connection's deadline afterwards, in seconds from the opening; `math.inf` for never."""
    state: ServerState | ClientState
    """The connection's state afterwards."""
    framing: Framing
    """The connection's framing afterwards."""


@attrs.frozen(kw_only=True)
class Observed:
    """Something that was seen around a connection; a replay passes over it."""

    id: int
    """Which conversation of the transcript this belongs to."""
    at: float
    """When it happened, in seconds from the opening, before which it may be."""
    what: str
    """The kind, such as `send` or `tcp`."""
    fields: Mapping[str, Any] = attrs.field(factory=dict)
    """What else is known: JSON values, by their names."""


TranscriptItem: TypeAlias = Step | Observed
