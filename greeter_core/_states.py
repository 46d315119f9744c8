"""The state machines, as tables.

A connection is in one state at a time. What happens to it (a word, the end of the stream, a timer,
a call) is first given a name, a member of `Input`; the table of the role then says which state that
leads to, and nothing else in the program does.

* CLOSING: the last word has been said, for the server, or heard, for the client. Whatever arrives
  is discarded; only the end of the peer's stream, the linger timer and a lost connection matter.
* ENDED is final. It is reached exactly once, and then `ConversationEnded` is reported.
* The client's other states are named after the last word that it heard. The words in a state's row
  are those that may come next; any other is a violation.

The tables are sparse: what has no entry must not be looked up. An input that has no effect in a
state is passed over before it comes here, and a timer that fires where it cannot is a `KeyError`.

PROTOCOL.md shows the same tables; a test compares them.
"""

import enum
from collections.abc import Mapping
from typing import TypeAlias, TypeVar

from ._events import EndReason


class State(enum.Enum):
    """What the states of both roles have in common."""

    is_open: bool
    """Whether the conversation goes on."""
    is_ended: bool
    """Whether it is over."""

    def __init__(self, _: str) -> None:
        self.is_open = self.name not in ("CLOSING", "ENDED")
        self.is_ended = self.name == "ENDED"


class ServerState(State):
    """Where a server is in its conversation."""

    OPEN = "open"  #: names are welcome
    CLOSING = "closing"  #: the last word is said; what comes is discarded
    ENDED = "ended"  #: over


class ClientState(State):
    """Where a client is in its conversation: named after the last word it heard."""

    CONNECTED = "connected"  #: nothing heard yet; WELCOME is due
    WELCOMED = "welcomed"  #: the first PROMPT is due
    PROMPTED = "prompted"  #: names may be answered
    GREETED = "greeted"  #: a further PROMPT is due
    CLOSING = "closing"  #: the last word was heard, or none is wanted any more
    ENDED = "ended"  #: over


class Input(enum.Enum):
    """What can happen to a connection and move it to another state."""

    # to the server
    FULL = "the server is full"
    EXIT = "`exit`"
    TOO_LONG = "a name too long"
    IDLE = "idle is due"
    LIFETIME = "lifetime is due"

    # to the client
    WELCOME = "WELCOME"
    PROMPT = "PROMPT"
    HELLO = "HELLO"
    GOODBYE = "GOODBYE, the answer to `exit`"
    EARLY_GOODBYE = "GOODBYE, before that"
    SORRY = "SORRY"
    OTHER = "any other words"
    REPLY = "reply is due"

    # to both
    SHUTDOWN = "told to shut down"
    EOF = "the peer's EOF"
    LINGER = "linger is due"
    LOST = "connection lost"


StateT = TypeVar("StateT", bound=State)
Transitions: TypeAlias = Mapping[StateT, Mapping[Input, StateT]]

SERVER_TRANSITIONS: Transitions[ServerState] = {
    ServerState.OPEN: {
        Input.FULL: ServerState.CLOSING,
        Input.EXIT: ServerState.CLOSING,
        Input.TOO_LONG: ServerState.CLOSING,
        Input.IDLE: ServerState.CLOSING,
        Input.LIFETIME: ServerState.CLOSING,
        Input.SHUTDOWN: ServerState.CLOSING,
        Input.EOF: ServerState.ENDED,
        Input.LOST: ServerState.ENDED,
    },
    ServerState.CLOSING: {
        Input.EOF: ServerState.ENDED,
        Input.LINGER: ServerState.ENDED,
        Input.LOST: ServerState.ENDED,
    },
    ServerState.ENDED: {},
}

_ALWAYS_WHILE_OPEN = {
    Input.EARLY_GOODBYE: ClientState.CLOSING,
    Input.SORRY: ClientState.CLOSING,
    Input.OTHER: ClientState.ENDED,
    Input.REPLY: ClientState.ENDED,
    Input.SHUTDOWN: ClientState.CLOSING,
    Input.EOF: ClientState.ENDED,
    Input.LOST: ClientState.ENDED,
}

CLIENT_TRANSITIONS: Transitions[ClientState] = {
    ClientState.CONNECTED: {Input.WELCOME: ClientState.WELCOMED, **_ALWAYS_WHILE_OPEN},
    ClientState.WELCOMED: {Input.PROMPT: ClientState.PROMPTED, **_ALWAYS_WHILE_OPEN},
    ClientState.PROMPTED: {
        Input.HELLO: ClientState.GREETED,
        Input.GOODBYE: ClientState.CLOSING,
        **_ALWAYS_WHILE_OPEN,
    },
    ClientState.GREETED: {
        Input.PROMPT: ClientState.PROMPTED,
        Input.GOODBYE: ClientState.CLOSING,
        **_ALWAYS_WHILE_OPEN,
    },
    ClientState.CLOSING: {
        Input.EOF: ClientState.ENDED,
        Input.LINGER: ClientState.ENDED,
        Input.LOST: ClientState.ENDED,
    },
    ClientState.ENDED: {},
}

END_REASONS: Mapping[Input, EndReason] = {
    Input.FULL: EndReason.REFUSED,
    Input.EXIT: EndReason.EXIT,
    Input.TOO_LONG: EndReason.REFUSED,
    Input.IDLE: EndReason.REFUSED,
    Input.LIFETIME: EndReason.LIFETIME,
    Input.GOODBYE: EndReason.EXIT,
    Input.EARLY_GOODBYE: EndReason.SHUTDOWN,
    Input.SORRY: EndReason.REFUSED,
    Input.OTHER: EndReason.VIOLATION,
    Input.REPLY: EndReason.TIMED_OUT,
    Input.SHUTDOWN: EndReason.SHUTDOWN,
    Input.EOF: EndReason.EOF,
    Input.LOST: EndReason.CONNECTION_LOST,
}
"""The reason that is reported, by what took the conversation out of its open states (S8.4)."""
