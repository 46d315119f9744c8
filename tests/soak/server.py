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

from tests.benchmarks.process import PATIENCE, ROOT, ServerProcess
from tests.benchmarks.wire import HOST

from .finding import Command, Finding, exactly


class Server(ServerProcess):
    """A running server, with a log that can be read at any time."""

    def __init__(self, popen: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
        super().__init__(popen)
        self.pid = popen.pid
        self._log = log

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal. When SIGSTOP is sent, wait until the process stands still."""
        if sys.platform != "linux":
            raise NotImplementedError
        self._popen.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def wait(self) -> int | None:
        """Wait for the end; return the exit status, or None if it does not end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._popen.wait(PATIENCE * 2)  # --grace is 15 s
        return None

    def descriptors(self) -> int:
        """Return how many descriptors are open."""
        return sum(1 for _ in (self._proc / "fd").iterdir())

    def cpu_so_far(self) -> float:
        """Return the CPU time in seconds, of a process that need not go to sleep soon."""
        return self._cpu() / 1e9

    def logged(self, words: str) -> int:
        """Return how many lines of the log have these words."""
        if sys.platform != "linux":
            raise NotImplementedError
        return sum(
            words.encode() in line for line in os.pread(self._log.fileno(), 1 << 30, 0).splitlines()
        )

    def farewell(self) -> Iterator[Finding]:
        """End it by SIGTERM, and see how it takes that."""
        self.send_signal(signal.SIGTERM)
        yield exactly("exit status", self.wait(), 0)
        yield exactly("tracebacks in the log", self.logged("Traceback"), 0)


@contextlib.contextmanager
def serving(command: Command, *options: str) -> Iterator[Server]:
    """Run a server, on a free port unless the options name one, for at most as long as the context lasts."""
    arguments = [sys.executable, *command, "serve", "--host", HOST, "--port", "0", *options]
    null = subprocess.DEVNULL
    with tempfile.TemporaryFile() as log:
        popen = subprocess.Popen(arguments, cwd=ROOT, stdin=null, stdout=null, stderr=log)
        try:
            yield Server(popen, log)
        finally:
            popen.kill()  # does nothing to one that has ended
            popen.wait()


def wait_until(condition: Callable[[], bool], patience: float) -> bool:
    """Wait until something holds, and return whether it does, after so many seconds at the latest."""
    give_up = time.monotonic() + patience
    while not (holds := condition()) and time.monotonic() < give_up:
        time.sleep(0.02)
    return holds
