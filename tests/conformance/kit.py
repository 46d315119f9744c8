"""The conformance kit: all checks of a server, against one that runs or that it starts."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final

import trio

from .checking import Check, run_checks
from .corpus import Case, read_corpus
from .hostile import hostile_checks
from .playing import NotPlayableError, script_of
from .report import Report
from .socket_play import play
from .targets import Server, Target

TOLERANCE: Final = 0.5
"""Seconds that a word may be late, as on a busy machine."""


def check(target: Target, *, only: str = "", tolerance: float = TOLERANCE) -> Report:
    """Check a server; `only` chooses the checks that have this in their names.

    Raises `CorpusError` if a file of the corpus is damaged, and `TargetError` if there is no
    greeter to talk to.
    """
    rounds = checks(only=only, tolerance=tolerance)
    return trio.run(partial(run_checks, target, rounds))


def checks(
    cases: Iterable[Case] | None = None, *, only: str = "", tolerance: float = TOLERANCE
) -> tuple[list[Check], list[Check]]:
    """Return the checks: first conversations, which depend on times, then what loads the machine.

    The conversations are all those of the corpus that are about a server, or these.
    """
    conversations = corpus_checks(read_corpus() if cases is None else cases, tolerance)
    return (
        [check for check in conversations if only in str(check)],
        [check for check in hostile_checks(tolerance) if only in str(check)],
    )


def corpus_checks(cases: Iterable[Case], tolerance: float) -> Iterator[Check]:
    """Yield a check for each case that is about a server, whether it can be played or not."""
    for case in cases:
        if not (case.opening.opening and case.opening.opening.role == "server"):
            continue
        make = partial(
            Check,
            topic=f"corpus, {case.topic}",
            title=f"{case.number}, {case.title}",
            rule=" ".join(case.clauses),
        )
        try:
            script = script_of(case)
        except NotPlayableError as exc:
            yield make(run=_never, obstacle=f"it cannot be played over a socket: {exc}")
        else:
            run = partial(play, script, tolerance=tolerance)
            yield make(run=run, config=script.config, own_process=script.shuts_down)


async def _never(server: Server) -> None:
    raise NotImplementedError
