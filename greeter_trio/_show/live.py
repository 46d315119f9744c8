"""Recording and tracing conversations while they go on."""

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import trio

from greeter_core import Recording, TranscriptItem, write_header, write_item
from greeter_trio._net.text import shown

from .files import OutputError, empty, open_as_it_is, open_descriptor
from .sink import Sink
from .trace import Trace

_MANY = 64  # items to write at the latest, though the event loop is busy


class Output(ABC):
    """Something that takes the items of a recording."""

    @abstractmethod
    def begin(self) -> None:
        """Do what comes before the first item. Raises `OutputError`."""

    @abstractmethod
    def take(self, item: TranscriptItem) -> None:
        """Take the next item."""

    @abstractmethod
    def flush(self) -> None:
        """Write what can be written without blocking."""

    @abstractmethod
    def close(self, patience: float = math.inf) -> None:
        """Write the rest, for a reader that reads within `patience` seconds."""


class RecordFile(Output):
    """A file in which the transcript is written."""

    def __init__(self, path: str, on_failure: Callable[[str], object]) -> None:
        """Open the file, which keeps what it holds until `begin`. Raises `OutputError`."""
        self._path = path
        try:
            self._file = open_as_it_is(path)
        except OSError as exc:
            raise OutputError(path, exc) from exc
        self._sink = Sink(self._file, shown(path), on_failure)
        self._items: list[TranscriptItem] = []

    def begin(self) -> None:
        """Write the first line, in place of what the file held. Raises `OutputError`."""
        try:
            empty(self._file)
            self._file.write(write_header().encode())
        except OSError as exc:
            raise OutputError(self._path, exc) from exc

    def take(self, item: TranscriptItem) -> None:
        self._items.append(item)
        if len(self._items) >= _MANY:
            self._write_items()

    def flush(self) -> None:
        self._write_items()
        self._sink.flush()

    def close(self, patience: float = math.inf) -> None:
        self._write_items()
        self._sink.close(patience)
        self._file.close()

    def _write_items(self) -> None:
        # Several at a time, between two waits, take less time than each by itself.
        self._sink.write("".join(map(write_item, self._items)))
        self._items.clear()


class LiveTrace(Output):
    """A trace in text, in the order of time."""

    def __init__(
        self, descriptor: int, name: str, on_failure: Callable[[str], object], *, colour: bool
    ) -> None:
        """Draw on standard output or standard error. Raises `OutputError`."""
        try:
            self._file = open_descriptor(descriptor)
        except OSError as exc:
            raise OutputError(name, exc) from exc
        self._sink = Sink(self._file, name, on_failure)
        self.trace = Trace(colour=colour)
        self.until: Callable[[], float] = lambda: math.inf
        """Returns up to which time of the recording everything is known that has happened."""

    def begin(self) -> None:
        pass

    def take(self, item: TranscriptItem) -> None:
        self.trace.put(item)

    def flush(self) -> None:
        self._draw(self.until())
        self._sink.flush()

    def say(self, line: str, *, shows_tcp: bool = True) -> None:
        """Draw all that there is, and below it a line of text, and then TCP or not."""
        self._draw(math.inf)
        self.trace.shows_tcp = shows_tcp
        self._sink.write(f"\n{line}\n")

    def close(self, patience: float = math.inf) -> None:
        self._draw(math.inf)
        self._sink.close(patience)
        self._file.close()

    def _draw(self, until: float) -> None:
        for line in self.trace.lines(until):
            self._sink.write(f"{line}\n")


@contextlib.contextmanager
def recorded(outputs: Sequence[Output]) -> Iterator[Recording | None]:
    """Yield a recording that these outputs take, or None if there are none; in a Trio task.

    Raises `OutputError` if one of them cannot begin. Closing them is left to the caller.
    """
    if not outputs:
        yield None
        return

    def take(item: TranscriptItem) -> None:
        for output in outputs:
            output.take(item)

    write = take if len(outputs) > 1 else outputs[0].take
    with flushed(outputs):
        yield Recording(write, now=trio.current_time())


@contextlib.contextmanager
def flushed(outputs: Sequence[Output]) -> Iterator[None]:
    """Begin these outputs, and flush them whenever Trio's event loop is about to wait."""
    for output in outputs:
        output.begin()
    flushing = _Flushing(outputs)
    trio.lowlevel.add_instrument(flushing)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(flushing)


class _Flushing(trio.abc.Instrument):
    def __init__(self, outputs: Sequence[Output]) -> None:
        self._outputs = outputs

    def before_io_wait(self, timeout: float) -> None:
        if timeout > 0:  # otherwise other tasks are about to run
            for output in self._outputs:
                output.flush()
