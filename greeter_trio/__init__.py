"""A greeting server and its client for Trio, around the protocol of `greeter_core`.

These modules are the adapter. `_drive` has one conversation over one byte stream, in one task: its
cancel scope is in `Driver._receive`. `_server` has the nurseries, in `serve`: one task for each
connection. `_client` is the client as a library. What surrounds the adapter stands in folders;
imports run down this list only:

    __main__, _cli           the command line: serve, client, replay, demo
    _show                    the conversation made visible: recording, trace, page, demonstration
    _server, _client
    _service                 what a long-running server needs: sessions, limits, counters
    _drive, _failures        one conversation, and how a client's has ended
    _net, greeter_core       byte streams, which know no greeter; the protocol
"""

import importlib

TYPE_CHECKING = False  # type checkers take it for true; `typing` need not be imported
if TYPE_CHECKING:
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

_MODULES = {
    "_client": ("Greeter", "open_greeter"),
    "_drive": ("Driver", "drive"),
    "_failures": ("ConversationFailed",),
    "_server": ("serve_greeter",),
    "_service.limits": ("Limits", "WhenFull"),
}


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # pragma: no branch - to a type checker any name would be there

    def __getattr__(name: str) -> object:
        """Import a name when it is first asked for.

        In an import that is long, Ctrl-C would be a traceback; and a command imports what it needs.
        """
        for module, names in _MODULES.items():
            if name in names:
                return getattr(importlib.import_module(f".{module}", __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
