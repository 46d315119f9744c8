"""How a server treats its connections."""

import ssl
from typing import TYPE_CHECKING

import attrs

from greeter_core import ServerConfig

from .limits import Limits

if TYPE_CHECKING:
    from greeter_core import Recording


@attrs.frozen(kw_only=True)
class Settings:
    """What a server was asked for; a session keeps those that held when it was accepted."""

    config: ServerConfig = attrs.field(factory=ServerConfig)
    limits: Limits = attrs.field(factory=Limits)
    ssl_context: ssl.SSLContext | None = None
    """For TLS."""
    proxy_protocol: bool = False
    """Whether every connection must begin with a PROXY header."""
    recording: "Recording | None" = None
    """Where the steps of the conversations go, and what is done with their sockets."""
