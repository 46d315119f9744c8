"""How a client's conversation ended, and the exception that says so."""

from collections.abc import Sequence

import attrs

from greeter_core import ClientEvent, ConversationEnded, EndReason, ProtocolViolated, SorryReceived

from ._net.text import pluralized, printable


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

    def __repr__(self) -> str:
        # The names may be many, and long.
        names = f"{pluralized(len(self.unanswered), 'name')} unanswered"
        return f"<{type(self).__name__}: {self}; {names}>"


_MESSAGES = {
    EndReason.SHUTDOWN: "the server said goodbye before it was asked to",
    EndReason.EOF: "the server closed the connection without saying goodbye",
    EndReason.CONNECTION_LOST: "the connection to the server was lost",
    EndReason.TIMED_OUT: "the server did not answer in time",
}


@attrs.define
class Outcome:
    """How a conversation ended, gathered from a client's events."""

    reason: EndReason | None = None
    """None while it goes on."""
    _message: str = ""
    _unanswered: Sequence[bytes] = ()
    _cause: Exception | None = None

    def note(self, event: ClientEvent, failure: Exception | None) -> None:
        """Keep what an event says; `failure` is what broke the connection, if anything did."""
        match event:
            case SorryReceived(message):
                self._message = f"the server refused: {printable(message)}"
            case ProtocolViolated(expected, received):
                said = f'it said "{printable(received)}" and not "{printable(expected.rstrip())}"'
                self._message = f"the server is no greeter: {said}"
            case ConversationEnded(reason, unanswered):
                self.reason, self._unanswered, self._cause = reason, unanswered, failure
                why = f" ({failure})" if failure else ""
                self._message = self._message or _MESSAGES.get(reason, "") + why

    def failure(self) -> ConversationFailed:
        """Return the exception for a caller that did not get what it wanted."""
        names = tuple(name.decode("utf-8", "surrogateescape") for name in self._unanswered)
        reason = self.reason or EndReason.CONNECTION_LOST
        failed = ConversationFailed(self._message or "the conversation is over", reason, names)
        failed.__cause__ = self._cause
        return failed
