"""Greeter over Trio: a server, a client and a command line around the protocol of `greeter_core`."""

from ._client import Greeter, open_greeter
from ._drive import Driver, drive
from ._failures import ConversationFailed
from ._server import serve_greeter
from ._service.limits import Limits, WhenFull

__all__ = [
    "ConversationFailed",
    "Driver",
    "Greeter",
    "Limits",
    "WhenFull",
    "drive",
    "open_greeter",
    "serve_greeter",
]
