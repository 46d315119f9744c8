"""The client as a tool: names in, greetings out, one line each, and nothing else on stdout.

Three tasks: one reads and asks, one waits for the end of the conversation and so drives it, one
prints. The names come in batches, and a batch is asked only when the greetings of the one before it
are printed; that bounds memory, however slow the reader of the output is. Standard input and output
are read and written in threads, so that a blocked pipe does not stop the conversation.

When the conversation ends, asking is cancelled, and what was greeted is still printed. When
printing fails, everything is cancelled.

As JSON each name has an object, in order, greeted or not, so that objects and names correspond; a
failure to which no name belongs has one of its own.
"""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

import attrs
import trio

from greeter_core import ClientEvent, EndReason, LocalProtocolError
from greeter_trio import ConversationFailed, Greeter
from greeter_trio._net.text import pluralized, printable

from . import stdio
from .client_options import ClientOptions
from .names import doubt_about, problem_with, without_mark
from .opening import Conversation, Measurements, NoConversation, milliseconds_since
from .output import print_error
from .status import ExitStatus, Failure

_CHUNK = 262144  # bytes to read at once
_START = 65536  # bytes that tell what kind of text it is
_LINE = 2048  # bytes to keep of a line that has not ended: more than a name may have
_PLAIN = bytes(range(0x20, 0x7F)) + b"\n"  # lines of ASCII that is displayed as it is


@attrs.define
class _Batch:
    """Names that are asked together, and are settled in this order."""

    names: Sequence[bytes] = ()
    left_out: dict[int, Failure] = attrs.field(factory=dict)
    """Those that are no names, by their places."""
    asked: int = 0
    """How many were."""
    sent_at: list[float] = attrs.field(factory=list)
    """When these were sent, as far as they are."""
    timed: int = 0
    """Of how many the greetings were timed."""
    settled: int = 0
    """How many are: greeted, not greeted for good, or left out."""

    @property
    def rest(self) -> list[bytes]:
        """Those that were not greeted, and not left out."""
        places = range(self.settled, len(self.names))
        return [self.names[place] for place in places if place not in self.left_out]


class Batch:
    """The names of the command line, or else of standard input."""

    def __init__(self, options: ClientOptions) -> None:
        self._as_json = options.json
        self._names = options.names
        self._measurements = Measurements()
        self._failure: Failure | None = None  # the first one, which decides the exit status
        self._has_object = False  # whether a name has failed with it
        self._asking = trio.CancelScope()
        self._batch = _Batch()
        self._greeter: Greeter | None = None
        self._printer, self._to_print = trio.open_memory_channel[tuple[int, str]](math.inf)
        self._lines = 0
        self._greeted = 0  # in all batches
        self._settled = 0  # likewise
        self._unprinted = 0  # of this batch
        self._all_printed = trio.Event()
        self._output_failure: OSError | None = None
        self._exit_asked = False

    def handle_events(self, _: Sequence[ClientEvent]) -> None:
        """Settle the names that were greeted."""
        self._note_sent()
        greeted = self._greeter.greeted - self._greeted if self._greeter else 0
        self._greeted += greeted
        self._settle(greeted)

    def progress(self) -> str:
        """Return how far it is, if the greetings do not show it."""
        done = self._settled
        return "" if not done or sys.stdout.isatty() else f"{pluralized(done, 'name')} greeted"

    async def report(self, failed: NoConversation) -> None:
        """Print what happened to these names, which no server was there to greet."""
        failure, measurements = failed.failure, failed.measurements
        names: list[bytes | None] = [name for name in self._names if name != b"exit"]
        if measurements.peer is not None:  # there was a server that could be asked
            for name in names:
                print_error(f"not greeted: {printable(name or b'')}")
        if self._as_json:
            objects = [_object(name, measurements, error=failure) for name in names or [None]]
            try:
                await _print("".join(objects))
            except BrokenPipeError:
                raise
            except OSError as exc:
                print_error(_cannot_write(exc))

    async def run(self, conversation: Conversation) -> ExitStatus:
        """Have the names greeted, print the greetings, and say exit."""
        greeter = self._greeter = conversation.greeter
        self._measurements = conversation.measurements
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._print_all, nursery.cancel_scope)
            async with trio.open_nursery() as talking:
                talking.start_soon(self._ask, greeter)
                failure = None
                try:
                    await greeter.wait_ended(EndReason.EXIT)
                except ConversationFailed as exc:
                    # After the NAMEs, which are asked together, nothing but `exit` comes.
                    has_asked = self._exit_asked or bool(self._names and self._batch.names)
                    failure = conversation.failure(exc, has_asked_exit=has_asked)
                self._asking.cancel()
            if failure:  # nothing more is asked now
                self._report_end(failure)
            if self._as_json and self._failure and not self._has_object:
                nobody = _object(None, self._measurements, error=self._failure)
                self._printer.send_nowait((0, nobody))
            self._printer.close()
        if self._output_failure:  # not raised within the nursery, which makes a group of it
            if isinstance(self._output_failure, BrokenPipeError):
                raise self._output_failure
            self._fail(Failure(_cannot_write(self._output_failure)))
        return self._failure.status if self._failure else ExitStatus.DONE

    def _report_end(self, failure: Failure) -> None:
        self._fail(failure)
        rest = self._batch.rest
        self._has_object = self._has_object or bool(rest)
        for name in rest:
            print_error(f"not greeted: {printable(name)}")
        if rest and not self._names:
            print_error("what came after that on standard input, if anything, was not asked")
        self._settle(failed=failure)

    # Asking

    async def _ask(self, greeter: Greeter) -> None:
        with self._asking:
            if self._names:
                await self._ask_batch(greeter, self._names)
            else:
                await self._ask_standard_input(greeter)
            greeter.ask_exit()
            self._exit_asked = True

    async def _ask_standard_input(self, greeter: Greeter) -> None:
        """Ask for the lines of standard input, as many at a time as one read returns."""
        if sys.stdin.isatty():
            print_error("waiting for names, one a line; Ctrl-D ends them")
        rest, is_start = b"", True
        try:
            while chunk := await stdio.read_in_thread(_CHUNK):
                if is_start:
                    is_start, chunk = False, self._checked_start(chunk)
                chunk = rest + chunk
                if b"\r" in chunk:
                    chunk = chunk.replace(b"\r\n", b"\n")
                *lines, rest = chunk.split(b"\n")
                rest = rest[:_LINE]
                if not await self._ask_batch(greeter, lines):
                    return
        except OSError as exc:
            self._fail(Failure(f"cannot read standard input: {exc.strerror}"))
        await self._ask_batch(greeter, [rest.removesuffix(b"\r")])

    def _checked_start(self, start: bytes) -> bytes:
        if doubt := doubt_about(start[:_START]):
            print_error(f"standard input seems to be {doubt}; its names are sent as they are")
        return without_mark(start)

    async def _ask_batch(self, greeter: Greeter, lines: Sequence[bytes]) -> bool:
        """Ask for the names in these lines, and wait until they are printed.

        Return False if one line says exit, which ends the input.
        """
        more = b"exit" not in lines
        lines = lines if more else lines[: lines.index(b"exit")]
        names = [*filter(None, lines)]
        batch = self._batch = _Batch(names)
        try:
            greeter.ask(names)
            batch.asked = len(names)
        except LocalProtocolError:  # a line is no name, or the conversation is over
            numbers = [number for number, line in enumerate(lines, self._lines + 1) if line]
            for place, number in enumerate(numbers):
                self._ask_one(greeter, place, number)
        self._lines += len(lines)
        self._unprinted = len(names)
        self._note_sent()
        self._settle()
        if self._unprinted:
            self._all_printed = trio.Event()
            await self._all_printed.wait()
        return more

    def _ask_one(self, greeter: Greeter, place: int, number: int) -> None:
        batch, name = self._batch, self._batch.names[place]
        try:
            greeter.ask([name])
        except LocalProtocolError:
            problem = problem_with(name)
            if not problem:
                return  # the conversation is over, which is reported then
            batch.left_out[place] = Failure(f"line {number} is left out: {problem}")
            self._fail(batch.left_out[place])
            self._has_object = True
        else:
            batch.asked += 1
            self._note_sent()

    def _note_sent(self) -> None:
        """Take the time for the names that have been sent by now."""
        batch = self._batch
        if self._greeter and len(batch.sent_at) < batch.asked:
            more = batch.asked - self._greeter.unsent - len(batch.sent_at)
            batch.sent_at += [trio.current_time()] * more

    # Printing

    def _settle(self, greeted: int = 0, failed: Failure | None = None) -> None:
        """Have printed what became of the next names: greeted, or failed."""
        batch, start = self._batch, self._batch.settled
        if self._as_json or batch.left_out or not greeted:
            text = "".join(self._settled_lines(greeted, failed))
        else:
            batch.settled += greeted
            text = _greetings(batch.names[start : batch.settled])
        if batch.settled > start:
            self._settled += batch.settled - start
            self._printer.send_nowait((batch.settled - start, text))

    def _settled_lines(self, greeted: int, failed: Failure | None) -> Iterator[str]:
        batch = self._batch
        for place in range(batch.settled, len(batch.names)):
            name, error = batch.names[place], batch.left_out.get(place)
            greeting_ms = None
            if not error and greeted:
                greeted -= 1
                greeting_ms = milliseconds_since(batch.sent_at[batch.timed])
                batch.timed += 1
            elif not error and not failed:
                return
            batch.settled += 1
            if self._as_json:
                error = error if greeting_ms is not None else error or failed
                yield _object(name, self._measurements, greeting_ms, error)
            elif greeting_ms is not None:
                yield _greetings([name])

    async def _print_all(self, everything: trio.CancelScope) -> None:
        try:
            async for settled in self._to_print:
                several = [settled]
                with suppress(trio.WouldBlock, trio.EndOfChannel):
                    while True:
                        several.append(self._to_print.receive_nowait())
                await _print("".join(text for _, text in several))
                self._unprinted -= sum(number for number, _ in several)
                if not self._unprinted:
                    self._all_printed.set()
        except OSError as exc:
            self._output_failure = exc
            everything.cancel()

    def _fail(self, failure: Failure) -> None:
        print_error(failure.message)
        self._failure = self._failure or failure


def _greetings(names: Sequence[bytes]) -> str:
    """Return the lines for names that were greeted; to look at all at once is for speed."""
    lines = b"Hello " + b"!\nHello ".join(names) + b"!\n"
    text = lines.decode("utf-8", "replace")
    if not lines.translate(None, _PLAIN) or text.replace("\n", "").isprintable():
        return text
    return "".join(f"Hello {printable(name)}!\n" for name in names)


def _object(
    name: bytes | None,
    measurements: Measurements,
    greeting_ms: float | None = None,
    error: Failure | None = None,
) -> str:
    """Return the object of a name, or of what failed before any name."""
    text = None if name is None else name.decode("utf-8", "replace")
    fields = {
        "name": text,
        "greeting": None if error else f"Hello {text}!",
        **attrs.asdict(measurements),
        "greeting_ms": greeting_ms,
    }
    if error:
        fields["error"] = error.as_json()
    return json.dumps(fields) + "\n"


async def _print(text: str) -> None:
    data = text.encode(sys.stdout.encoding, "backslashreplace")
    await stdio.in_thread(stdio.write_all, data)


def _cannot_write(exc: OSError) -> str:
    return f"cannot write to standard output: {exc.strerror}"
