"""What the log says of a session."""

import logging
import sys
from typing import Any

import pytest

from greeter_trio._service.counters import CloseReason
from greeter_trio._service.log import SessionLog
from tests.support.logs import Log, gathered

PEER = ("192.0.2.1", 4711)


def close(log: SessionLog, names: int = 2, seconds: float = 1.2346) -> None:
    log.closed(
        CloseReason.EXIT, "the client said exit", names=names, seconds=seconds, received=15, sent=90
    )


def facts_of(log: Log) -> list[dict[str, Any]]:
    return [vars(record)["facts"] for record in log.records]


def test_opened_and_closed_for_people_and_for_programs(log: Log) -> None:
    session = SessionLog(3, PEER)
    session.opened()
    close(session)
    close(session, names=1, seconds=12.34)
    closed = "Connection from 192.0.2.1:4711 is closed: the client said exit; "
    assert log.lines == [
        "Accept new connection from 192.0.2.1:4711 (#3)",
        f"{closed}2 names in 1.2 s, 15 bytes in, 90 out (#3)",
        f"{closed}1 name in 12.3 s, 15 bytes in, 90 out (#3)",
    ]
    assert {record.name for record in log.records} == {"greeter_trio"}
    assert {record.levelno for record in log.records} == {logging.INFO}
    peer = {"connection": 3, "peer": "192.0.2.1:4711"}
    assert facts_of(log)[:2] == [
        {"event": "open", **peer},
        {
            "event": "closed",
            **peer,
            "reason": "exit",
            "names": 2,
            "received_bytes": 15,
            "sent_bytes": 90,
            "seconds": 1.235,
        },
    ]


def test_a_failure_is_an_error_with_its_traceback() -> None:
    with gathered(logging.ERROR) as log:
        try:
            b"a".decode("no codec")
        except LookupError:
            SessionLog(3, ("::1", 4711, 0, 0)).failed()
    (record,) = log.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "The conversation with [::1]:4711 failed"
    assert record.exc_info
    assert record.exc_info[0] is LookupError
    assert facts_of(log) == [{"event": "failed", "connection": 3, "peer": "[::1]:4711"}]


def test_details_are_for_debugging() -> None:
    for level, lines in (logging.DEBUG, ["#3 speaks TLSv1.3", r"#3 b'\x1b'"]), (logging.INFO, []):
        with gathered(level) as log:
            SessionLog(3, PEER).secured("TLSv1.3")
            SessionLog(3, PEER).happened(b"\x1b")
        assert log.lines == lines


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
def test_lines_that_are_not_logged_cost_no_formatting(
    monkeypatch: pytest.MonkeyPatch, level: int
) -> None:
    formatted: list[object] = []
    monkeypatch.setattr(sys.modules[SessionLog.__module__], "format_address", formatted.append)
    with gathered(level) as log:
        SessionLog(3, PEER).opened()
        close(SessionLog(3, PEER))
    assert (log.records, formatted) == ([], [])
