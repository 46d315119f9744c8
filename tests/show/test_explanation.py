"""Segments that TCP's rules let expect, where real ones cannot be had."""

from greeter_core import Observed
from greeter_trio._show.diagram import Diagram, Kind
from greeter_trio._show.explanation import Explanation


def segments(*calls: tuple[str, str, int]) -> list[str]:
    explanation, diagram, texts = Explanation(), Diagram(), []
    for what, end, size in calls:
        for fields in explanation.segments(what, {"end": end, "bytes": size}):
            assert fields["assumed"] is True
            for row in diagram.rows(Observed(id=1, at=0.0, what="segment", fields=fields)):
                assert row.kind is Kind.SEGMENT
                assert row.is_assumed
                texts.append(f"{row.end.value} {row.text}")
    return texts


def test_a_whole_conversation() -> None:
    assert segments(
        ("connect", "client", 0),
        ("accept", "server", 0),
        ("send", "server", 9),
        ("receive", "client", 9),
        ("half_close", "server", 0),
        ("close", "client", 0),
        ("close", "server", 0),
    ) == [
        "client SYN  seq 0",
        "server SYN ACK  seq 0  ack 1",
        "client ACK  ack 1",
        "server PSH ACK  seq 1  ack 1  len 9",
        "client ACK  ack 10",
        "server FIN ACK  seq 10  ack 1",
        "client ACK  ack 11",
        "client FIN ACK  seq 1  ack 11",
        "server ACK  ack 2",
    ]


def test_nothing_is_made_up_for_an_unknown_end() -> None:
    assert Explanation().segments("connect", {}) == []
