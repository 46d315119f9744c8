"""The certificate of `serve`: what is logged of one that expires soon."""

import datetime as dt

import pytest
import trio
from trio.testing import MockClock

from greeter_trio._cli.certificate import Certificate, warning
from greeter_trio._cli.serve_options import ServerTls
from greeter_trio._net.certificates import Validity
from tests.support.certificates import Authority
from tests.support.logs import Log

NOW = dt.datetime(2026, 11, 26, 12, 30, tzinfo=dt.UTC)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
VALID = Validity(NOW - DAY, NOW + 90 * DAY)


@pytest.mark.parametrize(
    ("begin", "end", "text"),
    [
        (-DAY, 90 * DAY, ""),
        (-DAY, 7 * DAY, ""),
        (-DAY, 7 * DAY - HOUR, "expires on 2026-12-03 11:30 UTC, in 6 days"),
        (-DAY, HOUR, "expires on 2026-11-26 13:30 UTC, in less than a day"),
        (-2 * DAY, -DAY, "expired on 2026-11-25 12:30 UTC"),
        (
            HOUR,
            DAY,
            "is not valid before 2026-11-26 13:30 UTC: is this machine's clock right?",
        ),
    ],
    ids=["long", "a week", "less", "an hour", "expired", "not yet"],
)
def test_warning(begin: dt.timedelta, end: dt.timedelta, text: str) -> None:
    assert warning(Validity(NOW + begin, NOW + end), NOW) == text


def expiring(authority: Authority, days: int) -> Certificate:
    leaf = authority.ca.issue_cert("localhost", not_after=dt.datetime.now(dt.UTC) + days * DAY)
    return Certificate(ServerTls(cert=authority.save(leaf), key=None, client_ca=None))


async def test_it_is_looked_at_when_it_is_loaded_and_daily(
    autojump_clock: MockClock, authority: Authority, log: Log
) -> None:
    certificate = expiring(authority, 3)
    assert certificate.load()
    with trio.move_on_after(3.5 * 86_400):
        await certificate.watch()
    line = log.lines[0]
    assert line.startswith("The TLS certificate expires on ")
    assert line.endswith(", in 2 days")
    assert vars(log.records[0])["facts"] == {"event": "warning", "kind": "certificate"}
    assert log.lines == [line] * 4
    certificate.load(again=True)
    assert len(log.lines) == 5


def test_a_good_certificate_is_not_spoken_of(authority: Authority, log: Log) -> None:
    assert expiring(authority, 30).load(again=True)
    assert Certificate(None).load() is None
    assert log.lines == []
