"""The client on a terminal: a conversation between a person and the server.

The person's line is read by `input` in a thread: there readline edits lines, and nothing else has
to wait. A thread cannot be cancelled: when the server is gone, or at Ctrl-C, it is left behind, and
with it the terminal in readline's mode. So the terminal's own settings are kept, and restored at
the end whatever happens.
"""

import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import trio

from greeter_core import (
    ClientEvent,
    ConversationEnded,
    EndReason,
    GoodbyeReceived,
    Greeted,
    LocalProtocolError,
    NameRequested,
    SorryReceived,
    Welcomed,
)
from greeter_trio import ConversationFailed, Greeter
from greeter_trio._net.optional import optional
from greeter_trio._net.text import printable

from . import stdio
from .client_options import ClientOptions
from .opening import Conversation, NoConversation
from .output import print_error
from .signals import available, handled
from .status import ExitStatus

_os: Any = os  # Windows has no process groups
_termios = optional("termios")
_readline = optional("readline")  # edits lines for input(); without it the terminal alone does
if _readline:
    # By default these follow the locale, and where that is C or not installed, bytes are lost.
    for _setting in ("input-meta on", "output-meta on", "convert-meta off"):
        _readline.parse_and_bind(f"set {_setting}")

ASK = "Please input your name: "
_CTRL_C_DELAY = 0.1  # seconds, at most, from the end of input to the signal


class Terminal:
    """The person at standard input and output."""

    def __init__(self, options: ClientOptions) -> None:
        self._endpoint = options.endpoint
        self._prompted, self._prompts = trio.open_memory_channel[None](math.inf)
        self._asking: trio.CancelScope | None = None  # while the person is asked
        self._leaving = False
        self._output_failure: OSError | None = None

    def handle_events(self, events: Sequence[ClientEvent]) -> None:
        """Show what the server says."""
        for event in events:
            self._handle_event(event)

    def _handle_event(self, event: ClientEvent) -> None:
        match event:
            case Welcomed():
                self._tell_how_to_leave()
                self._show("Welcome!")
            case NameRequested() if not self._leaving:
                self._show("What's your name?")
                self._prompted.send_nowait(None)
            case Greeted(name):
                self._show(f"Hello {printable(name)}!")
            case GoodbyeReceived():
                self._leave_prompt()
                self._show("Goodbye!")
            case SorryReceived() | ConversationEnded():
                self._leave_prompt()

    def progress(self) -> str:
        """Return nothing: the conversation shows it."""
        return ""

    async def report(self, failed: NoConversation) -> None:
        """Do nothing: no name was asked."""

    async def run(self, conversation: Conversation) -> ExitStatus:
        """Have the person converse with the server, until one side ends it."""
        greeter = conversation.greeter
        # Names are bytes, and are sent as they are typed, in whatever encoding that is.
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
        with _terminal_kept() as modes, _job_control(modes, self._draw_again):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._ask_when_prompted, greeter)
                    status = await self._wait_ended(conversation)
                    nursery.cancel_scope.cancel()
            finally:
                self._leave_prompt()  # at Ctrl-C the cursor is still there
        if isinstance(self._output_failure, BrokenPipeError):
            raise self._output_failure
        return status

    async def _wait_ended(self, conversation: Conversation) -> ExitStatus:
        try:
            await conversation.greeter.wait_ended(EndReason.EXIT, EndReason.SHUTDOWN)
        except ConversationFailed as exc:
            failure = conversation.failure(exc, has_asked_exit=self._leaving)
            print_error(failure.message)
            return failure.status
        return ExitStatus.FAILED if self._output_failure else ExitStatus.DONE

    async def _ask_when_prompted(self, greeter: Greeter) -> None:
        async for _ in self._prompts:
            if not self._leaving:  # the server may have said goodbye together with its prompt
                await self._ask(greeter)

    async def _ask(self, greeter: Greeter) -> None:
        """Ask the person until there is something to say, and say it."""
        with trio.CancelScope() as self._asking:
            while True:
                line = await self._read_line()
                if line is None and not _termios:
                    # On Windows this may have been Ctrl-C: its signal is to come first.
                    await trio.sleep(_CTRL_C_DELAY)
                if self._say(greeter, line):
                    break
        self._asking = None

    def _say(self, greeter: Greeter, line: str | None) -> bool:
        if line is None or line == "exit" or self._output_failure:
            # The original server takes the first `exit` for a name, and asks for another.
            self._leaving = True
            greeter.ask_exit()
        elif not line:
            return False
        else:
            try:
                greeter.ask([line.encode("utf-8", "surrogateescape")])
            except LocalProtocolError as exc:
                print_error(str(exc))
                return False
        return True

    def _leave_prompt(self) -> None:
        self._leaving = True
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
        # Without a terminal to draw on, `input` takes a lock, which a thread that is left behind
        # keeps, and which Python needs at exit.
        self._show(ASK, end="")
        line = await _read_terminal()
        return line.decode("utf-8", "surrogateescape").rstrip("\r\n") if line else None

    def _tell_how_to_leave(self) -> None:
        with contextlib.suppress(OSError):
            if sys.stderr is not None and sys.stderr.isatty():
                print(f"Connected to {self._endpoint}: exit or Ctrl-D ends it.", file=sys.stderr)

    def _draw_again(self) -> None:
        """Draw the prompt, and what is typed already, where the shell has drawn meanwhile."""
        if self._asking and _readline:
            self._show(f"\r{ASK}{_readline.get_line_buffer()}", end="")

    def _show(self, line: str, end: str = "\n") -> None:
        if self._output_failure:
            return
        try:
            print(line, end=end, flush=True)
        except OSError as exc:
            self._output_failure = exc
            if not isinstance(exc, BrokenPipeError):
                print_error(f"cannot write to standard output: {exc.strerror}")


async def _read_terminal() -> bytes:
    """Return a line, or nothing for Ctrl-D."""
    if not _termios:  # on Windows only sockets can be waited for
        return await trio.to_thread.run_sync(stdio.read, 4096, abandon_on_cancel=True)
    await trio.lowlevel.wait_readable(0)
    return os.read(0, 4096)


@attrs.define
class _Modes:
    """Modes of the terminal, as termios(3) has them; None where there are none."""

    own: list[Any] | None = None
    """As it was at first, and is to be at the end."""
    typing: list[Any] | None = None
    """While readline reads a line."""

    def set(self, mode: list[Any] | None) -> None:
        """Put the terminal in this mode."""
        if _termios and mode:
            with contextlib.suppress(_termios.error):  # the terminal itself is gone
                _termios.tcsetattr(0, _termios.TCSANOW, mode)


@contextlib.contextmanager
def _terminal_kept() -> Iterator[_Modes]:
    """Yield the terminal's modes, and put it in its own at the end."""
    modes = _Modes()
    if not _termios:  # the console of Windows is never in another mode
        yield modes
        return
    tcgetattr = _termios.tcgetattr
    modes.own = tcgetattr(0)

    def note() -> None:
        modes.typing = tcgetattr(0)

    if _readline:
        _readline.set_pre_input_hook(note)
    try:
        yield modes
    finally:
        modes.set(modes.own)


@contextlib.contextmanager
def _job_control(modes: _Modes, draw_again: Callable[[], object]) -> Iterator[None]:
    """Within the block, let the shell stop this process (Ctrl-Z) and continue it (`fg`).

    A shell leaves the terminal in its own mode then, and readline, in its thread, does not notice.
    """

    def stop(number: int) -> None:
        modes.set(modes.own)
        before = signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(
            number
        )  # it returns when the process goes on, or nobody has job control
        signal.signal(number, before)
        if is_in_foreground():
            modes.set(modes.typing)

    def go_on(_: int) -> None:
        if is_in_foreground():  # otherwise the terminal is another job's
            modes.set(modes.typing)
            draw_again()

    def is_in_foreground() -> bool:
        try:
            return bool(_os.tcgetpgrp(0) == _os.getpgrp())
        except OSError:  # the terminal itself is gone
            return False

    stops = [each for each in available("SIGTSTP") if signal.getsignal(each) is not signal.SIG_IGN]
    with handled(stops, stop), handled(available("SIGCONT"), go_on):
        yield
