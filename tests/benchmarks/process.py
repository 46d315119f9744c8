"""Servers as processes of their own, and what the kernel knows about them (Linux only: it is read from /proc)."""

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from .wire import HOST

ROOT = Path(__file__).parents[2]
PATIENCE = 10.0  # seconds that a server may take to start, and to end
SPARE_FILES = 64  # descriptors that a process has open besides its connections

SERVERS: Final[Mapping[str, Sequence[str]]] = {
    "epoll": ["-m", "tests.benchmarks.servers", "epoll"],
    "greeter": ["-m", "greeter_trio", "serve", "--host", HOST, "--port", "0"],
    "asyncio": ["-m", "tests.benchmarks.servers", "asyncio"],
}
"""What to tell Python for each server. The first is the one that the others are compared with."""


class Process:
    """What the kernel has booked for a process."""

    def __init__(self, pid: int) -> None:
        self._proc = Path("/proc", str(pid))
        self._has_schedstat = (self._proc / "schedstat").exists()
        self._threads: dict[str, Sequence[int]] = {}  # a thread that has ended keeps its last figures

    def cpu(self) -> int:
        """Return the CPU time that all threads have used so far, user and system, in nanoseconds.

        The kernel books a thread's time when the thread goes to sleep. So this waits until the process has done what
        it still does after its last reply, which is when two readings in a row are the same.
        """
        give_up = time.monotonic() + PATIENCE
        last, now = -1, self._cpu()
        while last != now and time.monotonic() < give_up:
            time.sleep(0.005)
            last, now = now, self._cpu()
        return now

    def waited(self) -> int:
        """Return how long all threads have waited so far for a CPU that others had, in nanoseconds; 0 if not known."""
        return sum(waited for _, waited in self._schedstat())

    def memory(self) -> int:
        """Return the resident memory in KiB."""
        # Not the proportional share (Pss), which changes when any other process with the same libraries comes or goes.
        # `smaps_rollup` counts pages; `status`, where there is nothing better, may lag behind by some of them.
        try:
            text, label = (self._proc / "smaps_rollup").read_text(), "Rss:"
        except OSError:
            text, label = (self._proc / "status").read_text(), "VmRSS:"
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(label))

    def _cpu(self) -> int:
        if self._has_schedstat:
            return sum(ran for ran, _ in self._schedstat())
        # The same in ticks, of 10 ms as a rule. Spaces may come in the name of the program, which ends with ")".
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")

    def _schedstat(self) -> Iterable[Sequence[int]]:
        """Return for each thread how long it ran, and how long it waited to run."""
        for task in (self._proc / "task").iterdir():
            with contextlib.suppress(OSError):  # the thread has just ended, or the kernel keeps no such statistics
                self._threads[task.name] = [*map(int, (task / "schedstat").read_text().split()[:2])]
        return self._threads.values()


class ServerProcess(Process):
    """A running server."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        super().__init__(popen.pid)
        self._popen = popen
        self.port = self._wait_for_port()

    def _wait_for_port(self) -> int:
        """Return the port that the process listens on, as soon as it does.

        It also says so in its log, but that is sent to /dev/null, where writing costs least and is the same for all.
        """
        give_up = time.monotonic() + PATIENCE
        while self._popen.poll() is None and time.monotonic() < give_up:
            with contextlib.suppress(OSError):  # a descriptor that was closed just now
                descriptors = {str(path.readlink()) for path in (self._proc / "fd").iterdir()}
                for line in (self._proc / "net" / "tcp").read_text().splitlines()[1:]:
                    fields = line.split()
                    if fields[3] == "0A" and f"socket:[{fields[9]}]" in descriptors:  # it is in LISTEN, and its own
                        return int(fields[1].partition(":")[2], 16)
            time.sleep(0.01)
        msg = f"this does not listen, its exit status is {self._popen.poll()}: {self._popen.args!r}"
        raise RuntimeError(msg)


@contextlib.contextmanager
def running(*commands: Sequence[str]) -> Iterator[list[ServerProcess]]:
    """Run Python with each of these lists of arguments, as servers, for as long as the context lasts.

    Where there are several CPUs the servers get one of them, and the load the others. Otherwise it is a matter of luck
    whether the scheduler has server and load wake each other across CPUs or take turns on one, and the same work costs
    twice as much or half.
    """
    cpus = os.sched_getaffinity(0)
    popens = []
    try:
        for command in commands:
            popens.append(_start(command))
            os.sched_setaffinity(popens[-1].pid, {max(cpus)})
        os.sched_setaffinity(0, cpus - {max(cpus)} or cpus)
        yield [*map(ServerProcess, popens)]
    finally:
        os.sched_setaffinity(0, cpus)
        for popen in popens:
            popen.terminate()
        for popen in popens:
            try:
                popen.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                popen.kill()
                popen.wait()


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    null = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, *command], cwd=ROOT, stdin=null, stdout=null, stderr=null)


def allow_open_files(wanted: int) -> int:
    """Raise the soft limit on open files, for servers too, as far as needed and allowed.

    Return how many connections one process can then have, at most `wanted`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    needed = wanted + SPARE_FILES
    if soft != unlimited and soft < needed:
        soft = needed if hard == unlimited else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == unlimited else min(wanted, soft - SPARE_FILES)
