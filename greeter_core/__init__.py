"""The Greeter protocol without any I/O: bytes and time in; events, bytes and the next deadline out.

`ServerConnection` and `ClientConnection` are the two sides of one conversation; PROTOCOL.md, beside this file,
specifies it. There are no sockets here, no clock, no randomness and no logging, so any I/O framework can be put
around it; `greeter_trio` puts Trio.
"""

from ._client import ClientConnection
from ._config import ClientConfig, Framing, ServerConfig
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
    Welcomed,
)
from ._server import ServerConnection
from ._states import ClientState, ServerState

__version__ = "0.2.0"

__all__ = [
    "ClientConfig",
    "ClientConnection",
    "ClientEvent",
    "ClientState",
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
    "Welcomed",
]
