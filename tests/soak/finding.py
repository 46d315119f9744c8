"""What a scenario finds, beside what was expected, and how much of everything there is."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import attrs

from tests.support.accounting import Command


@attrs.frozen
class Finding:
    """One figure, and whether it is as it should be."""

    what: str
    figure: str
    expected: str = ""  # nothing: it is only told
    holds: bool = True

    def __str__(self) -> str:
        verdict = "" if not self.expected else "ok" if self.holds else "FAILS"
        expected = f" (expected: {self.expected})" if self.expected else ""
        return f"  {verdict:6}{self.what:54}  {self.figure}{expected}"


def _size(full: float, quick: float, tiny: float) -> Any:
    return attrs.field(default=full, metadata={"quick": quick, "tiny": tiny})


@attrs.frozen(kw_only=True)
class Sizes:
    """How much of everything; for each also how much is quick, and how little its tests take."""

    idle: int = _size(5000, 500, 20)  # connections
    active: int = _size(100, 20, 2)  # connections
    idle_seconds: float = _size(60, 5, 0.05)
    drains: int = _size(20, 4, 1)  # servers
    reconnecting: int = _size(100, 100, 6)  # clients
    drippers: int = _size(1000, 200, 300)  # clients
    drip_turns: int = _size(7, 3, 1)
    drip_seconds: float = _size(3, 1, 0.1)  # with drippers and without, in each turn
    deaf: int = _size(1000, 100, 20)  # clients
    deaf_seconds: float = _size(20, 2, 0.1)
    send_timeout: float = _size(5, 1, 0.1)  # seconds
    resets: int = _size(1000, 200, 50)  # connections in each state
    places: int = _size(50, 20, 5)  # clients for which there are descriptors
    starved_seconds: float = _size(10, 3, 0.3)
    restarts: int = _size(5, 1, 1)
    recorded: int = _size(10000, 1000, 60)  # conversations
    hostile: int = _size(10000, 600, 60)  # streams
    patience: float = _size(10, 10, 0.05)  # seconds for what is over in a moment, or never


QUICK, TINY = (
    Sizes(**{field.name: field.metadata[size] for field in attrs.fields(Sizes)})
    for size in ("quick", "tiny")
)

Scenario: TypeAlias = Callable[[Sizes, Command], Iterator[Finding]]
"""Runs servers under some kind of load. A wrong reply may as well be raised.

`serve` and its options are added to the command.
"""


def none_of(what: str, failures: Sequence[str], number: int) -> Finding:
    """Return how many of `number` (not 0) have failed, and the first one's words."""
    first = f"; the first: {failures[0]}" if failures else ""
    figure = f"{len(failures):,} of {number:,}{first}"
    return Finding(what, figure, "0", not failures and number > 0)


def at_most(what: str, value: float, bound: float, unit: str = "") -> Finding:
    """Return a figure that has an upper bound."""
    return Finding(what, f"{value:,.4g} {unit}".rstrip(), f"at most {bound:,.4g}", value <= bound)


def exactly(what: str, value: object, expected: object) -> Finding:
    """Return a figure that must be just so."""
    return Finding(what, str(value), str(expected), value == expected)
