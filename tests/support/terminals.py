"""The command on a pseudo-terminal, and the person in front of it."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any

import pytest

from .processes import COMMAND, PATIENCE, Output, Process, Stdio, started

pty = pytest.importorskip("pty", reason="these tests use pseudo-terminals")
termios = pytest.importorskip("termios")

ASK = b"Please input your name: "

# A terminal becomes a session's when the session's leader asks for it, so the process must do that
# by itself. It stays the same process when it becomes the command.
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A pseudo-terminal on which the command runs, from the person's side."""

    def __init__(self, process: Process, keyboard: IO[bytes]) -> None:
        self.process = process
        self.screen = Output(keyboard)
        self._keyboard = keyboard
        self._settings = termios.tcgetattr(keyboard)

    def type(self, keys: bytes | str) -> None:
        self._keyboard.write(keys.encode() if isinstance(keys, str) else keys)

    def expect(self, *wanted: bytes | str) -> None:
        """Wait until all this was shown, in this order."""
        for each in wanted:
            self.screen.expect(each.encode() if isinstance(each, str) else each)

    def answer(self, keys: bytes | str) -> None:
        """Wait until a name is asked for, and type."""
        self.expect(ASK)
        self.type(keys)

    def reset(self) -> None:
        """Put the terminal in the mode that it had at first, as a shell does."""
        termios.tcsetattr(self._keyboard, termios.TCSANOW, self._settings)

    def end(self, status: int) -> str:
        """Wait for the end of the process, and return what was shown since the last look.

        The process must end with this status, and leave the terminal as it found it.
        """
        ended = self.process.wait(PATIENCE)
        rest = self.screen.rest().decode(errors="replace").replace("\r\n", "\n")
        assert ended == status, f"it ended with {ended}, and {rest!r}"
        settings = termios.tcgetattr(self._keyboard)
        assert settings == self._settings, "the terminal's settings are not restored"
        shown = self.screen.all()
        on_and_off = [shown.count(b"\x1b[?2004" + end) for end in (b"h", b"l")]
        assert on_and_off[0] == on_and_off[1], "bracketed paste stays on"
        return rest


@contextlib.contextmanager
def started_on_terminal(
    *arguments: str,
    stdout: Stdio = None,
    stderr: Stdio = None,
    env: dict[str, str] | None = None,
    command: Sequence[str] = COMMAND,
) -> Iterator[tuple[Process, IO[bytes]]]:
    """Start the command on a pseudo-terminal, or with some of its output elsewhere.

    Yields the process and the terminal's other end.
    """
    ends = [os.fdopen(fd, "rb+", buffering=0) for fd in pty.openpty()]
    words = (sys.executable, "-S", "-c", _TAKE_TERMINAL, *command, *arguments)
    with ends[0] as keyboard, ends[1] as line:
        termios.tcsetwinsize(line, (24, 80))
        out, err = stdout or line, stderr or line
        with started(*words, stdin=line, stdout=out, stderr=err, env=env, session=True) as client:
            line.close()
            yield client, keyboard


@contextlib.contextmanager
def on_terminal(*arguments: str, **how: Any) -> Iterator[Terminal]:
    """Run the command in the same way; yield the terminal as a person sees it."""
    with started_on_terminal(*arguments, **how) as (process, keyboard):
        terminal = Terminal(process, keyboard)
        try:
            yield terminal
        finally:
            process.kill()
            process.wait(PATIENCE)
            terminal.screen.join()
