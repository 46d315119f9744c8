"""The client as a tool: names in, greetings out, one line each, and nothing else on standard output.

Three tasks: one reads and asks, one is the driver, one prints. The names come in batches, and a
batch is asked only when the greetings of the one before it are printed; that bounds memory, however
slow the reader of the output is. Standard input and output are read and written in threads, so that
a blocked pipe does not stop the conversation.

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
from greeter_trio._failures import ExitStatus
from greeter_trio._net.connecting import Call, Facts, NoConversation, milliseconds_since
from greeter_trio._net.text import complain, printable

from . import stdio

_CHUNK = 65536  # bytes to read at once
_LINE = 2048  # bytes to keep of a line that has not ended: more than a name may have


async def converse(call: Call, names: Sequence[bytes], *, as_json: bool) -> ExitStatus:
    """Have these names greeted, or those on standard input if there are none; print the greetings, and say exit."""
    return await _Tool(call, as_json=as_json).run(names)


async def report(failure: NoConversation, names: Sequence[bytes], *, as_json: bool) -> None:
    """Tell what became of these names, which nobody was there to greet."""
    asked = [_Asked(name, error=str(failure)) for name in names if name != b"exit"]
    if failure.facts.connect_ms is not None:  # otherwise there was not even a server to ask
        for each in asked:
            complain(f"not greeted: {each.shown}")
    if as_json:
        lines = [
            _object(each, failure.facts) for each in asked or [_Asked(None, error=str(failure))]
        ]
        try:
            await _print_lines(lines)
        except OSError as exc:
            complain(_cannot_write(exc))


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


class _Tool:
    def __init__(self, call: Call, *, as_json: bool) -> None:
        self._connection = call.connection
        self._driver = call.driver
        self._ending = call.ending
        self._facts = call.facts
        self._as_json = as_json
        self._status = ExitStatus.DONE
        self._failure = ""  # the last one
        self._asking = trio.CancelScope()
        self._asked: deque[_Asked] = deque()  # in order; the first one is not settled
        self._printer, self._to_print = trio.open_memory_channel[_Asked](math.inf)
        self._lines = 0
        self._names = 0  # that were asked, ever
        self._unprinted = 0  # of these, those whose line is not printed
        self._all_printed = trio.Event()
        call.listen(self._handle)

    async def run(self, names: Sequence[bytes]) -> ExitStatus:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._print, nursery.cancel_scope)
            async with trio.open_nursery() as talking:
                talking.start_soon(self._drive)
                talking.start_soon(self._ask, names)
            if self._ending.reason is not EndReason.EXIT:
                self._report_ending(from_input=not names)
            if self._failure and not self._names:
                self._printer.send_nowait(_Asked(None, error=self._failure))
            self._printer.close()
        return self._status

    async def _drive(self) -> None:
        await self._driver.run()
        self._asking.cancel()

    def _handle(self, event: ClientEvent) -> None:
        if isinstance(event, Greeted):
            self._asked[0].greeting_ms = milliseconds_since(self._asked[0].asked_at)
            self._settle()

    def _report_ending(self, *, from_input: bool) -> None:
        message = self._ending.message
        self._fail(message, self._ending.status)
        rest = [asked for asked in self._asked if not asked.is_settled]
        for asked in rest:
            complain(f"not greeted: {asked.shown}")
            asked.error = message
        if rest and from_input:
            complain("what came after that on standard input, if anything, was not asked")
        self._settle()

    # Asking

    async def _ask(self, names: Sequence[bytes]) -> None:
        with self._asking:
            if names:
                await self._ask_batch(names)
            else:
                await self._ask_standard_input()
        self._connection.send_exit(self._driver.now())
        self._driver.wake()

    async def _ask_standard_input(self) -> None:
        """Ask for the lines of standard input, as many at a time as one read returns."""
        rest = b""
        try:
            while chunk := await trio.to_thread.run_sync(
                stdio.read, _CHUNK, abandon_on_cancel=True
            ):
                *lines, rest = (rest + chunk).split(b"\n")
                rest = rest[:_LINE]
                if not await self._ask_batch([line.removesuffix(b"\r") for line in lines]):
                    return
        except OSError as exc:
            self._fail(f"cannot read standard input: {exc.strerror}")
        await self._ask_batch([rest.removesuffix(b"\r")])

    async def _ask_batch(self, lines: Sequence[bytes]) -> bool:
        """Ask for the names in these lines, and wait until they are printed; return False if one line says exit."""
        more = True
        for line in lines:
            self._lines += 1
            if line == b"exit":
                more = False
                break
            if line:
                self._ask_one(line)
        self._settle()
        self._driver.wake()
        if self._unprinted:
            self._all_printed = trio.Event()
            await self._all_printed.wait()
        return more

    def _ask_one(self, line: bytes) -> None:
        asked = _Asked(line, trio.current_time())
        try:
            self._connection.send_name(line, self._driver.now())
        except LocalProtocolError as exc:
            if self._connection.state.is_open:  # otherwise nothing is wrong with this line
                asked.error = f"line {self._lines} is left out: {exc}"
                self._fail(asked.error)
        self._asked.append(asked)
        self._names += 1
        self._unprinted += 1

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
            return _object(asked, self._facts)
        return "" if asked.error else f"Hello {asked.shown}!\n"

    def _fail(self, message: str, status: ExitStatus = ExitStatus.FAILED) -> None:
        complain(message)
        self._failure = message
        self._status = status


def _object(asked: _Asked, facts: Facts) -> str:
    name = None if asked.name is None else asked.name.decode("utf-8", "replace")
    fields = {
        "name": name,
        "greeting": None if asked.error else f"Hello {name}!",
        **attrs.asdict(facts),
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
