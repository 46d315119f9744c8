"""One measurement: a server under one load, and beside it the floor, which take turns.

A figure of a busy machine means little, but a ratio does: both did the same work within the same
second or so, and what else went on affected both.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import attrs

from tests.support.accounting import ROOT, Process, ServerProcess, running
from tests.support.crowds import WrongReplyError, exchange

from .commands import FLOOR, GREETER, Server
from .core import CORE, WrongOutputError
from .workloads import WORKLOADS, Measure, Measured, Sizes

CLIENTS: Final[Mapping[str, Sequence[str]]] = {
    GREETER: ["-m", "greeter_trio", "client", "--port"],
    "naive": ["-m", "tests.benchmarks.frameworks.naive_client"],
}
_PATIENCE = 120.0  # seconds that a client may take
_MOMENT = 0.5  # seconds that a server that has closed its connections may take to end


class MeasuringError(Exception):
    """There is no figure; the message says why in one sentence."""


@attrs.frozen
class Turn:
    """One figure of a server, and one of the floor."""

    measured: Measured
    floor: float
    waited: float
    """Seconds that servers and load were runnable without a CPU, for each second."""

    @property
    def ratio(self) -> float:
        """How many times the cost of the floor that is."""
        return self.measured.cost / self.floor


def measure_server(load: str, server: Server, sizes: Sizes, turns: int) -> list[Turn]:
    """Measure a server, so many times. Raises `MeasuringError`."""
    if server.missing:
        raise MeasuringError(f"not installed: {', '.join(server.missing)}")
    try:
        if load == "start":
            return [_of_start(server) for _ in range(turns)]
        with running(FLOOR.command, server.command) as both:
            try:
                return _measure_both(load, both, sizes, turns)
            except (OSError, WrongReplyError) as exc:
                with suppress(subprocess.TimeoutExpired):
                    status = both[1].popen.wait(_MOMENT)
                    raise MeasuringError(f"the server has ended, with status {status}") from exc
                raise
    except (OSError, RuntimeError, WrongReplyError) as exc:
        raise MeasuringError(str(exc) or type(exc).__name__) from exc


def _measure_both(load: str, both: Sequence[ServerProcess], sizes: Sizes, turns: int) -> list[Turn]:
    with ExitStack() as stack:
        floor, measure = (stack.enter_context(WORKLOADS[load](each, sizes)) for each in both)
        return _take_turns(floor, measure, both, 1 if load == "idle" else turns)


def measure_core(load: str, turns: int) -> list[Turn]:
    """Measure the core alone beside a naive loop."""
    try:
        return _take_turns(CORE[load]["loop"], CORE[load]["core"], [], turns)
    except WrongOutputError as exc:
        raise MeasuringError(str(exc)) from exc


def measure_client(sizes: Sizes, turns: int) -> list[Turn]:
    """Measure a client that has many names piped through it, beside a naive one."""
    names = exchange(0, sizes.piped)[0]
    greetings = b"".join(b"Hello %b!\n" % name for name in names.splitlines())
    with tempfile.NamedTemporaryFile() as file, running(FLOOR.command) as (server,):
        file.write(names)
        file.flush()

        def measure(client: str) -> Callable[[], Measured]:
            return lambda: _of_client(client, server.port, Path(file.name), greetings, sizes)

        try:
            return _take_turns(measure("naive"), measure(GREETER), [server], turns)
        except (OSError, subprocess.SubprocessError, RuntimeError) as exc:
            raise MeasuringError(str(exc)) from exc


def _of_client(client: str, port: int, names: Path, greetings: bytes, sizes: Sizes) -> Measured:
    """Return the CPU time of a client for each name, in µs, without that of its start."""
    runs = ((names, greetings), (Path("/dev/null"), b""))
    spent = [_cpu_of_client(client, port, path, expected) for path, expected in runs]
    return Measured(cost=(spent[0] - spent[1]) * 1e6 / sizes.piped, count=sizes.piped)


def _cpu_of_client(client: str, port: int, names: Path, expected: bytes) -> float:
    program = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(used.ru_utime + used.ru_stime, file=sys.stderr); sys.exit(done.returncode)"
    )
    command = [sys.executable, "-c", program, sys.executable, *CLIENTS[client], str(port)]
    with names.open("rb") as stdin, tempfile.TemporaryFile() as stdout:
        done = subprocess.run(
            command,
            cwd=ROOT,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        said = done.stderr.splitlines()
        stdout.seek(0)
        is_right = stdout.read() == expected
    if done.returncode or not is_right:
        why = said[-2] if len(said) > 1 else "it printed other greetings"
        raise RuntimeError(f"the {client} client: {why}")
    return float(said[-1])


def _of_start(server: Server) -> Turn:
    """Return the CPU time until a server listens, in ms."""
    costs = []
    for each in (FLOOR, server):
        with running(each.command) as (process,):
            costs.append(process.cpu() / 1e6)
    return Turn(Measured(cost=costs[1], count=1), costs[0], 0.0)


def _take_turns(
    floor: Measure, measure: Measure, servers: Sequence[Process], turns: int
) -> list[Turn]:
    processes = [*servers, Process(_own_pid())]
    found = []
    for number in range(turns):
        start, waited = time.monotonic_ns(), sum(each.waited() for each in processes)
        if number % 2:
            measured, cost = measure(), floor().cost
        else:
            cost, measured = floor().cost, measure()
        waited = sum(each.waited() for each in processes) - waited
        found.append(Turn(measured, cost, waited / (time.monotonic_ns() - start)))
    return found


def _own_pid() -> int:
    return int(Path("/proc/self").readlink().name)
