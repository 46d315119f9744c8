"""How conversations end, for a client's caller: exit statuses, messages, and the library's exception."""

import enum
from collections.abc import Sequence

import attrs

from greeter_core import ClientEvent, ConversationEnded, EndReason, ProtocolViolated, SorryReceived

from ._net.text import printable


class ExitStatus(enum.IntEnum):
    """What the process tells its caller."""

    DONE = 0
    FAILED = 1  # cannot connect or listen, connection lost, protocol violation, refused, bad input
    USAGE = 2
    TIMED_OUT = 3
    INTERRUPTED = 130  # Ctrl-C: 128 + SIGINT


class ConversationFailed(Exception):
    """The conversation ended before all names were greeted, or not in good order."""

    def __init__(self, message: str, reason: EndReason, unanswered: Sequence[str] = ()) -> None:
        super().__init__(message, reason, unanswered)
        self.reason = reason
        """Why it ended."""
        self.unanswered = unanswered
        """The names that were asked and not greeted, in order."""

    def __str__(self) -> str:
        return str(self.args[0])


_MESSAGES = {
    EndReason.EXIT: "the conversation is over",
    EndReason.SHUTDOWN: "the server said goodbye before it was asked to",
    EndReason.EOF: "the server closed the connection without saying goodbye",
    EndReason.CONNECTION_LOST: "the connection to the server was lost",
    EndReason.TIMED_OUT: "the server did not answer in time",
}


@attrs.define
class Ending:
    """Gathers, from a client's events, how the conversation ended."""

    reason: EndReason | None = None
    """None while it goes on."""
    unanswered: Sequence[bytes] = ()
    message: str = ""
    """What happened, for a person."""

    def note(self, event: ClientEvent, failure: str = "") -> None:
        """Take note of an event; `failure` is what broke the connection, if anything did."""
        match event:
            case SorryReceived(message):
                self.message = f"the server refused: {printable(message)}"
            case ProtocolViolated(expected, received):
                said = f'it said "{printable(received)}" and not "{printable(expected.rstrip())}"'
                self.message = f"the server is no greeter: {said}"
            case ConversationEnded(reason, unanswered):
                self.reason = reason
                self.unanswered = unanswered
                self.message = self.message or _MESSAGES[reason] + (
                    f" ({failure})" if failure else ""
                )

    @property
    def well(self) -> bool:
        """Whether it ended with GOODBYE, if perhaps by the server's wish and with names unanswered."""
        return self.reason in (EndReason.EXIT, EndReason.SHUTDOWN)

    @property
    def status(self) -> ExitStatus:
        """The exit status of a client that had asked for all it wanted."""
        match self.reason:
            case EndReason.EXIT:
                return ExitStatus.DONE
            case EndReason.TIMED_OUT:
                return ExitStatus.TIMED_OUT
            case _:
                return ExitStatus.FAILED

    def failure(self) -> ConversationFailed:
        """Return the exception for a caller who did not get what it wanted."""
        names = tuple(name.decode("utf-8", "surrogateescape") for name in self.unanswered)
        return ConversationFailed(self.message, self.reason or EndReason.CONNECTION_LOST, names)
