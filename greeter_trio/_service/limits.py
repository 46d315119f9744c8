"""What a server allows its clients, and itself."""

import enum

import attrs

from greeter_core._validators import delay, must_be, timeout
from greeter_trio._net.outbox import SEND_TIMEOUT


class WhenFull(enum.Enum):
    """What happens to a client that comes when the server is full."""

    WAIT = "wait"  #: it waits in the kernel's backlog until there is a place
    REJECT = "reject"  #: it gets a refusal instead of a welcome


_count = must_be("a whole number, 1 or more", int, lambda value: value >= 1)
_when_full = must_be("WhenFull.WAIT or WhenFull.REJECT", WhenFull)


@attrs.frozen(kw_only=True)
class Limits:
    """What a server allows its clients, and itself.

    All times are in seconds; a wrong value raises `ValueError`.

    max_connections: How many clients are served at the same time; 1 or more.
    when_full: What happens to the next one.
    handshake_timeout: How long a client may take for its PROXY header and its TLS handshake
        together; more than 0.
    send_timeout: How long a client may take to read the next 64 KiB sent to it; more than 0.
    drain_delay: How long clients are still accepted after the server was told to shut down; 0 or
        more.
    grace: How long, after that, conversations may take to end in good order; more than 0.
    """

    max_connections: int = attrs.field(default=10_000, validator=_count)
    when_full: WhenFull = attrs.field(default=WhenFull.WAIT, validator=_when_full)
    handshake_timeout: float = attrs.field(default=10.0, validator=timeout)
    send_timeout: float = attrs.field(default=SEND_TIMEOUT, validator=timeout)
    drain_delay: float = attrs.field(default=0.0, validator=delay)
    grace: float = attrs.field(default=15.0, validator=timeout)
