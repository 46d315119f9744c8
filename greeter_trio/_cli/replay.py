"""The command `replay`: a recording checked, and drawn."""

import contextlib
import sys
from collections.abc import Generator, Iterable, Iterator

import attrs

from greeter_core import (
    Difference,
    Step,
    TranscriptError,
    TranscriptItem,
    read_transcript,
    replay,
    write_item,
)
from greeter_trio._net.text import pluralized, shown
from greeter_trio._show.files import OutputError, write_file
from greeter_trio._show.page import render_page
from greeter_trio._show.trace import Trace

from .output import end_without_reader, print_error, wants_colour
from .progress import Progress
from .recording import STDOUT
from .show_options import ReplayOptions
from .status import ExitStatus

_LONGEST = 64 * 2**20  # bytes of a line; a step of `serve` has some 400 KB at most
_OFTEN = 10_000  # lines after which progress is shown
_DELAY = 1.0  # seconds; what was observed is written down sooner than that


def run_replay(options: ReplayOptions) -> int:
    """Replay a recording, and return the exit status."""
    if sys.stdout is None:
        print_error("standard output is closed: there is nowhere to print to")
        return ExitStatus.FAILED
    try:
        difference = _replay(_lines(options.file), options)
        if difference:
            _show(difference, options.file)
        sys.stdout.flush()
    except TranscriptError as exc:
        print_error(f"{shown(options.file)} is damaged: {exc}")
        return ExitStatus.USAGE
    except (_InputError, OutputError) as exc:
        print_error(str(exc))
        return ExitStatus.FAILED
    except BrokenPipeError:
        end_without_reader()
    except OSError as exc:
        print_error(f"cannot write to standard output: {exc.strerror}")
        return ExitStatus.FAILED
    return ExitStatus.FAILED if difference else ExitStatus.DONE


class _InputError(Exception):
    """The recording cannot be read."""


def _lines(path: str) -> Iterator[bytes]:
    """Yield the lines of a file, which may be anything."""
    number = 0
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a name, not a path to compute with
            while line := file.readline(_LONGEST):
                number += 1
                if len(line) == _LONGEST:
                    raise TranscriptError(number, f"it has more than {_LONGEST - 1} bytes")
                yield line
    except OSError as exc:
        raise _InputError(f"cannot read {shown(path)}: {exc.strerror}") from exc


def _replay(lines: Iterable[bytes], options: ReplayOptions) -> Difference | None:
    """Replay, and draw what is to be drawn."""
    tally = _Tally(None if options.trace else Progress())
    items: Iterable[tuple[int, TranscriptItem]] = read_transcript(
        lines, on_cut_short=lambda line: print_error(f"line {line} is cut short, and left out")
    )
    items = tally.counted(items)
    if options.page:
        items = list(items)
        write_file(options.page, render_page(item for _, item in items).encode())
    if options.trace:
        with contextlib.closing(_traced(items)) as traced:
            difference = replay(traced)
    else:
        difference = replay(items)
    tally.finish()
    if not difference:
        print(f"{tally}: everything came out as it was recorded")
    return difference


@attrs.define
class _Tally:
    """What was read so far."""

    _progress: Progress | None
    _conversations: int = 0
    _steps: int = 0

    def counted(
        self, items: Iterable[tuple[int, TranscriptItem]]
    ) -> Iterator[tuple[int, TranscriptItem]]:
        """Pass items on, and count them."""
        for number, item in items:
            if isinstance(item, Step):
                self._steps += 1
                self._conversations += item.opening is not None
            if self._progress and number % _OFTEN == 0:
                self._progress.show(str(self))
            yield number, item

    def finish(self) -> None:
        """Take the progress from the terminal."""
        if self._progress:
            self._progress.clear()

    def __str__(self) -> str:
        return (
            f"{pluralized(self._conversations, 'conversation')}, {pluralized(self._steps, 'step')}"
        )


def _traced(
    items: Iterable[tuple[int, TranscriptItem]],
) -> Generator[tuple[int, TranscriptItem], None, None]:
    """Pass items on, and draw them, in the order of their times."""
    trace = Trace(colour=wants_colour(STDOUT))
    try:
        for number, item in items:
            trace.put(item)
            for line in trace.lines(trace.newest - _DELAY):
                print(line)
            yield number, item
    finally:
        for line in trace.lines():
            print(line)


def _show(difference: Difference, file: str) -> None:
    """Print the first difference: the line, what it should be, and what it is."""
    fields = ", ".join(difference.fields)
    print(f"{shown(file)}, line {difference.line}: this step comes out differently ({fields})")
    print(f"expected  {write_item(difference.expected)}", end="")
    print(f"got       {write_item(difference.got)}", end="")
