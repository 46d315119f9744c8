"""How conversations end, for a client's caller (`_errors.py`)."""

import copy

import pytest

from greeter_core import (
    ClientEvent,
    ConversationEnded,
    EndReason,
    Greeted,
    ProtocolViolated,
    SorryReceived,
    Welcomed,
)
from greeter_trio import ConversationFailed
from greeter_trio._failures import Ending, ExitStatus


def test_while_it_goes_on_there_is_no_reason() -> None:
    """Events of a conversation that goes on leave no trace."""
    ending = Ending()
    ending.note(Welcomed())
    ending.note(Greeted(b"Ada"))
    assert ending == Ending()
    assert ending.reason is None


@pytest.mark.parametrize(
    ("reason", "status", "message"),
    [
        (EndReason.EXIT, ExitStatus.DONE, "the conversation is over"),
        (EndReason.SHUTDOWN, ExitStatus.FAILED, "the server said goodbye before it was asked to"),
        (
            EndReason.EOF,
            ExitStatus.FAILED,
            "the server closed the connection without saying goodbye",
        ),
        (EndReason.CONNECTION_LOST, ExitStatus.FAILED, "the connection to the server was lost"),
        (EndReason.TIMED_OUT, ExitStatus.TIMED_OUT, "the server did not answer in time"),
    ],
)
def test_each_reason_has_its_words_and_its_status(
    reason: EndReason, status: ExitStatus, message: str
) -> None:
    """An end by itself is told in words of its own, with the names that were not answered."""
    ending = Ending()
    ending.note(ConversationEnded(reason, (b"Ada",)))
    assert ending.status is status
    failure = ending.failure()
    assert type(failure) is ConversationFailed
    assert str(failure) == message
    assert failure.reason is reason
    assert failure.unanswered == ("Ada",)
    assert str(copy.copy(failure)) == message


def test_a_refusal_is_told_in_the_servers_words() -> None:
    """The message has what the server said, made harmless."""
    ending = Ending()
    ending.note(SorryReceived(b"Sorry, no \x1b[1mname\x1b[0m came in time."))
    ending.note(ConversationEnded(EndReason.REFUSED))
    assert (
        str(ending.failure()) == "the server refused: Sorry, no \\x1b[1mname\\x1b[0m came in time."
    )
    assert ending.failure().reason is EndReason.REFUSED
    assert ending.status is ExitStatus.FAILED


def test_a_violation_is_told_with_both_sides() -> None:
    """The message has what was said and what should have been said, both made harmless."""
    ending = Ending()
    ending.note(ProtocolViolated(expected=b"Welcome!\n", received=b"220 \x9b mail\r\n"))
    ending.note(ConversationEnded(EndReason.VIOLATION))
    expected = 'the server is no greeter: it said "220 \ufffd mail\\x0d\\x0a" and not "Welcome!"'
    assert str(ending.failure()) == expected
    assert ending.status is ExitStatus.FAILED


def test_every_reason_can_be_told() -> None:
    """No way in which a conversation can end leaves the message empty."""
    before: dict[EndReason, ClientEvent] = {
        EndReason.REFUSED: SorryReceived(b"Sorry, no."),
        EndReason.VIOLATION: ProtocolViolated(expected=b"a", received=b"b"),
    }
    for reason in set(EndReason) - {EndReason.LIFETIME}:  # which only a server knows
        ending = Ending()
        if reason in before:
            ending.note(before[reason])
        ending.note(ConversationEnded(reason))
        assert str(ending.failure())


def test_exit_statuses() -> None:
    """The numbers are those that the documentation promises."""
    assert {status.name: status.value for status in ExitStatus} == {
        "DONE": 0,
        "FAILED": 1,
        "USAGE": 2,
        "TIMED_OUT": 3,
        "INTERRUPTED": 130,
    }
