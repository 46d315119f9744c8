"""The results as a picture: for each load the ratios to the floor, as dots."""

import importlib
from pathlib import Path
from typing import Any, Final

import attrs

from .commands import GREETER, ON_CORE, PEERS
from .report import COLUMNS
from .results import Figures, Results

_INK: Final = "#24292f"
_PALE: Final = "#d0d7de"
_GREETER: Final = "#d9480f"
_PEER: Final = "#6e7781"
_CORE: Final = "#1971c2"
_TITLES: Final = {
    **COLUMNS,
    **{load: f"ping-pong, {title} clients" for load, title in COLUMNS.items() if "-" in load},
    "ping-pong-1": "ping-pong, 1 client",
    "churn": "connect, one name, exit",
    "idle": "memory of an idle connection",
}


class PlotError(Exception):
    """There can be no picture; the message says why."""


def plot(results: Results, file: Path) -> None:
    """Draw the results, and write them as SVG. Raises `PlotError`."""
    try:
        matplotlib: Any = importlib.import_module("matplotlib")
        matplotlib.use("svg")
        pyplot: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError as exc:
        raise PlotError("the plot needs matplotlib, of the extra `bench`") from exc
    # The same results are the same bytes; text stays text.
    matplotlib.rcParams.update(
        {"svg.hashsalt": "greeter", "svg.fonttype": "none", "font.family": "sans-serif"}
    )
    figures, sizes = results.figures(), attrs.asdict(results.sizes)
    names = [GREETER, *PEERS]
    fig, axes = pyplot.subplots(2, 4, figsize=(13, 7.4), sharey=True, layout="constrained")
    for ax, (load, title) in zip(axes.flat, _TITLES.items(), strict=False):
        _draw(ax, title.format_map(sizes), figures.get(load, {}), names)
    for row in axes:
        row[0].get_yticklabels()[0].set(fontweight="bold", color=_GREETER)
    _explain(axes.flat[-1])
    try:
        fig.savefig(file, format="svg", facecolor="white", metadata={"Date": None})
    except OSError as exc:
        raise PlotError(f"cannot write {file}: {exc.strerror}") from exc
    finally:
        pyplot.close(fig)


def _draw(ax: Any, title: str, figures: dict[str, Figures] | Any, names: list[str]) -> None:
    ax.set_title(title, fontsize=11, color=_INK, loc="left")
    ax.set_xscale("log")
    ax.set_yticks(range(len(names)), ["Greeter", *names[1:]], color=_INK)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="x", which="major", color=_PALE, linewidth=0.6)
    ax.tick_params(length=0, labelsize=9)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(_PALE)
    if own := figures.get(GREETER):
        ax.axvline(own.ratio, color=_GREETER, linewidth=1, alpha=0.5)
        _dot(ax, own, 0, _GREETER, "D")
    for row, name in enumerate(names[1:], 1):
        if peer := figures.get(name):
            _dot(ax, peer, row - 0.12, _PEER, "o")
        if name in ON_CORE and (adapter := figures.get(f"{name} + core")):
            _dot(ax, adapter, row + 0.16, _CORE, "s")
    ax.margins(x=0.12)
    ax.xaxis.set_major_locator(_ticks())
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.minorticks_off()


def _ticks() -> Any:
    return importlib.import_module("matplotlib.ticker").LogLocator(subs=(1, 2, 5))


def _dot(ax: Any, figures: Figures, row: float, colour: str, marker: str) -> None:
    ax.plot([figures.least, figures.most], [row, row], color=colour, linewidth=1.4, alpha=0.6)
    ax.plot([figures.ratio], [row], marker=marker, markersize=6, color=colour)


def _explain(ax: Any) -> None:
    ax.axis("off")
    rows = [
        (_GREETER, "D", "Greeter, as it is installed"),
        (_PEER, "o", "a naive server of that framework"),
        (_CORE, "s", "the framework with greeter_core"),
    ]
    for number, (colour, marker, text) in enumerate(rows):
        ax.plot([0.05], [1.0 + 1.4 * number], marker=marker, markersize=7, color=colour)
        ax.text(0.12, 1.0 + 1.4 * number, text, va="center", color=_INK, fontsize=10)
    notes = (
        "Times the cost of a bare epoll loop\nin the same run (log scale; left is\n"
        "better). Median, least and greatest."
    )
    ax.text(0.03, 5.4, notes, va="top", color=_INK, fontsize=10)
    ax.set_xlim(0, 1)
