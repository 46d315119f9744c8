"""The Greeter protocol without any I/O: bytes and time in; events, bytes and the next deadline out.

`ServerConnection` and `ClientConnection` are the two sides of one conversation, and `Connection` is
what they share. A `Recording` makes connections whose steps are written to a transcript, and
`replay` gives such steps to new connections. Beside this file, PROTOCOL.md specifies the
conversation, TRANSCRIPT.md the transcript, and INTEGRATING.md tells how to put the core under an
I/O framework. There are no sockets here, no clock, no randomness and
no logging; `greeter_trio` is the adapter for Trio.
"""

import typing as _typing

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

if _typing.TYPE_CHECKING:
    from ._recorder import Recorder, Recording
    from ._replay import Difference, replay
    from ._steps import Observed, Opening, Step, StepInput, TranscriptItem
    from ._transcript import TranscriptError, read_transcript, write_header, write_item

__version__ = "0.7.0"

__all__ = [
    "ClientConfig",
    "ClientConnection",
    "ClientEvent",
    "ClientState",
    "Connection",
    "ConversationEnded",
    "Difference",
    "EOFReceived",
    "EndReason",
    "ExitReceived",
    "Framing",
    "GoodbyeReceived",
    "Greeted",
    "LocalProtocolError",
    "NameRequested",
    "NamesReceived",
    "Observed",
    "Opening",
    "ProtocolViolated",
    "Recorder",
    "Recording",
    "Refusal",
    "Refused",
    "ServerConfig",
    "ServerConnection",
    "ServerEvent",
    "ServerState",
    "SorryReceived",
    "Step",
    "StepInput",
    "TranscriptError",
    "TranscriptItem",
    "Welcomed",
    "read_transcript",
    "replay",
    "write_header",
    "write_item",
]


def __dir__() -> list[str]:
    return __all__


if not _typing.TYPE_CHECKING:  # pragma: no branch - to a type checker any name would be there

    def __getattr__(name: str) -> object:
        """Import what is about transcripts when it is first asked for: most programs do without."""
        if name in __all__:
            from . import _recorder, _replay, _steps, _transcript  # noqa: PLC0415 - on purpose

            for module in (_recorder, _replay, _steps, _transcript):
                found = {each: value for each, value in vars(module).items() if each in __all__}
                globals().update(found)
            return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
