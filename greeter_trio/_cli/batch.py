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
from greeter_trio._net.text import printable

from . import stdio
from .names import problem_with
from .opening import Measurements, NoConversation, milliseconds_since
from .options import ClientOptions
from .output import print_error
from .status import ExitStatus, status_of

_CHUNK = 65536  # bytes to read at once
_LINE = 2048  # bytes to keep of a line that has not ended: more than a name may have


async def report(failure: NoConversation, options: ClientOptions) -> None:
    """Print what happened to these names, which no server was there to greet."""
    asked = [_Asked(name, error=str(failure)) for name in options.names if name != b"exit"]
    if failure.measurements.connect_ms is not None:  # there was a server that could be asked
        for each in asked:
            print_error(f"not greeted: {each.shown}")
    if options.json:
        objects = asked or [_Asked(None, error=str(failure))]
        try:
            await _print_lines(_object(each, failure.measurements) for each in objects)
        except OSError as exc:
            print_error(_cannot_write(exc))


@attrs.define
class _Asked:
    """A name that was asked, and what became of it."""

    name: bytes | None
    """None stands for what failed before any name."""
    asked_at: float = 0.0
    greeting_ms: float | None = None
    error: str = ""

    @property
    def shown(self) -> str:
        return printable(self.name or b"")

    @property
    def is_settled(self) -> bool:
        return self.greeting_ms is not None or self.error != ""


class Batch:
    """The names of the command line, or else of standard input."""

    def __init__(self, options: ClientOptions) -> None:
        self._as_json = options.json
        self._names = options.names
        self._measurements = Measurements()
        self._status = ExitStatus.DONE
        self._failure = ""  # the last one
        self._asking = trio.CancelScope()
        self._asked: deque[_Asked] = deque()  # in order; the first one is not settled
        self._printer, self._to_print = trio.open_memory_channel[_Asked](math.inf)
        self._lines = 0
        self._count = 0  # of names that were asked, ever
        self._unprinted = 0  # of these, those whose line is not printed
        self._all_printed = trio.Event()

    def handle_event(self, event: ClientEvent) -> None:
        """Settle the name that was greeted."""
        if isinstance(event, Greeted):
            self._asked[0].greeting_ms = milliseconds_since(self._asked[0].asked_at)
            self._settle()

    async def run(self, greeter: Greeter, measurements: Measurements) -> ExitStatus:
        """Have the names greeted, print the greetings, and say exit."""
        self._measurements = measurements
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._print, nursery.cancel_scope)
            async with trio.open_nursery() as talking:
                talking.start_soon(self._ask, greeter)
                failure = None
                try:
                    await greeter.wait_ended(EndReason.EXIT)
                except ConversationFailed as exc:
                    failure = exc
                self._asking.cancel()
            if failure:  # nothing more is asked now
                self._report_end(failure)
            if self._failure and not self._count:
                self._printer.send_nowait(_Asked(None, error=self._failure))
            self._printer.close()
        return self._status

    def _report_end(self, failure: ConversationFailed) -> None:
        self._fail(str(failure), status_of(failure.reason))
        rest = [asked for asked in self._asked if not asked.is_settled]
        for asked in rest:
            print_error(f"not greeted: {asked.shown}")
            asked.error = str(failure)
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

    async def _ask_standard_input(self, greeter: Greeter) -> None:
        """Ask for the lines of standard input, as many at a time as one read returns."""
        rest = b""
        try:
            while chunk := await trio.to_thread.run_sync(
                stdio.read, _CHUNK, abandon_on_cancel=True
            ):
                *lines, rest = (rest + chunk).split(b"\n")
                rest = rest[:_LINE]
                if not await self._ask_batch(greeter, [line.removesuffix(b"\r") for line in lines]):
                    return
        except OSError as exc:
            self._fail(f"cannot read standard input: {exc.strerror}")
        await self._ask_batch(greeter, [rest.removesuffix(b"\r")])

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
            now = trio.current_time()
            self._asked.extend([_Asked(name, now) for name in names])
        self._lines += len(lines)
        self._count += len(names)
        self._unprinted += len(names)
        self._settle()
        if self._unprinted:
            self._all_printed = trio.Event()
            await self._all_printed.wait()
        return more

    def _ask_one(self, greeter: Greeter, line: bytes, number: int) -> None:
        asked = _Asked(line, trio.current_time())
        problem = problem_with(line)
        if problem:
            asked.error = f"line {number} is left out: {problem}"
            self._fail(asked.error)
        else:
            with suppress(LocalProtocolError):  # the conversation is over, which is reported then
                greeter.ask([line])
        self._asked.append(asked)

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
            self._fail(_cannot_write(exc))
            everything.cancel()

    def _line(self, asked: _Asked) -> str:
        if self._as_json:
            return _object(asked, self._measurements)
        return "" if asked.error else f"Hello {asked.shown}!\n"

    def _fail(self, message: str, status: ExitStatus = ExitStatus.FAILED) -> None:
        print_error(message)
        self._failure = message
        self._status = status


def _object(asked: _Asked, measurements: Measurements) -> str:
    name = None if asked.name is None else asked.name.decode("utf-8", "replace")
    fields = {
        "name": name,
        "greeting": None if asked.error else f"Hello {name}!",
        **attrs.asdict(measurements),
        "greeting_ms": asked.greeting_ms,
    }
    if asked.error:
        fields["error"] = asked.error
    return json.dumps(fields) + "\n"


async def _print_lines(lines: Iterable[str]) -> None:
    text = "".join(lines).encode(sys.stdout.encoding, "backslashreplace")
    await trio.to_thread.run_sync(_write, text, abandon_on_cancel=True)


def _write(text: bytes) -> None:
    while text:
        text = text[stdio.write(text) :]


def _cannot_write(exc: OSError) -> str:
    return f"cannot write to standard output: {exc.strerror}"
