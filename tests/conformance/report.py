"""What the kit has found out, and how it is told."""

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs


class Verdict(enum.Enum):
    """How a check has ended."""

    PASSED = "passed"
    FAILED = "failed"
    LEFT_OUT = "left out"


@attrs.frozen
class Outcome:
    """What came of one check."""

    topic: str
    title: str
    rule: str
    """What demands it: clauses of PROTOCOL.md, or a heading of INTEGRATING.md."""
    verdict: Verdict
    expected: str = attrs.field(default="", kw_only=True)
    got: str = attrs.field(default="", kw_only=True)
    reason: str = attrs.field(default="", kw_only=True)
    """Why it was left out."""
    seconds: float = attrs.field(default=0.0, kw_only=True)
    """From the beginning of the check to its end."""

    def __str__(self) -> str:
        return f"{self.topic}: {self.title} ({self.rule})"


@attrs.frozen
class Report:
    """The outcomes of all checks."""

    outcomes: Sequence[Outcome]

    def of(self, verdict: Verdict) -> list[Outcome]:
        """Return those that have ended like that."""
        return [outcome for outcome in self.outcomes if outcome.verdict is verdict]

    @property
    def conforms(self) -> bool:
        """Whether some checks have passed, and none has failed."""
        return bool(self.of(Verdict.PASSED)) and not self.of(Verdict.FAILED)

    def text(self, *, verbose: bool = False) -> str:
        """Return the whole as lines; with every failure, and all that was left out, if verbose."""
        return "".join(f"{line}\n" for line in self._lines(verbose=verbose))

    def _lines(self, *, verbose: bool) -> Iterator[str]:
        topics = sorted({outcome.topic for outcome in self.outcomes})
        width = max(map(len, topics), default=0)
        for topic in topics:
            yield f"{topic:<{width}}  {_counts(o for o in self.outcomes if o.topic == topic)}"
        failed = self.of(Verdict.FAILED)
        shown = failed if verbose else failed[:_SHOWN]
        for outcome in shown:
            yield ""
            yield f"FAILED after {outcome.seconds:.2f} s: {outcome}"
            yield f"  expected {outcome.expected}"
            yield f"  got      {outcome.got}"
        if len(shown) < len(failed):
            yield ""
            yield f"{len(failed) - len(shown)} more have failed."
        if left_out := self.of(Verdict.LEFT_OUT):
            yield ""
            yield "Left out:"
            if verbose:
                yield from (f"  {outcome}: {outcome.reason}" for outcome in left_out)
            else:
                reasons = Counter(outcome.reason for outcome in left_out)
                yield from (f"  {count:>3}: {reason}" for reason, count in reasons.most_common())
        yield ""
        yield f"{_counts(self.outcomes)}."


_SHOWN: Final = 10  # failures, unless it is verbose
_ORDER: Final = (Verdict.PASSED, Verdict.FAILED, Verdict.LEFT_OUT)


def _counts(outcomes: Iterable[Outcome]) -> str:
    counts = Counter(outcome.verdict for outcome in outcomes)
    shown = [f"{counts[each]} {each.value}" for each in _ORDER if counts[each]]
    return ", ".join(shown) or "no check"
