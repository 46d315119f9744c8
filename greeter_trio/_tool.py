"""The client as a tool: names in, greetings out, one line each, and nothing else on standard output.

Three tasks: one reads and asks, one is the driver, one prints. The names come in batches, and a batch is asked only
when the greetings of the one before it are printed; that bounds memory, however slow the reader of the output is.
Standard input and output are read and written in threads, so that a blocked pipe does not stop the conversation.

When the conversation ends, asking is cancelled, and what was greeted is still printed. When printing fails, everything
is cancelled.
"""

import json
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import trio

from greeter_core import ClientConfig, ClientConnection, ClientEvent, EndReason, Greeted, LocalProtocolError

from ._drive import Driver
from ._errors import Ending, ExitStatus
from ._text import complain, printable

_CHUNK = 65536  # bytes to read at once
_LINE = 2048  # bytes to keep of a line that has not ended: more than a name may have


async def converse(
    stream: trio.abc.Stream, config: ClientConfig, names: Sequence[bytes], *, as_json: bool
) -> ExitStatus:
    """Have these names greeted, or those on standard input if there are none; print the greetings, and say exit."""
    return await _Tool(stream, config, as_json=as_json).run(names)


class _Tool:
    def __init__(self, stream: trio.abc.Stream, config: ClientConfig, *, as_json: bool) -> None:
        self._connection = ClientConnection(config, now=trio.current_time())
        self._driver = Driver(self._connection, stream, self._handle)
        self._as_json = as_json
        self._ending = Ending()
        self._status = ExitStatus.DONE  # as far as input and output are concerned
        self._asking = trio.CancelScope()
        self._printer, self._to_print = trio.open_memory_channel[bytes](math.inf)
        self._lines = 0
        self._unprinted = 0  # names that were asked and whose greeting is not printed
        self._all_printed = trio.Event()

    async def run(self, names: Sequence[bytes]) -> ExitStatus:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drive)
            nursery.start_soon(self._ask, names)
            try:
                await self._print()
            except OSError as exc:
                self._fail(f"cannot write to standard output: {exc.strerror}")
                nursery.cancel_scope.cancel()
        if self._ending.reason not in (None, EndReason.EXIT):
            self._fail(self._ending.message)
            for name in self._ending.unanswered:
                complain(f"not greeted: {printable(name)}")
            if self._ending.unanswered and not names:
                complain("what came after that on standard input, if anything, was not asked")
            return self._ending.status
        return self._status

    async def _drive(self) -> None:
        await self._driver.run()
        self._asking.cancel()
        self._printer.close()

    def _handle(self, event: ClientEvent) -> None:
        self._ending.note(event, self._driver.failure)
        if isinstance(event, Greeted):
            self._printer.send_nowait(event.name)

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
            while chunk := await trio.to_thread.run_sync(os.read, 0, _CHUNK, abandon_on_cancel=True):
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
                try:
                    self._connection.send_name(line, self._driver.now())
                except LocalProtocolError as exc:
                    self._fail(f"line {self._lines} is left out: {exc}")
                else:
                    self._unprinted += 1
        self._driver.wake()
        if self._unprinted:
            self._all_printed = trio.Event()
            await self._all_printed.wait()
        return more

    async def _print(self) -> None:
        async for name in self._to_print:
            names = [name]
            with suppress(trio.WouldBlock, trio.EndOfChannel):
                while True:
                    names.append(self._to_print.receive_nowait())
            text = "".join(map(self._line, names)).encode(sys.stdout.encoding, "backslashreplace")
            await trio.to_thread.run_sync(_write, text, abandon_on_cancel=True)
            self._unprinted -= len(names)
            if not self._unprinted:
                self._all_printed.set()

    def _line(self, name: bytes) -> str:
        if self._as_json:
            text = name.decode("utf-8", "replace")
            return json.dumps({"name": text, "greeting": f"Hello {text}!"}) + "\n"
        return f"Hello {printable(name)}!\n"

    def _fail(self, message: str) -> None:
        complain(message)
        self._status = ExitStatus.FAILED


def _write(text: bytes) -> None:
    """Write to standard output, past `sys.stdout`: a thread that is left behind in there keeps its lock for ever."""
    while text:
        text = text[os.write(1, text) :]
