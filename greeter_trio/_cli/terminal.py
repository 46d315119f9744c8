"""The client on a terminal: a conversation between a person and the server.

The person's line is read by `input` in a thread, because only there does readline edit lines and
nothing else has to wait. A thread cannot be cancelled: when the server is gone, or at Ctrl-C, it is
left behind, and with it the terminal in readline's mode. So the terminal's own settings are kept,
and put back at the end whatever happens.
"""

import contextlib
import math
import os
import sys
from collections.abc import Iterator

import trio

from greeter_core import (
    ClientEvent,
    ConversationEnded,
    GoodbyeReceived,
    Greeted,
    LocalProtocolError,
    NameRequested,
    SorryReceived,
    Welcomed,
)
from greeter_trio._failures import ExitStatus
from greeter_trio._net.connecting import Call
from greeter_trio._net.optional import optional
from greeter_trio._net.text import complain, printable, settle_output

from . import stdio

_termios = optional("termios")
optional("readline")  # gives line editing to input(); without it the terminal alone edits lines

ASK = "Please input your name: "
_CTRL_C_DELAY = 0.1  # seconds, at most, from the end of input to the signal


async def converse(call: Call) -> ExitStatus:
    """Have a person at standard input converse with the server, until one side ends it."""
    sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # names are bytes
    with _terminal_kept():
        return await _Console(call).run()


class _Console:
    def __init__(self, call: Call) -> None:
        self._connection = call.connection
        self._driver = call.driver
        self._ending = call.ending
        self._happen, self._events = trio.open_memory_channel[ClientEvent](math.inf)
        call.listen(self._happen.send_nowait)
        self._asking: trio.CancelScope | None = None  # while the person is asked
        self._leaving = False
        self._status = ExitStatus.DONE  # as far as the terminal is concerned

    async def run(self) -> ExitStatus:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._drive)
                async for event in self._events:
                    match event:
                        case Welcomed():
                            self._show("Welcome!")
                        case NameRequested() if not self._leaving:
                            self._show("What's your name?")
                            nursery.start_soon(self._ask)
                        case Greeted(name):
                            self._show(f"Hello {printable(name)}!")
                        case GoodbyeReceived():
                            self._leave_prompt()
                            self._show("Goodbye!")
                        case SorryReceived() | ConversationEnded():
                            self._leave_prompt()
        finally:
            self._leave_prompt()  # at Ctrl-C the cursor is still there
        if self._ending.well:
            return self._status
        complain(self._ending.message)
        return self._ending.status

    async def _drive(self) -> None:
        await self._driver.run()
        self._happen.close()

    async def _ask(self) -> None:
        """Ask the person until there is something to say, and say it."""
        with trio.CancelScope() as self._asking:
            while True:
                line = await self._read_line()
                if line is None and not _termios:
                    # On Windows this may have been Ctrl-C: its signal is to come first.
                    await trio.sleep(_CTRL_C_DELAY)
                if self._say(line):
                    break
        self._asking = None

    def _say(self, line: str | None) -> bool:
        now = self._driver.now()
        if line is None or line == "exit" or self._status is ExitStatus.FAILED:
            self._leaving = (
                True  # the original server takes the first `exit` for a name, and asks for another
            )
            self._connection.send_exit(now)
        elif not line:
            return False
        else:
            try:
                self._connection.send_name(line.encode("utf-8", "surrogateescape"), now)
            except LocalProtocolError as exc:
                complain(str(exc))
                return False
        self._driver.wake()
        return True

    def _leave_prompt(self) -> None:
        if self._asking:
            self._show("")  # behind the prompt, and what was typed
            self._asking.cancel()
            self._asking = None

    async def _read_line(self) -> str | None:
        """Ask for a line; return it without its end, or None for Ctrl-D."""
        if sys.stdout.isatty():
            try:
                return await trio.to_thread.run_sync(input, ASK, abandon_on_cancel=True)
            except (EOFError, OSError):  # Ctrl-D, or the terminal is gone
                self._show("")
                return None
        # Without a terminal to draw on, `input` takes a lock that a thread left behind keeps, and
        # Python wants at exit.
        self._show(ASK, end="")
        line = await _read_terminal()
        return line.decode("utf-8", "surrogateescape").rstrip("\r\n") if line else None

    def _show(self, line: str, end: str = "\n") -> None:
        try:
            print(line, end=end, flush=True)
        except OSError as exc:
            settle_output()
            complain(f"cannot write to standard output: {exc.strerror}")
            self._status = ExitStatus.FAILED


async def _read_terminal() -> bytes:
    """Return a line, or nothing for Ctrl-D."""
    if not _termios:  # on Windows only sockets can be waited for
        return await trio.to_thread.run_sync(stdio.read, 4096, abandon_on_cancel=True)
    await trio.lowlevel.wait_readable(0)
    return os.read(0, 4096)


@contextlib.contextmanager
def _terminal_kept() -> Iterator[None]:
    if not _termios:  # the console of Windows is never in another mode
        yield
        return
    settings = _termios.tcgetattr(0)
    try:
        yield
    finally:
        with contextlib.suppress(_termios.error):  # the terminal itself is gone
            _termios.tcsetattr(0, _termios.TCSANOW, settings)
