"""One line on standard error, if that is a terminal, that tells how far a long work has come."""

import contextlib
import shutil
import sys
import time
from collections.abc import Callable

import trio

_DELAY = 2.0  # seconds without a line: most work is done by then
_PAUSE = 0.5  # seconds between two looks


class Progress:
    """A line that is written over, and taken away at the end."""

    def __init__(self) -> None:
        self._is_wanted = sys.stderr is not None and sys.stderr.isatty()
        self._since = time.monotonic()
        self._width = 0

    def show(self, text: str) -> None:
        """Show this text, if the work has taken two seconds already."""
        if self._is_wanted and time.monotonic() >= self._since + _DELAY:
            text = text[: shutil.get_terminal_size().columns - 1]
            self._write(f"\r{text:{self._width}}")
            self._width = len(text)

    def clear(self) -> None:
        """Take the line away: other lines are about to come."""
        if self._width:
            self._write(f"\r{'':{self._width}}\r")
            self._width = 0

    async def keep_showing(self, text: Callable[[], str]) -> None:
        """Show what `text` returns, now and then, until cancelled; without a text, nothing."""
        if not self._is_wanted:
            return
        try:
            while True:
                if said := text():
                    self.show(said)
                await trio.sleep(_PAUSE)
        finally:
            self.clear()

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            print(text, end="", file=sys.stderr, flush=True)
