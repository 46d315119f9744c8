"""Servers as child processes, and what the kernel's accounting says of them.

It is read from /proc, so this runs on Linux only.
"""

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import attrs

ROOT = Path(__file__).parents[2]
PATIENCE = 10.0  # seconds that a server may take to start, and to end
_KEEP_AWAKE = """
import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
parent = os.getppid()
while os.getppid() == parent:
    pass
"""
SPARE_FILES = 64  # descriptors that a process has open besides its connections


@attrs.frozen
class Command:
    """Arguments for Python, and the directory to run it in, from which it imports first."""

    arguments: Sequence[str]
    directory: Path = ROOT

    def environment(self) -> Mapping[str, str]:
        paths = [str(self.directory), os.environ.get("PYTHONPATH", "")]
        return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def start(
        self, *more: str, log: int | IO[bytes] = subprocess.DEVNULL
    ) -> "subprocess.Popen[bytes]":
        """Start it, with more arguments, and with standard error in this file."""
        null = subprocess.DEVNULL
        return subprocess.Popen(
            [sys.executable, *self.arguments, *more],
            cwd=self.directory,
            env=self.environment(),
            stdin=null,
            stdout=null,
            stderr=log,
        )


class Process:
    """The kernel's accounting of one process."""

    def __init__(self, pid: int) -> None:
        self._proc = Path("/proc", str(pid))
        self._has_schedstat = (self._proc / "schedstat").exists()
        self._threads: dict[str, Sequence[int]] = {}  # the last figures of ended threads stay

    def cpu(self) -> int:
        """Return the CPU time of all threads so far, user and system, in nanoseconds.

        The kernel updates a thread's time when the thread goes to sleep. So this waits until two
        readings in a row are the same: then the process has finished what it does after its last
        reply.
        """
        give_up = time.monotonic() + PATIENCE
        last, now = -1, self.cpu_so_far()
        while last != now and time.monotonic() < give_up:
            time.sleep(0.005)
            last, now = now, self.cpu_so_far()
        return now

    def cpu_so_far(self) -> int:
        """Return the same for a process that need not go to sleep soon."""
        if self._has_schedstat:
            return sum(ran for ran, _ in self._schedstat())
        if sys.platform != "linux":
            raise NotImplementedError
        # In clock ticks, of 10 ms as a rule. The name of the program ends with ")".
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")

    def waited(self) -> int:
        """Return how long all threads were runnable without a CPU, in nanoseconds.

        Where the kernel keeps no such statistics this is 0.
        """
        return sum(waited for _, waited in self._schedstat())

    def memory(self) -> int:
        """Return the resident memory in KiB.

        This is not the proportional share (Pss), which changes when another process that uses the
        same libraries starts or ends. `smaps_rollup` counts pages; `status`, which is read where
        there is no such file, may lag behind.
        """
        try:
            text, label = (self._proc / "smaps_rollup").read_text(), "Rss:"
        except OSError:
            text, label = (self._proc / "status").read_text(), "VmRSS:"
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(label))

    def descriptors(self) -> int:
        """Return how many descriptors are open."""
        return sum(1 for _ in (self._proc / "fd").iterdir())

    def _schedstat(self) -> Iterable[Sequence[int]]:
        """Return for each thread how long it ran, and how long it was runnable without a CPU."""
        for task in (self._proc / "task").iterdir():
            with contextlib.suppress(OSError):  # the thread has ended, or there are no statistics
                fields = (task / "schedstat").read_text().split()
                self._threads[task.name] = [*map(int, fields[:2])]
        return self._threads.values()


class ServerProcess(Process):
    """A server that listens."""

    def __init__(self, popen: "subprocess.Popen[bytes]") -> None:
        super().__init__(popen.pid)
        self.popen = popen
        self.pid = popen.pid
        self.port = self._wait_for_port()

    def _wait_for_port(self) -> int:
        """Wait until the process listens, and return the port.

        A server may say so in a log, but logs go to /dev/null, where they cost least.
        """
        give_up = time.monotonic() + PATIENCE
        while self.popen.poll() is None and time.monotonic() < give_up:
            with contextlib.suppress(OSError):  # a descriptor was closed meanwhile
                descriptors = {str(path.readlink()) for path in (self._proc / "fd").iterdir()}
                for line in (self._proc / "net" / "tcp").read_text().splitlines()[1:]:
                    fields = line.split()
                    is_listening = fields[3] == "0A"
                    if is_listening and f"socket:[{fields[9]}]" in descriptors:
                        return int(fields[1].partition(":")[2], 16)
            time.sleep(0.01)
        status = self.popen.poll()
        raise RuntimeError(f"does not listen, its exit status is {status}: {self.popen.args!r}")


@contextlib.contextmanager
def running(*commands: Command) -> Iterator[list[ServerProcess]]:
    """Run servers for as long as the context lasts: all on one CPU, and this process on another.

    Left to the scheduler, server and load would sometimes share a CPU and sometimes not, and the
    same work costs twice as much in one case as in the other. So does a greeting that a single
    client waits for: whether the servers' CPU falls asleep meanwhile is chance. So a process that
    runs only when no other does (SCHED_IDLE, sched(7)) keeps it awake.
    """
    if sys.platform != "linux":
        raise NotImplementedError
    cpus = os.sched_getaffinity(0)
    popens = []
    try:
        for command in (Command(["-c", _KEEP_AWAKE]), *commands):
            popens.append(command.start())
            os.sched_setaffinity(popens[-1].pid, {max(cpus)})
        servers = [*map(ServerProcess, popens[1:])]
        os.sched_setaffinity(0, {min(cpus)})
        yield servers
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


def allow_open_files(wanted: int) -> int:
    """Raise the soft limit on open files, which servers inherit, as far as needed and allowed.

    Return how many connections one process can then have, at most `wanted`.
    """
    if sys.platform != "linux":
        raise NotImplementedError
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    needed = wanted + SPARE_FILES
    if soft != unlimited and soft < needed:
        soft = needed if hard == unlimited else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == unlimited else min(wanted, soft - SPARE_FILES)
