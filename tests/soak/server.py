"""The server of a scenario: a process, its log, and signals to it."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO

from tests.support.accounting import PATIENCE, Command, ServerProcess
from tests.support.crowds import HOST

from .finding import Finding, exactly


class Server(ServerProcess):
    """A running server, with a log that can be read at any time."""

    def __init__(self, popen: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
        super().__init__(popen)
        self._log = log

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal. When SIGSTOP is sent, wait until the process stands still."""
        if sys.platform != "linux":
            raise NotImplementedError
        self.popen.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def wait(self) -> int | None:
        """Wait for the end; return the exit status, or None if it does not end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.popen.wait(PATIENCE * 2)  # --grace is 15 s
        return None

    def logged(self, words: str) -> int:
        """Return how many lines of the log have these words."""
        if sys.platform != "linux":
            raise NotImplementedError
        lines = os.pread(self._log.fileno(), 1 << 30, 0).splitlines()
        return sum(words.encode() in line for line in lines)

    def farewell(self) -> Iterator[Finding]:
        """End it by SIGTERM, and see whether it ends well."""
        self.send_signal(signal.SIGTERM)
        yield exactly("exit status", self.wait(), 0)
        yield exactly("tracebacks in the log", self.logged("Traceback"), 0)


@contextlib.contextmanager
def serving(command: Command, *options: str) -> Iterator[Server]:
    """Run a server, on a free port unless the options name one, until the context ends."""
    with tempfile.TemporaryFile() as log:
        popen = command.start("serve", "--host", HOST, "--port", "0", *options, log=log)
        try:
            yield Server(popen, log)
        finally:
            popen.kill()  # does nothing to one that has ended
            popen.wait()


def wait_until(condition: Callable[[], bool], patience: float) -> bool:
    """Wait until this holds; return whether it does, after so many seconds at the latest."""
    give_up = time.monotonic() + patience
    while not (holds := condition()) and time.monotonic() < give_up:
        time.sleep(0.02)
    return holds
