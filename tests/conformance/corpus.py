"""The corpus: conversations as transcripts, one file a topic, each with what it shows."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from greeter_core import Observed, Step, TranscriptError, read_transcript

CORPUS: Final = Path(__file__).parent / "corpus"

_TITLE = re.compile(r"((?:[A-Z]\d+(?:\.\d+)?)(?: [A-Z]\d+(?:\.\d+)?)*): (.+)")

NumberedStep = tuple[int, Step]
"""A step, after the number of its line."""


class CorpusError(Exception):
    """A file of the corpus is not as it should be; the message names it and the line."""


@attrs.frozen
class Case:
    """One conversation."""

    topic: str
    """The name of its file, without the suffix."""
    number: int
    """Its `id` in that file."""
    title: str
    clauses: tuple[str, ...]
    """Those of PROTOCOL.md that it shows: it must come out differently where one is broken."""
    steps: tuple[NumberedStep, ...]

    def __str__(self) -> str:
        return f"{self.topic} {self.number}: {self.title}"

    @property
    def opening(self) -> Step:
        """The step that opens the conversation."""
        return self.steps[0][1]


def read_corpus(folder: Path = CORPUS) -> list[Case]:
    """Read all files of a folder; raise `CorpusError` if there is none, or one is damaged."""
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise CorpusError(f"{folder}: there is no file *.jsonl")
    return [case for path in paths for case in read_cases(path)]


def read_cases(path: Path) -> Iterator[Case]:
    """Yield the conversations of one file; raise `CorpusError` if it is damaged.

    Before each stands a note, in which the clauses come first: `S3.1 S5.1: an empty line`.
    """

    def cut_short(number: int) -> None:
        raise CorpusError(f"{path}, line {number}: the line has no end")

    titles: dict[int, re.Match[str]] = {}
    lines: dict[int, int] = {}
    steps: dict[int, list[NumberedStep]] = {}
    try:
        with path.open("rb") as file:
            for number, item in read_transcript(file, on_cut_short=cut_short):
                match item:
                    case Observed(id=case, what="note", fields={"text": str(text)}):
                        if case in titles or not (title := _TITLE.fullmatch(text)):
                            raise CorpusError(f"{path}, line {number}: no clauses and a title")
                        titles[case], lines[case] = title, number
                    case Step(id=case) if case in titles and (item.opening or case in steps):
                        steps.setdefault(case, []).append((number, item))
                    case Step():
                        raise CorpusError(f"{path}, line {number}: no note comes before this")
    except TranscriptError as exc:
        raise CorpusError(f"{path}, {exc}") from None
    for case, title in titles.items():
        if case not in steps:
            raise CorpusError(f"{path}, line {lines[case]}: no steps come after this")
        yield Case(path.stem, case, title[2], tuple(title[1].split()), tuple(steps[case]))
