"""What a server counts."""

import logging
import re
from collections import Counter

from greeter_core import EndReason
from greeter_trio._service.counters import CloseReason, Counters
from tests.support.logs import gathered

SOME = Counters(7, Counter({CloseReason.EXIT: 2, CloseReason.CONNECTION_LOST: 1}), 3, 40, 500, 6)
FACTS = {
    "greeter_connections_accepted_total": 7,
    "greeter_connections_open": 4,
    'greeter_connections_closed_total{reason="connection_lost"}': 1,
    'greeter_connections_closed_total{reason="exit"}': 2,
    "greeter_names_greeted_total": 3,
    "greeter_received_bytes_total": 40,
    "greeter_sent_bytes_total": 500,
    "greeter_accept_failures_total": 6,
}

REASONS = "exit eof shutdown refused lifetime connection_lost handshake cut bug"


def test_facts_are_named_as_prometheus_names_metrics() -> None:
    """At most one label each; the reasons are in the order of their names."""
    assert SOME.facts() == FACTS
    assert list(SOME.facts()) == list(FACTS)
    name = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-zA-Z_][a-zA-Z0-9_]*="[^"\\\n]*"\})?')
    assert all(name.fullmatch(each) for each in SOME.facts())


def test_new_counters_are_zero_and_share_nothing() -> None:
    one = Counters()
    one.closed[CloseReason.EXIT] += 1
    assert Counters() == Counters(0, Counter(), 0, 0, 0, 0)


def test_a_session_is_added_with_names_and_bytes() -> None:
    counters = Counters(1, Counter({CloseReason.EXIT: 1}), 3, 4, 5, 6)
    counters.add(Counters(10, Counter({CloseReason.EOF: 20}), 30, 40, 50, 60))
    assert counters == Counters(1, Counter({CloseReason.EXIT: 1}), 33, 44, 55, 6)


def test_close_reasons_are_named_in_logs_and_counters() -> None:
    values = {reason.value: reason.name.lower() for reason in CloseReason}
    assert values == {name: name for name in REASONS.split()}


def test_each_end_of_a_servers_conversation_has_its_close_reason() -> None:
    """Sessions look it up by the name; the other ends are a client's."""
    clients = {EndReason.VIOLATION, EndReason.TIMED_OUT}
    assert all(CloseReason[end.name] for end in EndReason if end not in clients)


def test_counters_are_one_line_of_the_log_at_any_level() -> None:
    with gathered(logging.ERROR) as log:
        SOME.log()
    (record,) = log.records
    assert (record.levelno, record.name) == (logging.INFO, "greeter_trio")
    assert record.getMessage() == (
        "Counters: greeter_connections_accepted_total 7, greeter_connections_open 4, "
        'greeter_connections_closed_total{reason="connection_lost"} 1, '
        'greeter_connections_closed_total{reason="exit"} 2, greeter_names_greeted_total 3, '
        "greeter_received_bytes_total 40, greeter_sent_bytes_total 500, "
        "greeter_accept_failures_total 6"
    )
    assert vars(record)["facts"] == FACTS
