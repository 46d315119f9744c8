"""What the log says of a session: a line for people, and facts for programs (`extra`)."""

import logging
from typing import Any

from greeter_trio._net.text import format_address, pluralized

from .counters import CloseReason

logger = logging.getLogger("greeter_trio")


class SessionLog:
    """The log of one session."""

    __slots__ = ("number", "peer")

    def __init__(self, number: int, peer: object) -> None:
        self.number = number
        self.peer = peer
        """The client's address, as the socket has it or as text; it is made text only if needed."""

    def opened(self) -> None:
        """Log that the connection was accepted."""
        if logger.isEnabledFor(logging.INFO):
            peer = format_address(self.peer)
            extra = self._extra("open")
            logger.info("Accept new connection from %s (#%d)", peer, self.number, extra=extra)

    def secured(self, version: str) -> None:
        """Log the version of TLS after the handshake."""
        logger.debug("#%d speaks %s", self.number, version)

    def happened(self, event: object) -> None:
        """Log an event of the conversation."""
        logger.debug("#%d %s", self.number, event)

    def failed(self) -> None:
        """Log the exception that is being handled: a bug."""
        peer = format_address(self.peer)
        extra = self._extra("failed")
        logger.exception("The conversation with %s failed", peer, extra=extra)  # noqa: LOG004

    def closed(  # noqa: PLR0913 - all of it is logged
        self,
        reason: CloseReason,
        why: str,
        *,
        names: int,
        seconds: float,
        received: int,
        sent: int,
    ) -> None:
        """Log that the connection was closed, and what had happened."""
        if not logger.isEnabledFor(logging.INFO):
            return
        logger.info(
            "Connection from %s is closed: %s; %s in %.1f s, %d bytes in, %d out (#%d)",
            format_address(self.peer),
            why,
            pluralized(names, "name"),
            seconds,
            received,
            sent,
            self.number,
            extra=self._extra(
                "closed",
                reason=reason.value,
                names=names,
                received_bytes=received,
                sent_bytes=sent,
                seconds=round(seconds, 3),
            ),
        )

    def _extra(self, event: str, **facts: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON's types
        peer = format_address(self.peer)
        return {"facts": {"event": event, "connection": self.number, "peer": peer, **facts}}
