"""The Greeter protocol without any I/O: bytes and time in; events, bytes and the next deadline out.

`ServerConnection` and `ClientConnection` are the two sides of one conversation, and `Connection` is
what they share. Beside this file, PROTOCOL.md specifies the conversation, and INTEGRATING.md tells
how to put the core under an I/O framework. There are no sockets here, no clock, no randomness and
no logging; `greeter_trio` is the adapter for Trio.
"""

from ._client import ClientConnection
from ._config import ClientConfig, Framing, ServerConfig
from ._connection import Connection
from ._errors import LocalProtocolError
from ._events import (
    ClientEvent,
    ConversationEnded,
    EndReason,
    EOFReceived,
    ExitReceived,
    GoodbyeReceived,
    Greeted,
    NameRequested,
    NamesReceived,
    ProtocolViolated,
    Refusal,
    Refused,
    ServerEvent,
    SorryReceived,
    Welcomed,
)
from ._server import ServerConnection
from ._states import ClientState, ServerState

__version__ = "0.4.0"

__all__ = [
    "ClientConfig",
    "ClientConnection",
    "ClientEvent",
    "ClientState",
    "Connection",
    "ConversationEnded",
    "EOFReceived",
    "EndReason",
    "ExitReceived",
    "Framing",
    "GoodbyeReceived",
    "Greeted",
    "LocalProtocolError",
    "NameRequested",
    "NamesReceived",
    "ProtocolViolated",
    "Refusal",
    "Refused",
    "ServerConfig",
    "ServerConnection",
    "ServerEvent",
    "ServerState",
    "SorryReceived",
    "Welcomed",
]
