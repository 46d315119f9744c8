"""On what terms connections are served."""

import enum
import math
import ssl
from collections.abc import Callable
from typing import Any

import attrs

from greeter_core import ServerConfig
from greeter_trio._drive import SEND_TIMEOUT


class WhenFull(enum.Enum):
    """What becomes of a client for whom there is no place."""

    WAIT = "wait"  #: it waits in the kernel's backlog until there is one
    REJECT = "reject"  #: it is told so, and the connection is closed in good order


def _must_be(
    what: str, is_right: Callable[[Any], bool]
) -> Callable[[object, "attrs.Attribute[Any]", Any], None]:
    """Return a validator that refuses, in these words, what is no number or not right."""

    def validate(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not is_right(value):
            msg = f"{attribute.name} must be {what}, not {value!r}"
            raise ValueError(msg)

    return validate


def _when_full(_: object, attribute: "attrs.Attribute[WhenFull]", value: object) -> None:
    if not isinstance(value, WhenFull):
        msg = f"{attribute.name} must be WhenFull.WAIT or WhenFull.REJECT, not {value!r}"
        raise ValueError(msg)  # noqa: TRY004 - as for all other wrong values


_count = _must_be("a whole number, 1 or more", lambda value: isinstance(value, int) and value >= 1)
# NaN is in neither of these ranges.
_delay = _must_be("a finite number of seconds, 0 or more", lambda value: 0 <= value < math.inf)
_timeout = _must_be("a number of seconds, more than 0 (math.inf for ever)", lambda value: value > 0)


@attrs.frozen(kw_only=True)
class Limits:
    """What a server allows its clients, and itself. All times are in seconds; a wrong value raises `ValueError`.

    max_connections: How many clients are served at the same time; 1 or more.
    when_full: What becomes of the next one.
    handshake_timeout: How long a client may take for its PROXY header and its TLS handshake
    together.
    send_timeout: How long a client may take to read the next 64 KiB sent to it.
    drain_delay: How long clients are still accepted after the server was told to shut down.
    grace: How long, after that, conversations may take to end in good order.
    """

    max_connections: int = attrs.field(default=10_000, validator=_count)
    when_full: WhenFull = attrs.field(default=WhenFull.WAIT, validator=_when_full)
    handshake_timeout: float = attrs.field(default=10.0, validator=_timeout)
    send_timeout: float = attrs.field(default=SEND_TIMEOUT, validator=_timeout)
    drain_delay: float = attrs.field(default=0.0, validator=_delay)
    grace: float = attrs.field(default=15.0, validator=_timeout)


@attrs.define(kw_only=True)
class Terms:
    """What holds for every connection of a server."""

    config: ServerConfig = attrs.field(factory=ServerConfig)
    limits: Limits = attrs.field(factory=Limits)
    ssl_context: ssl.SSLContext | None = None
    """For TLS. It can be replaced at any time; the new one holds for new connections."""
    proxy_protocol: bool = False
    """Whether every connection must begin with a PROXY header."""
