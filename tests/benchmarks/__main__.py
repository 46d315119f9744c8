"""Measure Greeter beside a bare epoll loop and other frameworks: `python -m tests.benchmarks`."""

import argparse
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs

from tests.support.accounting import Command, Process, allow_open_files, running

from .commands import SERVERS, WrongCheckoutError, checkout, not_installed
from .core import CORE
from .report import NOTES, Figures, Turn, table
from .workloads import WORKLOADS, Measure, Sizes

QUICK: Final = Sizes(exchanges=30, crowd_exchanges=10, blocks=4, conversations=40, connections=400)
LOADS: Final = (*WORKLOADS, *CORE)
BASE: Final = next(iter(SERVERS))


def collect(
    servers: Mapping[str, Command], loads: Iterable[str], sizes: Sizes, *, rounds: int, turns: int
) -> Figures:
    """Measure the servers under each load: so many rounds, of so many turns each.

    In one round a load has all servers running, and they take turns, of a fraction of a second
    each, so that other activity of the machine affects all of them. They are started anew for each
    load and round, since the layout of a process's memory affects its speed for as long as it runs.
    """
    figures: defaultdict[str, list[Turn]] = defaultdict(list)
    for number in range(rounds):
        for load in loads:
            sys.stderr.write(f"round {number + 1} of {rounds}: {load}\n")
            if load in CORE:
                figures[load] += [_turn(CORE[load]) for _ in range(turns)]
                continue
            with running(*servers.values()) as processes, ExitStack() as stack:
                measures = {
                    name: stack.enter_context(WORKLOADS[load](process, sizes))
                    for name, process in zip(servers, processes, strict=True)
                }
                numbers = range(number, number + (1 if load == "idle" else turns))
                figures[load] += [_turn(measures, processes, first) for first in numbers]
    return figures


def _turn(measures: Mapping[str, Measure], servers: Sequence[Process] = (), first: int = 0) -> Turn:
    """Measure each server once, beginning with another one each time."""
    processes, names = [*servers, Process(os.getpid())], [*measures]
    first %= len(names)
    start, waited = time.monotonic_ns(), sum(process.waited() for process in processes)
    costs = {name: measures[name]() for name in names[first:] + names[:first]}
    waited = sum(process.waited() for process in processes) - waited
    elapsed = time.monotonic_ns() - start
    return Turn({name: costs[name].cost for name in names}, waited / elapsed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    add = parser.add_argument
    quick = "measure less, for rough figures in less than a minute"
    add("--quick", action="store_true", help=quick)
    often = "how often to measure everything (default: 5; with --quick 2)"
    add("--rounds", metavar="N", type=_positive, help=often)
    only = f"measure these loads only, of {', '.join(LOADS)}"
    add("--only", metavar="LOAD,...", type=_some_of(LOADS), default=LOADS, help=only)
    some = f"measure these servers and {BASE} only, of {', '.join(SERVERS)}"
    of_servers = _some_of(SERVERS, always=BASE)
    add("--servers", metavar="SERVER,...", type=of_servers, default=[*SERVERS], help=some)
    compare = "measure the Greeter in this directory, too; can be repeated"
    add("--compare", metavar="DIR", action="append", default=[], type=Path, help=compare)
    args = parser.parse_args()
    if not Path("/proc/self/stat").exists():
        parser.exit(1, "The benchmarks read the CPU time of servers from /proc, as Linux has it.\n")
    missing = not_installed(args.servers)
    servers = {name: SERVERS[name] for name in args.servers if name not in missing}
    for path in args.compare:
        name = f"greeter@{path.resolve().name}"
        if name in servers:
            parser.error(f"argument --compare: two directories would be {name}")
        try:
            servers[name] = checkout(path)
        except WrongCheckoutError as exc:
            parser.error(f"argument --compare: {exc}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the servers
    sizes = QUICK if args.quick else Sizes()
    sizes = attrs.evolve(
        sizes,
        crowd=allow_open_files(sizes.crowd * len(servers)) // len(servers),
        connections=allow_open_files(sizes.connections),
    )
    turns, rounds = (3, args.rounds or 2) if args.quick else (4, args.rounds or 5)
    figures = collect(servers, args.only, sizes, rounds=rounds, turns=turns)
    sys.stdout.write(f"{table(figures, sizes)}\n{NOTES}")
    if missing:
        sys.stdout.write(f"\nNot installed, and left out: {', '.join(missing)}.\n")
    if sys.platform == "linux" and len(os.sched_getaffinity(0)) == 1:
        sys.stdout.write("\nServers and load shared a single CPU: the figures mean nothing.\n")


def _positive(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"not a whole number, 1 or more: {text!r}")


def _some_of(names: Collection[str], always: str = "") -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        chosen = {*text.split(",")}
        if unknown := chosen - {*names}:
            raise argparse.ArgumentTypeError(
                f"not one of {', '.join(names)}: {', '.join(sorted(unknown))!r}"
            )
        return [name for name in names if name in chosen or name == always]

    return parse


if __name__ == "__main__":
    main()
