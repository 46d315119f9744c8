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
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress

import attrs
import trio

from greeter_core import ClientEvent, EndReason, Greeted, LocalProtocolError
from greeter_trio import ConversationFailed, Greeter
from greeter_trio._net.text import pluralized, printable

from . import stdio
from .client_options import ClientOptions
from .names import doubt_about, problem_with, without_mark
from .opening import Conversation, Measurements, NoConversation, milliseconds_since
from .output import print_error
from .status import ExitStatus, Failure

_CHUNK = 65536  # bytes to read at once
_LINE = 2048  # bytes to keep of a line that has not ended: more than a name may have


@attrs.define
class _Asked:
    """A name that was asked, and what became of it."""

    name: bytes | None
    """None stands for what failed before any name."""
    sent_at: float = 0.0
    greeting_ms: float | None = None
    error: Failure | None = None

    @property
    def shown(self) -> str:
        return printable(self.name or b"")

    @property
    def is_settled(self) -> bool:
        return self.greeting_ms is not None or self.error is not None


class Batch:
    """The names of the command line, or else of standard input."""

    def __init__(self, options: ClientOptions) -> None:
        self._as_json = options.json
        self._names = options.names
        self._measurements = Measurements()
        self._failure: Failure | None = None  # the first one, which decides the exit status
        self._has_object = False  # whether a name has failed with it
        self._asking = trio.CancelScope()
        self._asked: deque[_Asked] = deque()  # in order; the first one is not settled
        self._unsent: deque[_Asked] = deque()  # those of them that the server has yet to ask for
        self._greeter: Greeter | None = None
        self._printer, self._to_print = trio.open_memory_channel[_Asked](math.inf)
        self._lines = 0
        self._count = 0  # of names that were asked, ever
        self._unprinted = 0  # of these, those whose line is not printed
        self._all_printed = trio.Event()
        self._output_failure: OSError | None = None
        self._exit_asked = False

    def handle_event(self, event: ClientEvent) -> None:
        """Settle the name that was greeted."""
        if isinstance(event, Greeted):
            self._asked[0].greeting_ms = milliseconds_since(self._asked[0].sent_at)
            self._settle()
        self._note_sent()

    def progress(self) -> str:
        """Return how far it is, if the greetings do not show it."""
        done = self._count - len(self._asked)
        return "" if not done or sys.stdout.isatty() else f"{pluralized(done, 'name')} greeted"

    async def report(self, failed: NoConversation) -> None:
        """Print what happened to these names, which no server was there to greet."""
        failure, measurements = failed.failure, failed.measurements
        asked = [_Asked(name, error=failure) for name in self._names if name != b"exit"]
        if measurements.peer is not None:  # there was a server that could be asked
            for each in asked:
                print_error(f"not greeted: {each.shown}")
        if self._as_json:
            objects = asked or [_Asked(None, error=failure)]
            try:
                await _print_lines(_object(each, measurements) for each in objects)
            except BrokenPipeError:
                raise
            except OSError as exc:
                print_error(_cannot_write(exc))

    async def run(self, conversation: Conversation) -> ExitStatus:
        """Have the names greeted, print the greetings, and say exit."""
        greeter = self._greeter = conversation.greeter
        self._measurements = conversation.measurements
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._print, nursery.cancel_scope)
            async with trio.open_nursery() as talking:
                talking.start_soon(self._ask, greeter)
                failure = None
                try:
                    await greeter.wait_ended(EndReason.EXIT)
                except ConversationFailed as exc:
                    # After the NAMEs, which are asked together, nothing but `exit` comes.
                    has_asked = self._exit_asked or bool(self._names and self._count)
                    failure = conversation.failure(exc, has_asked_exit=has_asked)
                self._asking.cancel()
            if failure:  # nothing more is asked now
                self._report_end(failure)
            if self._failure and not self._has_object:
                self._printer.send_nowait(_Asked(None, error=self._failure))
            self._printer.close()
        if self._output_failure:  # not raised within the nursery, which makes a group of it
            if isinstance(self._output_failure, BrokenPipeError):
                raise self._output_failure
            self._fail(Failure(_cannot_write(self._output_failure)))
        return self._failure.status if self._failure else ExitStatus.DONE

    def _report_end(self, failure: Failure) -> None:
        self._fail(failure)
        rest = [asked for asked in self._asked if not asked.is_settled]
        self._has_object = self._has_object or bool(rest)
        for asked in rest:
            print_error(f"not greeted: {asked.shown}")
            asked.error = failure
        if rest and not self._names:
            print_error("what came after that on standard input, if anything, was not asked")
        self._settle()

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
                *lines, rest = (rest + chunk).split(b"\n")
                rest = rest[:_LINE]
                if not await self._ask_batch(greeter, [line.removesuffix(b"\r") for line in lines]):
                    return
        except OSError as exc:
            self._fail(Failure(f"cannot read standard input: {exc.strerror}"))
        await self._ask_batch(greeter, [rest.removesuffix(b"\r")])

    def _checked_start(self, start: bytes) -> bytes:
        if doubt := doubt_about(start):
            print_error(f"standard input seems to be {doubt}; its names are sent as they are")
        return without_mark(start)

    async def _ask_batch(self, greeter: Greeter, lines: Sequence[bytes]) -> bool:
        """Ask for the names in these lines, and wait until they are printed.

        Return False if one line says exit, which ends the input.
        """
        more = b"exit" not in lines
        lines = lines if more else lines[: lines.index(b"exit")]
        names = [line for line in lines if line]
        try:
            greeter.ask(names)
        except LocalProtocolError:  # a line is no name, or the conversation is over
            for number, line in enumerate(lines, self._lines + 1):
                if line:
                    self._ask_one(greeter, line, number)
        else:
            asked = [_Asked(name) for name in names]
            self._asked.extend(asked)
            self._unsent.extend(asked)
            self._note_sent()
        self._lines += len(lines)
        self._count += len(names)
        self._unprinted += len(names)
        self._settle()
        if self._unprinted:
            self._all_printed = trio.Event()
            await self._all_printed.wait()
        return more

    def _ask_one(self, greeter: Greeter, line: bytes, number: int) -> None:
        asked = _Asked(line)
        self._asked.append(asked)
        if problem := problem_with(line):
            asked.error = Failure(f"line {number} is left out: {problem}")
            self._fail(asked.error)
            self._has_object = True
            return
        with suppress(LocalProtocolError):  # the conversation is over, which is reported then
            greeter.ask([line])
            self._unsent.append(asked)
            self._note_sent()

    def _note_sent(self) -> None:
        """Take the time for the names that have been sent by now."""
        if self._unsent and self._greeter:
            now, unsent = trio.current_time(), self._greeter.unsent
            while len(self._unsent) > unsent:
                self._unsent.popleft().sent_at = now

    # Printing

    def _settle(self) -> None:
        """Have printed what is settled, as far as everything before it is."""
        while self._asked and self._asked[0].is_settled:
            self._printer.send_nowait(self._asked.popleft())

    async def _print(self, everything: trio.CancelScope) -> None:
        try:
            async for asked in self._to_print:
                several = [asked]
                with suppress(trio.WouldBlock, trio.EndOfChannel):
                    while True:
                        several.append(self._to_print.receive_nowait())
                await _print_lines(map(self._line, several))
                self._unprinted -= len(several)
                if not self._unprinted:
                    self._all_printed.set()
        except OSError as exc:
            self._output_failure = exc
            everything.cancel()

    def _line(self, asked: _Asked) -> str:
        if self._as_json:
            return _object(asked, self._measurements)
        return "" if asked.error else f"Hello {asked.shown}!\n"

    def _fail(self, failure: Failure) -> None:
        print_error(failure.message)
        self._failure = self._failure or failure


def _object(asked: _Asked, measurements: Measurements) -> str:
    name = None if asked.name is None else asked.name.decode("utf-8", "replace")
    fields = {
        "name": name,
        "greeting": None if asked.error else f"Hello {name}!",
        **attrs.asdict(measurements),
        "greeting_ms": asked.greeting_ms,
    }
    if asked.error:
        fields["error"] = asked.error.as_json()
    return json.dumps(fields) + "\n"


async def _print_lines(lines: Iterable[str]) -> None:
    text = "".join(lines).encode(sys.stdout.encoding, "backslashreplace")
    await stdio.in_thread(stdio.write_all, text)


def _cannot_write(exc: OSError) -> str:
    return f"cannot write to standard output: {exc.strerror}"
