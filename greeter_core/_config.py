"""What can be configured, and the values that are allowed."""

import enum
import math

import attrs

from ._errors import LocalProtocolError
from ._validators import delay, must_be, timeout
from ._wire import MAX_NAME_SIZE


class Framing(enum.Enum):
    """How names end on the wire (PROTOCOL.md, S3, S4, C3)."""

    AUTO = "auto"  #: not decided yet: what the peer does decides
    LINES = "lines"  #: LF or CR LF ends a name
    RAW = "raw"  #: the end of one arrival ends a name


_framing = must_be("Framing.AUTO, Framing.LINES or Framing.RAW", Framing)
_size = must_be("a whole number of bytes, 1 or more", int, lambda value: value >= 1)


@attrs.frozen(kw_only=True)
class ServerConfig:
    """How a server behaves. All times are in seconds; a wrong value raises `LocalProtocolError`.

    framing: How names end. AUTO finds out, client by client (S3, S4).
    max_name_size: The longest name that is greeted, in bytes, its terminator not counted; 1 or
        more (S6).
    pace: How long a PROMPT is held back, unless the framing is LINES; 0 or more (S2).
    quiet: How long a name without a terminator waits for another byte, while the framing is
        undecided; 0 or more (S4).
    idle_timeout: How long a client may go without a greeted name; more than 0, `math.inf` for
        never giving up (S9).
    max_lifetime: How long a conversation may last, from open to GOODBYE; more than 0, `math.inf`
        for any time (S11).
    linger: How long a closing server waits for the client's end of the stream; 0 or more (S8).
    """

    framing: Framing = attrs.field(default=Framing.AUTO, validator=_framing)
    max_name_size: int = attrs.field(default=MAX_NAME_SIZE, validator=_size)
    pace: float = attrs.field(default=0.02, validator=delay)
    quiet: float = attrs.field(default=0.02, validator=delay)
    idle_timeout: float = attrs.field(default=300.0, validator=timeout)
    max_lifetime: float = attrs.field(default=math.inf, validator=timeout)
    linger: float = attrs.field(default=2.0, validator=delay)


@attrs.frozen(kw_only=True)
class ClientConfig:
    """How a client behaves. All times are in seconds; a wrong value raises `LocalProtocolError`.

    framing: How names are sent. AUTO finds out what the server understands (C3).
    reply_timeout: How long an awaited word may take; more than 0, `math.inf` for never giving
        up (C5).
    linger: How long a closing client waits for the server's end of the stream; 0 or more (C6).
    """

    framing: Framing = attrs.field(default=Framing.AUTO, validator=_framing)
    reply_timeout: float = attrs.field(default=10.0, validator=timeout)
    linger: float = attrs.field(default=2.0, validator=delay)


def check_config(config: object, kind: type) -> None:
    """Raise `LocalProtocolError` unless this is a configuration of that kind."""
    if not isinstance(config, kind):
        raise LocalProtocolError(f"config must be a {kind.__name__}, not {config!r}")
