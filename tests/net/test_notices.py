"""Warnings that may be due again and again."""

import pytest
import trio
from trio.testing import MockClock

from greeter_trio._net.notices import Notice
from tests.support.logs import Log


async def test_a_notice_is_logged_once_a_minute_with_a_count(
    autojump_clock: MockClock, log: Log
) -> None:
    """Each kind by itself; the last message is the one that is shown."""
    full, tls = Notice("full", "time"), Notice("tls", "client")
    times = []
    for second in range(150):
        before = len(log.lines)
        full.give(f"message {second}")
        if len(log.lines) > before:
            times.append(trio.current_time())
        await trio.sleep(1)
    tls.give("another kind")
    assert log.lines == [
        "message 0 (1 time so far)",
        "message 60 (61 times so far)",
        "message 120 (121 times so far)",
        "another kind (1 client so far)",
    ]
    assert times == pytest.approx([0, 60, 120])
    assert {record.levelname for record in log.records} == {"WARNING"}
    facts = vars(log.records[1])["facts"]
    assert facts == {"event": "warning", "kind": "full", "count": 61}
    assert full.count == 150


async def test_what_was_due_since_the_last_line_is_told_at_the_end(
    autojump_clock: MockClock, log: Log
) -> None:
    notice = Notice("http", "client")
    notice.tell_rest()
    for number in range(50):
        notice.give(f"client {number}")
    assert log.lines == ["client 0 (1 client so far)"]
    notice.tell_rest()
    notice.tell_rest()
    assert log.lines[1:] == ["client 49 (50 clients so far)"]
    await trio.sleep(60)
    notice.give("one more")
    assert log.lines[2:] == ["one more (51 clients so far)"]
