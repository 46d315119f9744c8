"""The state machines, as tables: every state with everything that can happen.

Theory of operation. A connection is in one state at a time. What happens to it (a word, the end of the
stream, a timer, a call) is first given a name, a member of `Input`; the table of the role then says which state
that leads to, and nothing else in the program does.

* CLOSING is where the last word has been said, for the server, or heard, for the client. Whatever arrives is
  discarded; only the end of the peer's stream, the linger timer and a lost connection still matter.
* ENDED is final. It is reached exactly once, and then ConversationEnded is reported.
* The client's other states are named after the last word that it heard, so what it may hear next can be read
  off its row: a word that leads from there to ENDED is a protocol violation.
* What cannot happen in a state (its timer is not running there, or it happens on open alone) is in the table all the
  same, and changes nothing.

PROTOCOL.md shows the same tables; a test holds them together.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias, TypeVar


class State(enum.Enum):
    """What the states of both roles have in common."""

    is_open: bool  # whether the conversation goes on
    is_ended: bool  # whether it is over

    def __init__(self, _: str) -> None:
        self.is_open = self.name not in ("CLOSING", "ENDED")
        self.is_ended = self.name == "ENDED"

    __hash__ = object.__hash__  # members are singletons, and Enum's own is written in Python


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
    CLOSING = "closing"  #: the last word was heard, or none is wanted any more; what comes is discarded
    ENDED = "ended"  #: over


class Input(enum.Enum):
    """What can happen to a connection."""

    __hash__ = object.__hash__  # as above

    # to the server
    FULL = "the server is full"
    NAMES = "names"  # names to greet, or empty ones
    EXIT = "`exit`"
    TOO_LONG = "a name too long"
    IDLE = "idle is due"
    LIFETIME = "lifetime is due"

    # to the client
    WELCOME = "WELCOME"
    PROMPT = "PROMPT"
    HELLO = "HELLO"
    GOODBYE = "GOODBYE"
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


def _transitions(states: Iterable[StateT], rows: Mapping[Input, Sequence[StateT]]) -> Transitions[StateT]:
    columns = zip(*rows.values(), strict=True)
    return MappingProxyType(
        {
            state: MappingProxyType(dict(zip(rows, column, strict=True)))
            for state, column in zip(states, columns, strict=True)
        }
    )


def _server_transitions() -> Transitions[ServerState]:
    # fmt: off
    OPEN, CLOSING, ENDED = states = tuple(ServerState)
    return _transitions(states, {
        #                OPEN     CLOSING  ENDED
        Input.FULL:     (CLOSING, CLOSING, ENDED),
        Input.NAMES:    (OPEN,    CLOSING, ENDED),
        Input.EXIT:     (CLOSING, CLOSING, ENDED),
        Input.TOO_LONG: (CLOSING, CLOSING, ENDED),
        Input.IDLE:     (CLOSING, CLOSING, ENDED),
        Input.LIFETIME: (CLOSING, CLOSING, ENDED),
        Input.SHUTDOWN: (CLOSING, CLOSING, ENDED),
        Input.EOF:      (ENDED,   ENDED,   ENDED),
        Input.LINGER:   (OPEN,    ENDED,   ENDED),
        Input.LOST:     (ENDED,   ENDED,   ENDED),
    })
    # fmt: on


def _client_transitions() -> Transitions[ClientState]:
    # fmt: off
    CONNECTED, WELCOMED, PROMPTED, GREETED, CLOSING, ENDED = states = tuple(ClientState)
    return _transitions(states, {
        #                CONNECTED  WELCOMED  PROMPTED  GREETED   CLOSING  ENDED
        Input.WELCOME:  (WELCOMED,  ENDED,    ENDED,    ENDED,    CLOSING, ENDED),
        Input.PROMPT:   (ENDED,     PROMPTED, ENDED,    PROMPTED, CLOSING, ENDED),
        Input.HELLO:    (ENDED,     ENDED,    GREETED,  ENDED,    CLOSING, ENDED),
        Input.GOODBYE:  (CLOSING,   CLOSING,  CLOSING,  CLOSING,  CLOSING, ENDED),
        Input.SORRY:    (CLOSING,   CLOSING,  CLOSING,  CLOSING,  CLOSING, ENDED),
        Input.OTHER:    (ENDED,     ENDED,    ENDED,    ENDED,    CLOSING, ENDED),
        Input.REPLY:    (ENDED,     ENDED,    ENDED,    ENDED,    CLOSING, ENDED),
        Input.SHUTDOWN: (CLOSING,   CLOSING,  CLOSING,  CLOSING,  CLOSING, ENDED),
        Input.EOF:      (ENDED,     ENDED,    ENDED,    ENDED,    ENDED,   ENDED),
        Input.LINGER:   (CONNECTED, WELCOMED, PROMPTED, GREETED,  ENDED,   ENDED),
        Input.LOST:     (ENDED,     ENDED,    ENDED,    ENDED,    ENDED,   ENDED),
    })
    # fmt: on


SERVER_TRANSITIONS = _server_transitions()
CLIENT_TRANSITIONS = _client_transitions()
