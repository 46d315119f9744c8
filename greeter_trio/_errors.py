"""How things end: exit statuses, and the exception of the library."""

import enum
from collections.abc import Sequence

from greeter_core import EndReason


class ExitStatus(enum.IntEnum):
    """What the process tells its caller."""

    DONE = 0
    FAILED = 1  # cannot connect or listen, connection lost, protocol violation, refused
    USAGE = 2
    TIMED_OUT = 3
    INTERRUPTED = 130  # Ctrl-C: 128 + SIGINT


class ConversationFailed(Exception):
    """The conversation ended before all names were answered."""

    def __init__(self, message: str, reason: EndReason, unanswered: Sequence[str]) -> None:
        super().__init__(message)
        self.reason = reason
        self.unanswered = unanswered
        """The names that were asked and not greeted, in order."""
