"""What a server has done since it was started."""

import enum
import logging
from collections import Counter
from typing import Protocol

import attrs

_logger = logging.getLogger("greeter_trio")


class CloseReason(enum.Enum):
    """Why the server closed a connection; the value is its name in logs and counters."""

    EXIT = "exit"  #: the client said exit
    EOF = "eof"  #: the client ended its stream
    SHUTDOWN = "shutdown"  #: the server was told to shut down
    REFUSED = "refused"  #: the server said SORRY
    LIFETIME = "lifetime"  #: the conversation lasted for as long as it may
    CONNECTION_LOST = "connection_lost"  #: a read or a write failed
    HANDSHAKE = "handshake"  #: there was no PROXY header or no TLS, and no conversation
    CUT = "cut"  #: the server was cancelled, or the grace of a shutdown was over
    BUG = "bug"  #: the server raised an exception that it should not have raised


class Counted(Protocol):
    """What is counted of a session."""

    @property
    def names(self) -> int: ...
    @property
    def received(self) -> int: ...
    @property
    def sent(self) -> int: ...


@attrs.define
class Counters:
    """What happened since the server was started."""

    accepted: int = 0
    closed: Counter[CloseReason] = attrs.field(factory=Counter)
    names: int = 0
    received: int = 0
    sent: int = 0
    accept_failures: int = 0

    def add(self, session: "Counted") -> None:
        """Add what happened in a session."""
        self.names += session.names
        self.received += session.received
        self.sent += session.sent

    def facts(self) -> dict[str, int]:
        """Return all of them, named as Prometheus names metrics; `reason` is a label."""
        return {
            "greeter_connections_accepted_total": self.accepted,
            "greeter_connections_open": self.accepted - self.closed.total(),
            **{
                f'greeter_connections_closed_total{{reason="{reason.value}"}}': number
                for reason, number in sorted(self.closed.items(), key=lambda item: item[0].value)
            },
            "greeter_names_greeted_total": self.names,
            "greeter_received_bytes_total": self.received,
            "greeter_sent_bytes_total": self.sent,
            "greeter_accept_failures_total": self.accept_failures,
        }

    def log(self) -> None:
        """Write them to the log as one line, whatever its level is: they were asked for."""
        facts = self.facts()
        text = ", ".join(f"{name} {number}" for name, number in facts.items())
        record = _logger.makeRecord(
            _logger.name,
            logging.INFO,
            __file__,
            0,
            "Counters: %s",
            (text,),
            None,
            extra={"facts": facts},
        )
        _logger.handle(record)
