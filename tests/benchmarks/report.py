"""The results as text: all figures for a terminal, and a table of ratios for the README."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from .commands import GREETER
from .results import Figures, Results

TITLES: Final = {
    "ping-pong-1": "ping-pong, 1 client: µs of CPU per greeting",
    "ping-pong-50": "ping-pong, {clients} clients: µs of CPU per greeting",
    "ping-pong-1000": "ping-pong, {crowd:,} clients: µs of CPU per greeting",
    "ping-pong-8000": "ping-pong, {multitude:,} clients: µs of CPU per greeting",
    "pipelined": "pipelined, {clients} clients, {names:,} names at a time: µs of CPU per greeting",
    "churn": "churn, connect - one name - exit: µs of CPU per conversation",
    "idle": "idle, {connections:,} connections: KiB of memory per connection",
    "start": "start: ms of CPU until the server listens",
    "core": "the core alone, chunks of 16 KiB: ns of CPU per name",
    "core-singly": "the core alone, one name an arrival: µs of CPU per name",
    "piped": "the client, {piped:,} names on standard input: µs of CPU per name",
}
COLUMNS: Final = {
    "ping-pong-1": "1 client",
    "ping-pong-50": "{clients}",
    "ping-pong-1000": "{crowd:,}",
    "ping-pong-8000": "{multitude:,}",
    "pipelined": "pipelined",
    "churn": "churn",
    "idle": "memory",
}
NOTES: Final = """\
Each server is measured beside the floor, a bare epoll loop: they take turns. A ratio is that of one
turn; figures and ratios are medians of the quieter half of the turns (those in which servers and
load spent the least time runnable without a CPU, because other processes had it), ratios with the
least and the greatest. Ratios can be compared with those of another machine, figures cannot.

CPU is what the kernel accounts for all threads of the server, user and system, between two readings
that enclose the load. The load runs on another CPU and never sleeps, so no server pays for waking
it. (Loopback delivery is accounted to the sender.) Wall throughput and latency are what the load
saw, with its own share. Memory is the growth in resident pages, without the kernel's socket
buffers. All servers but the floor have an idle timeout. Every byte of every reply was verified.
"""


@attrs.frozen
class Aim:
    """A limit for Greeter's ratio to the floor, as a multiple of that of another server."""

    title: str
    value: float | None
    limit: float

    def __str__(self) -> str:
        if self.value is None:
            return f"  {self.title} <= {self.limit:g}: not measured"
        verdict = "reached" if self.value <= self.limit else "missed"
        return f"  {self.title} <= {self.limit:g}: {verdict}, {_short(self.value)}"


def text(results: Results) -> str:
    """Return all figures, with a section for each load, and how far the aims are reached."""
    figures = results.figures()
    sections = [
        "\n".join(_section(load, results, of_servers)) for load, of_servers in figures.items()
    ]
    aims = "\n".join(map(str, _aims(figures)))
    return "\n\n".join([*sections, f"Aims of Greeter\n{aims}"]) + "\n"


def _section(load: str, results: Results, figures: Mapping[str, Figures]) -> Iterator[str]:
    yield TITLES[load].format_map(attrs.asdict(results.sizes))
    width = max(map(len, [*figures, *results.failed.get(load, {}), ""]))
    has_times = any(each.p99 is not None for each in figures.values())
    head = f"{'figure':>9}{'x floor':>9}  {'least - greatest':18}"
    yield f"  {'':{width}}{head}{'   per s   p50    p99 ms' if has_times else ''}   who is ahead"
    own = figures.get(GREETER)
    for name, each in sorted(figures.items(), key=lambda item: item[1].ratio):
        row = f"{_short(each.cost):>9}{_short(each.ratio):>9}  {_spread(each):18}"
        times = _times(each) if has_times else ""
        yield f"  {name:{width}}{row}{times}   {_ahead(name, each, own)}".rstrip()
    for name, why in results.failed.get(load, {}).items():
        yield f"  {name:{width}}  no figure: {why}"


def _times(figures: Figures) -> str:
    if figures.rate is None or figures.p50 is None or figures.p99 is None:
        return " " * 23
    return f"{figures.rate:8.0f}{_short(figures.p50):>7}{_short(figures.p99):>8}"


def _ahead(name: str, figures: Figures, greeter: Figures | None) -> str:
    if greeter is None or name == GREETER:
        return ""
    ratio = figures.ratio / greeter.ratio
    return f"Greeter {ratio:.2f} x" if ratio >= 1 else f"it {1 / ratio:.2f} x"


def _aims(figures: Mapping[str, Mapping[str, Figures]]) -> Iterator[Aim]:
    def ratio(load: str, name: str) -> float | None:
        found = figures.get(load, {}).get(name)
        return found.ratio if found else None

    few, many = (ratio(f"ping-pong-{number}", GREETER) for number in (50, 8000))
    growth = many / few if few and many else None
    yield Aim("growth from 50 to 8,000 clients, of that of the floor", growth, 1.3)
    piped = figures.get("piped", {}).get(GREETER)
    yield Aim("us per piped name", piped.cost if piped else None, 0.7)
    for load in COLUMNS:
        own = ratio(load, GREETER)
        for limit, names in (1, ("asyncio streams", "anyio", "Trio")), (1.5, ("threads", "gevent")):
            for name in names:
                other = ratio(load, name)
                value = own / other if own and other else None
                yield Aim(f"{load}: Greeter, of {name}", value, limit)


def markdown(results: Results, peers: Sequence[str], on_core: Sequence[str]) -> str:
    """Return the ratios to the floor as a table, with a row for each server; the least is bold."""
    figures = results.figures()
    least = {load: min(each.ratio for each in figures[load].values()) for load in COLUMNS}

    def cell(load: str, name: str) -> str:
        found = figures[load].get(name)
        if not found:
            return "-"
        shown = _short(found.ratio)
        return f"**{shown}**" if found.ratio == least[load] else shown

    sizes = attrs.asdict(results.sizes)
    titles = [title.format_map(sizes) for title in COLUMNS.values()]
    rows = [["CPU or memory, of a bare epoll loop", *titles]]
    rows.append(["---", *["--:"] * len(COLUMNS)])
    for name in (GREETER, *peers, *(f"{each} + core" for each in on_core)):
        title = "**Greeter**" if name == GREETER else name.replace("core", "`greeter_core`")
        rows.append([title, *(cell(load, name) for load in COLUMNS)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _spread(figures: Figures) -> str:
    return f"({_short(figures.least)} - {_short(figures.most)})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
