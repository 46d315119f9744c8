"""Measure Greeter beside a bare epoll loop and other frameworks: `python -m tests.benchmarks`."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from tests.support.accounting import allow_open_files

from .commands import GREETER, SERVERS, Server, WrongCheckoutError, checkout
from .core import CORE
from .measuring import MeasuringError, Turn, measure_client, measure_core, measure_server
from .plot import PlotError, plot
from .readme import update
from .report import COLUMNS, NOTES, text
from .results import Results, ResultsError
from .workloads import WORKLOADS, Sizes

QUICK: Final = Sizes(
    names_in_turn=600,
    crowd=200,
    multitude=400,
    blocks=2,
    conversations=40,
    connections=400,
    piped=50_000,
)
LOADS: Final = (*WORKLOADS, "start", "piped", *CORE)


def collect(
    results: Results,
    servers: Mapping[str, Server],
    loads: Collection[str],
    *,
    rounds: int,
    turns: int,
) -> Iterator[None]:
    """Measure the servers under each load, so many times; yield after each measurement.

    What the results have already is left out.
    """
    todo = [
        (number, load, name)
        for number in range(rounds)
        for load in loads
        for name in _rows(load, servers)
        if not results.is_done(load, name, number)
    ]
    start = time.monotonic()
    for done, (number, load, name) in enumerate(todo):
        if results.is_done(load, name, number):
            continue  # it has failed in an earlier round
        left = (
            f"{(time.monotonic() - start) / done * (len(todo) - done) / 60:.0f} min"
            if done
            else "?"
        )
        where = f"{done + 1} of {len(todo)}, {left} left"
        sys.stderr.write(f"round {number + 1}, {load}, {name} ({where})\n")
        try:
            results.add(load, name, _measure(load, name, servers, results.sizes, turns))
        except MeasuringError as exc:
            results.fail(load, name, str(exc))
        yield


def _rows(load: str, servers: Mapping[str, Server]) -> Collection[str]:
    return [GREETER] if load == "piped" or load in CORE else [*servers]


def _measure(
    load: str, name: str, servers: Mapping[str, Server], sizes: Sizes, turns: int
) -> list[Turn]:
    if load in CORE:
        return measure_core(load, turns)
    if load == "piped":
        return measure_client(sizes, turns)
    return measure_server(load, servers[name], sizes, turns)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="measure less, for rough figures")
    add("--rounds", metavar="N", type=_positive, default=3, help="default: %(default)s")
    only = f"measure these loads only, of {', '.join(LOADS)}"
    add("--only", metavar="LOAD,...", type=_some_of(LOADS), default=LOADS, help=only)
    some = f"measure these servers only, of {', '.join(SERVERS)}"
    add("--servers", metavar="SERVER,...", type=_some_of(SERVERS), default=[*SERVERS], help=some)
    compare = "measure the Greeter in this directory, too; can be repeated"
    add("--compare", metavar="DIR", action="append", default=[], type=Path, help=compare)
    kept = "keep the results here, and go on with those that are there"
    add("--json", metavar="FILE", type=Path, help=kept)
    add("--plot", metavar="FILE.svg", type=Path, help="draw them, too (needs matplotlib)")
    add("--readme", action="store_true", help="put the table into README.md")
    return parser


def main() -> None:
    parser = _parser()
    args = parser.parse_args()
    if not Path("/proc/self/stat").exists():
        parser.exit(1, "The benchmarks read the CPU time of servers from /proc, as Linux has it.\n")
    servers = _servers(parser, args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the servers
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # installed programs are compiled
    sizes = QUICK if args.quick else Sizes()
    sizes = attrs.evolve(
        sizes,
        multitude=allow_open_files(2 * sizes.multitude) // 2,
        connections=allow_open_files(sizes.connections),
    )
    results = _results(parser, args.json, sizes)
    try:
        for _ in collect(results, servers, args.only, rounds=args.rounds, turns=2):
            if args.json:
                results.write(args.json)
        if args.plot:
            plot(results, args.plot)
    except KeyboardInterrupt:
        parser.exit(128 + signal.SIGINT)
    except (OSError, PlotError) as exc:
        parser.exit(1, f"{exc}\n")
    sys.stdout.write(f"{text(results)}\n{NOTES}")
    if sys.platform == "linux" and len(os.sched_getaffinity(0)) == 1:
        sys.stdout.write("\nServers and load shared a single CPU: the figures mean nothing.\n")
    if args.readme:
        if missing := {*COLUMNS} - {*results.turns}:
            parser.exit(1, f"README.md takes all loads: {', '.join(sorted(missing))} are missing\n")
        update(results)


def _servers(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, Server]:
    servers = {name: SERVERS[name] for name in args.servers}
    for path in args.compare:
        name = f"greeter@{path.resolve().name}"
        if name in servers:
            parser.error(f"argument --compare: two directories would be {name}")
        try:
            servers[name] = checkout(path)
        except WrongCheckoutError as exc:
            parser.error(f"argument --compare: {exc}")
    return servers


def _results(parser: argparse.ArgumentParser, file: Path | None, sizes: Sizes) -> Results:
    if file is None or not file.exists():
        return Results(sizes)
    try:
        results = Results.read(file)
    except ResultsError as exc:
        parser.error(f"argument --json: {exc}")
    if results.sizes != sizes:
        parser.error(f"argument --json: {file} was measured with other sizes")
    results.forget_failures()
    return results


def _positive(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"not a whole number, 1 or more: {text!r}")


def _some_of(names: Collection[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        chosen = {*text.split(",")}
        if unknown := chosen - {*names}:
            raise argparse.ArgumentTypeError(
                f"not one of {', '.join(names)}: {', '.join(sorted(unknown))!r}"
            )
        return [name for name in names if name in chosen]

    return parse


if __name__ == "__main__":
    main()
