"""How a conversation ended, for a client's caller."""

import copy
from collections.abc import Sequence

import pytest
import trio

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
from greeter_trio._failures import Outcome


def outcome_of(*events: ClientEvent, failure: Exception | None = None) -> Outcome:
    outcome = Outcome()
    for event in events:
        outcome.note(event, failure)
    return outcome


def test_while_it_goes_on_there_is_no_reason() -> None:
    assert outcome_of(Welcomed(), Greeted(b"Ada")) == Outcome()
    assert Outcome().reason is None


REASONS = [
    ([], EndReason.EXIT, "the conversation is over"),
    ([], EndReason.SHUTDOWN, "the server said goodbye before it was asked to"),
    ([], EndReason.EOF, "the server closed the connection without saying goodbye"),
    ([], EndReason.CONNECTION_LOST, "the connection to the server was lost"),
    ([], EndReason.TIMED_OUT, "the server did not answer in time"),
    (
        [SorryReceived(b"Sorry, no \x1b[1mname\x1b[0m came in time.")],
        EndReason.REFUSED,
        r"the server refused: Sorry, no \x1b[1mname\x1b[0m came in time.",
    ),
    (
        [ProtocolViolated(expected=b"Welcome!\n", received=b"220 \x9b mail\r\n")],
        EndReason.VIOLATION,
        'the server is no greeter: it said "220 \ufffd mail\\x0d\\x0a" and not "Welcome!"',
    ),
]


@pytest.mark.parametrize(
    ("before", "reason", "message"), REASONS, ids=[reason.name for _, reason, _ in REASONS]
)
def test_each_reason_has_its_words(
    before: Sequence[ClientEvent], reason: EndReason, message: str
) -> None:
    """Those of the server are in them, made harmless."""
    outcome = outcome_of(*before, ConversationEnded(reason, (b"Ada", b"\xff")))
    assert outcome.reason is reason
    failed = outcome.failure()
    assert type(failed) is ConversationFailed
    assert str(failed) == message
    assert failed.reason is reason
    assert failed.unanswered == ("Ada", "\udcff")
    assert failed.__cause__ is None
    copied = copy.copy(failed)
    assert (str(copied), copied.reason, copied.unanswered) == (message, reason, ("Ada", "\udcff"))


def test_every_reason_of_a_client_has_words() -> None:
    known_to_servers = {EndReason.LIFETIME}
    assert {reason for _, reason, _ in REASONS} == set(EndReason) - known_to_servers


def test_what_broke_the_connection_is_the_cause() -> None:
    broke = trio.BrokenResourceError("Connection reset by peer")
    outcome = outcome_of(ConversationEnded(EndReason.CONNECTION_LOST), failure=broke)
    first, second = outcome.failure(), outcome.failure()
    assert str(first) == "the connection to the server was lost (Connection reset by peer)"
    assert first.__cause__ is second.__cause__ is broke
    assert first is not second  # each task that waits raises its own


def test_its_repr_is_short_however_many_names_are_unanswered() -> None:
    failed = ConversationFailed("the server said no", EndReason.REFUSED, ("x" * 1000,) * 60_000)
    shown = "<ConversationFailed: the server said no; 60000 names unanswered>"
    assert repr(failed) == shown
    assert repr(ExceptionGroup("all", [failed])).count("x") < 10
    assert copy.copy(failed).unanswered == failed.unanswered
