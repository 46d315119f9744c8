"""What a scenario finds, beside what was expected, and how much of everything there is."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import attrs


@attrs.frozen
class Finding:
    """One figure, for people, and whether it is as it should be."""

    what: str
    figure: str
    expected: str = ""  # nothing: it is only told
    holds: bool = True


@attrs.frozen(kw_only=True)
class Sizes:
    """How much of everything. The defaults are those of a full run."""

    idle: int = 5000  # connections
    active: int = 100  # connections
    idle_seconds: float = 60
    drains: int = 20  # servers
    reconnecting: int = 100  # clients
    drippers: int = 1000  # clients
    drip_turns: int = 7
    drip_seconds: float = 3  # with drippers and without, in each turn
    deaf: int = 1000  # clients
    deaf_seconds: float = 20
    send_timeout: float = 5  # seconds
    resets: int = 1000  # connections in each state
    places: int = 50  # clients for whom there are descriptors
    starved_seconds: float = 10
    restarts: int = 5
    patience: float = 10  # seconds for what is over in a moment, or never


Command: TypeAlias = Sequence[str]
"""What to tell Python so that it runs a server. `serve` and its options come after that."""
Scenario: TypeAlias = Callable[[Sizes, Command], Iterator[Finding]]
"""Runs a server under some kind of load. What a client hears and should not hear may as well be raised."""


def note(what: str, figure: str) -> Finding:
    """Return what is only told."""
    return Finding(what, figure)


def none_of(what: str, failures: Sequence[str], number: int) -> Finding:
    """Return how many of so many have failed, which must be some in all, and the first one's words."""
    figure = f"{len(failures):,} of {number:,}" + (
        f"; the first: {failures[0]}" if failures else ""
    )
    return Finding(what, figure, "0", not failures and number > 0)


def at_most(what: str, value: float, bound: float, unit: str) -> Finding:
    """Return a figure that has an upper bound."""
    return Finding(what, f"{value:,.4g} {unit}".rstrip(), f"at most {bound:,.4g}", value <= bound)


def exactly(what: str, value: object, expected: object) -> Finding:
    """Return a figure that must be just so."""
    return Finding(what, str(value), str(expected), value == expected)
