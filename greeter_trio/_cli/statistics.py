"""What is kept of many conversations, in memory that does not grow with their number."""

import math
from collections import Counter
from collections.abc import Callable

import attrs

_ERROR = 0.01  # how far a quantile may be from the true one, as a part of it
_BASE = (1 + _ERROR) / (1 - _ERROR)
_SMALLEST, _LARGEST = 1e-3, 1e9  # milliseconds: what is beyond them counts as they do


@attrs.define
class Distribution:
    """Durations in milliseconds, from which quantiles are told to within 1 %.

    They are counted in buckets whose bounds grow by 2 %, about 1,400 of them at most (DDSketch,
    Masson, Rim and Lee, VLDB 2019). Least and largest are exact.
    """

    _buckets: Counter[int] = attrs.field(factory=Counter)
    least: float = math.inf
    largest: float = -math.inf

    def add(self, value: float) -> None:
        """Count a duration."""
        self.least, self.largest = min(self.least, value), max(self.largest, value)
        value = min(max(value, _SMALLEST), _LARGEST)
        self._buckets[math.ceil(math.log(value, _BASE))] += 1

    def quantile(self, part: float) -> float:
        """Return the least duration that this part of all (0 to 1) does not exceed.

        There must be a duration.
        """
        wanted, seen = part * self._buckets.total(), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                break
        value = 2 * _BASE**bucket / (_BASE + 1)
        return min(max(value, self.least), self.largest)

    def as_json(self) -> dict[str, float] | None:
        """Return the object for these durations; None where there are none."""
        if not self._buckets:
            return None
        quantiles = {"median": self.quantile(0.5), "p99": self.quantile(0.99)}
        found = {"min": self.least, **quantiles, "max": self.largest}
        return {name: round(value, 6) for name, value in found.items()}


@attrs.frozen
class Outage:
    """A time in which every conversation that began has failed."""

    began: float
    """When the first of these conversations began, in seconds on some clock."""
    ended: float
    """When the next conversation began that was greeted, or else the last one that failed ended."""
    is_over: bool

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


@attrs.define
class Statistics:
    """A summary of conversations, which are added in the order in which they began."""

    conversations: int = 0
    failed: Counter[str] = attrs.field(factory=Counter)
    """How many conversations have failed, for each code."""
    connect: Distribution = attrs.field(factory=Distribution)
    first_byte: Distribution = attrs.field(factory=Distribution)
    greeting: Distribution = attrs.field(factory=Distribution)
    _longest: Outage | None = None
    _began: float | None = None  # of the outage that goes on
    _ended: float = 0.0

    def add(self, began: float, ended: float, code: str | None) -> None:
        """Count a conversation that began and ended at these times, and failed with this code."""
        self.conversations += 1
        if code is not None:
            self.failed[code] += 1
            self._began = began if self._began is None else self._began
            self._ended = max(self._ended, ended)
        elif self._began is not None:
            self._longest = self._longer(Outage(self._began, began, is_over=True))
            self._began = None

    @property
    def longest_outage(self) -> Outage | None:
        """The longest outage, also if it goes on; None if no conversation has failed."""
        if self._began is None:
            return self._longest
        return self._longer(Outage(self._began, max(self._began, self._ended), is_over=False))

    def _longer(self, outage: Outage) -> Outage:
        longest = self._longest
        return longest if longest and longest.seconds >= outage.seconds else outage

    def as_json(self, time: Callable[[float], str]) -> dict[str, object]:
        """Return the object for the summary, in which times are written by `time`."""
        outage = self.longest_outage
        return {
            "conversations": self.conversations,
            "greeted": self.conversations - self.failed.total(),
            "failed": dict(self.failed),
            "longest_outage": outage
            and {
                "seconds": round(outage.seconds, 3),
                "from": time(outage.began),
                "to": time(outage.ended) if outage.is_over else None,
            },
            "connect_ms": self.connect.as_json(),
            "first_byte_ms": self.first_byte.as_json(),
            "greeting_ms": self.greeting.as_json(),
        }
