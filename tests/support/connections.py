"""A server that tests of all kinds use, and all that it says."""

from greeter_core import Framing, ServerConfig

from .words import GOODBYE, PROMPT, WELCOME, hello

LINES = ServerConfig(framing=Framing.LINES)
"""A server that waits for no time: what it says follows at once from what it hears."""


def dialogue(*names: bytes) -> bytes:
    """Return all that a server says to a client that tells it these names and then exit."""
    return WELCOME + PROMPT + b"".join(hello(name) + PROMPT for name in names) + GOODBYE
