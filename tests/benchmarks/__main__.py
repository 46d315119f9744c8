"""Measure Greeter beside a bare epoll loop and asyncio streams: `python -m tests.benchmarks`."""

import argparse
import os
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import attrs

from .core import CORE
from .load import LOADS, Measure, Sizes
from .process import SERVERS, Process, allow_open_files, running

QUICK = Sizes(exchanges=30, blocks=4, conversations=40, connections=400)


@attrs.frozen
class Turn:
    """All servers under one load, one after another."""

    costs: Mapping[str, float]  # for each server, in the load's unit
    waited: float  # seconds that servers and load waited for a CPU which other processes had, for each second


Figures: TypeAlias = Mapping[str, Sequence[Turn]]
"""All turns of each load."""

TITLES = {
    "ping-pong": "ping-pong, {clients} clients: microseconds of CPU per greeting",
    "in step": "ping-pong in step, {clients} clients: microseconds of CPU per greeting",
    "pipelined": "pipelined, {clients} clients, {names:,} names at a time: microseconds of CPU per greeting",
    "churn": "churn, connect - one name - exit: microseconds of CPU per conversation",
    "idle": "idle, {connections:,} connections: KiB of memory per connection",
    "core": "the core alone, chunks of 64 KiB: nanoseconds of CPU per name",
    "core, singly": "the core alone, one name at a time: microseconds of CPU per exchange",
}
AIMS = {
    ("ping-pong", "greeter"): "ratio <= 2.2",
    ("pipelined", "greeter"): "ratio <= 0.6",
    ("core", "core"): "<= 60 ns",
}
NOTES = """\
Figures are medians, with the least and the greatest, of the quieter half of the turns: those in which servers and load
had to wait least for a CPU that other processes had. How much of the time that still was, is said with each load. Where
it is more than a little, figures for CPU are too high, and their ratios too. Every byte of every reply was verified.

CPU is what the kernel booked for all threads of the server, user and system, between two readings that enclose the
load. The load's own CPU does not count, nor does waiting. (What the kernel does at once on behalf of a sender, such as
to deliver over loopback, counts for the sender.) Memory is growth in resident pages; the kernel's socket buffers do
not count. Figures belong to this machine, this Python and this hour.

The ratio is to the first line of each load, turn by turn. Both figures of a ratio are for the same bytes, on the same
machine, within the same second. So it is the ratio that can be compared with another machine's: it says how many bare
loops one has to pay for. "epoll" and "loop" handle each chunk name by name.

In plain ping-pong a client that is fast enough has sent its next name before the server looks for it; in step it never
has, as where there is a network in between.
"""


def collect(sizes: Sizes, *, rounds: int, turns: int) -> Figures:
    """Measure everything: so many rounds, of so many turns each.

    In one round a load has every server running, and they take turns, a fraction of a second each. So whatever else
    goes on on the machine meets all of them. For each load of each round the servers are fresh processes, since one
    process has the same luck with the layout of its memory for as long as it lives.
    """
    figures: defaultdict[str, list[Turn]] = defaultdict(list)
    for number in range(rounds):
        sys.stderr.write(f"round {number + 1} of {rounds}\n")
        first = number % len(SERVERS)
        names = [*SERVERS][first:] + [*SERVERS][:first]
        for load, prepare in LOADS.items():
            with running(*map(SERVERS.__getitem__, names)) as servers, ExitStack() as stack:
                measures = {
                    name: stack.enter_context(prepare(server, sizes))
                    for name, server in zip(names, servers, strict=True)
                }
                figures[load] += [_turn(measures, servers) for _ in range(1 if load == "idle" else turns)]
        for load, pair in CORE.items():
            figures[load] += [_turn(pair) for _ in range(turns)]
    return figures


def _turn(measures: Mapping[str, Measure], servers: Sequence[Process] = ()) -> Turn:
    processes = [*servers, Process(os.getpid())]
    start, waited = time.monotonic_ns(), sum(process.waited() for process in processes)
    costs = {name: measure().cost for name, measure in measures.items()}
    waited = sum(process.waited() for process in processes) - waited
    return Turn(costs, waited / (time.monotonic_ns() - start))


def table(figures: Figures, sizes: Sizes) -> str:
    """Return the figures as text."""
    lines = [f"{'':10}{'median':>8}  {'least - greatest':19}{'ratio':>6}  {'least - greatest':17}  aim"]
    for load, title in TITLES.items():
        turns = sorted(figures[load], key=lambda turn: turn.waited)
        turns = turns[: (len(turns) + 1) // 2]
        lines += [
            "",
            f"{title.format_map(attrs.asdict(sizes))} (waited: {statistics.median(turn.waited for turn in turns):.0%})",
        ]
        base, *others = CORE.get(load, SERVERS)
        for name in base, *others:
            costs = [turn.costs[name] for turn in turns]
            ratios = [turn.costs[name] / turn.costs[base] for turn in turns]
            line = f"  {name:8}{_spread(costs, 8)}  {_spread(ratios, 6)}  {AIMS.get((load, name), '')}"
            lines.append(line.rstrip())
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], width: int) -> str:
    spread = f"({_short(min(values))} - {_short(max(values))})"
    return f"{_short(statistics.median(values)):>{width}}  {spread:17}"


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def main() -> None:
    """Run the benchmarks and print what they found."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=_positive, help="how often to measure everything (default 5; 2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="measure less, in some seconds; the figures are rough")
    parser.add_argument("--clients", type=_positive, default=50, help="how many clients greet (default 50)")
    args = parser.parse_args()
    if not Path("/proc/self/stat").exists():
        parser.exit(1, "The benchmarks read the CPU time of servers from /proc, as Linux has it.\n")
    sizes = QUICK if args.quick else Sizes()
    sizes = attrs.evolve(sizes, clients=args.clients, connections=allow_open_files(sizes.connections))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # not without ending the servers
    figures = collect(sizes, rounds=args.rounds or (2 if args.quick else 5), turns=3 if args.quick else 6)
    sys.stdout.write(f"{table(figures, sizes)}\n{NOTES}")


def _positive(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    msg = f"not a whole number, 1 or more: {text!r}"
    raise argparse.ArgumentTypeError(msg)


if __name__ == "__main__":
    main()
