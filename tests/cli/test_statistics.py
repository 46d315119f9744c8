"""What is kept of many conversations: quantiles, outages, and how much memory that takes."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greeter_trio._cli.statistics import Distribution, Outage, Statistics

durations = st.lists(st.floats(1e-3, 1e7), min_size=1, max_size=200)


def distribution(values: Sequence[float]) -> Distribution:
    found = Distribution()
    for value in values:
        found.add(value)
    return found


@given(durations, st.sampled_from([0.0, 0.01, 0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_right_to_within_1_percent(values: list[float], part: float) -> None:
    """Of the nearest rank."""
    right = sorted(values)[max(math.ceil(part * len(values)), 1) - 1]
    assert distribution(values).quantile(part) == pytest.approx(right, rel=0.0101)


@given(durations)
def test_least_and_largest_are_exact(values: list[float]) -> None:
    found = distribution(values).as_json()
    assert found
    assert (found["min"], found["max"]) == (round(min(values), 6), round(max(values), 6))
    assert list(found) == ["min", "median", "p99", "max"]
    assert all(one <= other for one, other in pairwise(found.values()))


def test_durations_beyond_all_measure() -> None:
    found = distribution([0.0, 1e-9, 1e12])
    assert (found.least, found.largest) == (0.0, 1e12)
    assert found.quantile(0.5) == pytest.approx(1e-3, rel=0.01)
    assert Distribution().as_json() is None


def test_memory_is_bounded() -> None:
    """However many durations there are, from the shortest to the longest."""
    values = [10 ** (number / 10_000) for number in range(-40_000, 100_000)]
    assert len(distribution(values)._buckets) < 1_500


# Outages: conversations begin every second, and take half of one


def statistics(outcomes: str) -> Statistics:
    """Take conversations, of which `x` fails."""
    found = Statistics()
    for second, outcome in enumerate(outcomes):
        found.add(second, second + 0.5, "timed_out" if outcome == "x" else None)
    return found


@pytest.mark.parametrize(
    ("outcomes", "outage"),
    [
        ("", None),
        ("....", None),
        (".x..", Outage(1, 2, is_over=True)),
        ("xx..", Outage(0, 2, is_over=True)),
        (".x.xxx.x.", Outage(3, 6, is_over=True)),
        (".xx.xx.", Outage(1, 3, is_over=True)),  # the first one of the longest
        (".x.xx", Outage(3, 4.5, is_over=False)),
        ("xx.x", Outage(0, 2, is_over=True)),
        ("x", Outage(0, 0.5, is_over=False)),
    ],
)
def test_the_longest_outage(outcomes: str, outage: Outage | None) -> None:
    """From the beginning of the first that failed to that of the next one that did not."""
    found = statistics(outcomes)
    assert found.longest_outage == outage
    assert found.conversations == len(outcomes)
    assert found.failed == ({"timed_out": outcomes.count("x")} if "x" in outcomes else {})


@given(st.text("x.", max_size=60))
def test_no_outage_is_longer(outcomes: str) -> None:
    """A naive search finds none, whatever the order is."""
    ends = [*range(len(outcomes)), len(outcomes) - 0.5]
    longest = 0.0
    for begin in range(len(outcomes)):
        for end in range(begin + 1, len(outcomes) + 1):
            if set(outcomes[begin:end]) == {"x"}:
                longest = max(longest, ends[end] - begin)
    outage = statistics(outcomes).longest_outage
    assert (outage.seconds if outage else 0.0) == longest


def test_as_json() -> None:
    found = statistics(".x.").as_json(lambda at: f"at {at}")
    assert found == {
        "conversations": 3,
        "greeted": 2,
        "failed": {"timed_out": 1},
        "longest_outage": {"seconds": 1, "from": "at 1", "to": "at 2"},
        "connect_ms": None,
        "first_byte_ms": None,
        "greeting_ms": None,
    }
    goes_on = statistics(".x").as_json(str)["longest_outage"]
    assert goes_on == {"seconds": 0.5, "from": "1", "to": None}
    assert statistics("..").as_json(str)["longest_outage"] is None
