"""The table: figures, ratios to the base, and the aims with verdicts."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

from .workloads import Sizes


@attrs.frozen
class Turn:
    """One measurement of each server under one workload."""

    costs: Mapping[str, float]  # of each server, in the workload's unit
    waited: float  # seconds that servers and load were runnable without a CPU, per second


Figures: TypeAlias = Mapping[str, Sequence[Turn]]
"""All turns of each workload."""


@attrs.frozen
class Aim:
    """A limit for the cost of a server, or for its ratio to the cost of another one."""

    server: str
    limit: float
    base: str | None = None

    def __str__(self) -> str:
        return f"{self.server} <= {self.limit:g}" + (f" x {self.base}" if self.base else "")


TITLES: Final = {
    "ping-pong": "ping-pong, {clients} clients: µs of CPU per greeting",
    "ping-pong-1000": "ping-pong, {crowd:,} clients: µs of CPU per greeting",
    "pipelined": "pipelined, {clients} clients, {names:,} names at a time: µs of CPU per greeting",
    "churn": "churn, connect - one name - exit: µs of CPU per conversation",
    "idle": "idle, {connections:,} connections: KiB of memory per connection",
    "core": "the core alone, chunks of 16 KiB: ns of CPU per name",
    "core-singly": "the core alone, one name an arrival: µs of CPU per name",
}
AIMS: Final[Mapping[str, Sequence[Aim]]] = {
    "ping-pong": [
        Aim("greeter", 2.2, "epoll"),
        *(Aim("greeter", 1, base) for base in ("streams", "trio", "twisted", "gevent")),
        Aim("recorded", 3, "greeter"),
    ],
    "ping-pong-1000": [Aim("greeter", 2.3, "epoll")],
    "pipelined": [Aim("greeter", 0.5, "epoll")],
    "churn": [Aim("greeter", 1.3, "asyncio")],
    "idle": [Aim("greeter", 5.5)],
    "core": [Aim("core", 0.5, "loop")],
    "core-singly": [Aim("core", 3.2, "loop")],
}
NOTES: Final = """\
Figures are medians, with the least and the greatest, of the quieter half of the turns: those in
which servers and load spent the least time runnable without a CPU, because other processes had it.
How much of the time that still was, is given with each workload ("waited"). Where it is more than a
little, figures and ratios are too high.

CPU is what the kernel accounts for all threads of the server, user and system, between two readings
that enclose the load. The load runs on another CPU and never sleeps, so no server pays for waking
it. (Loopback delivery is accounted to the sender.) Memory is the growth in resident pages, without
the kernel's socket buffers.

A ratio is taken within a turn, in which both servers did the same work within the same second or
so. Ratios can be compared with those of another machine, figures cannot. All servers but epoll have
an idle timeout. Every byte of every reply was verified.
"""


def table(figures: Figures, sizes: Sizes) -> str:
    """Return the figures as text, with a section for each workload."""
    width = max(len(name) for turns in figures.values() for name in turns[0].costs)
    head = f"  {'':{width}}{'median':>9}  {'least - greatest':18}{'ratio':>7}  least - greatest\n"
    sections = [
        "\n".join(_section(load, TITLES[load].format_map(attrs.asdict(sizes)), turns, width))
        for load, turns in figures.items()
    ]
    return head + "\n" + "\n\n".join(sections) + "\n"


def _section(load: str, title: str, turns: Sequence[Turn], width: int) -> Iterator[str]:
    turns = sorted(turns, key=lambda turn: turn.waited)[: (len(turns) + 1) // 2]
    waited = statistics.median(turn.waited for turn in turns)
    yield f"{title} (waited: {waited:.0%})"
    base, *_ = names = [*turns[0].costs]
    for name in names:
        costs = [turn.costs[name] for turn in turns]
        ratios = _ratios(turns, name, base)
        figures = f"{_median(costs):>9}  {_spread(costs):18}{_median(ratios):>7}  {_spread(ratios)}"
        yield f"  {name:{width}}{figures}"
    for name in names:
        if name.startswith("greeter@") and "greeter" in names:
            ratios = _ratios(turns, "greeter", name)
            yield f"  greeter = {_median(ratios)} x {name}  {_spread(ratios)}"
    for aim in AIMS[load]:
        yield f"  aim: {aim!s:26}  {_verdict(aim, turns)}"


def _verdict(aim: Aim, turns: Sequence[Turn]) -> str:
    if not {aim.server, aim.base or aim.server} <= {*turns[0].costs}:
        return "not measured"
    costs = [turn.costs[aim.server] for turn in turns]
    values = _ratios(turns, aim.server, aim.base) if aim.base else costs
    return f"{'reached' if statistics.median(values) <= aim.limit else 'missed'}: {_median(values)}"


def _ratios(turns: Sequence[Turn], name: str, base: str) -> list[float]:
    return [turn.costs[name] / turn.costs[base] for turn in turns]


def _median(values: Sequence[float]) -> str:
    return _short(statistics.median(values))


def _spread(values: Sequence[float]) -> str:
    return f"({_short(min(values))} - {_short(max(values))})"


def _short(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"
