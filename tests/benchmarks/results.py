"""The results of a run: kept in a file after each measurement, so that a run can be resumed."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import attrs

from .measuring import Turn
from .workloads import Measured, Sizes

VERSION = 1


class ResultsError(Exception):
    """A file of results cannot be used; the message says why."""


@attrs.frozen
class Figures:
    """What the turns of one server under one load come to: medians, and how far they spread."""

    cost: float
    ratio: float
    """The median of the turns' ratios to the floor."""
    least: float
    """The least ratio."""
    most: float
    """The greatest ratio."""
    rate: float | None
    p50: float | None
    p99: float | None
    waited: float

    @classmethod
    def of(cls, turns: Sequence[Turn]) -> Self:
        """Return those of the quieter half of the turns, if there are several."""
        quiet = sorted(turns, key=lambda turn: turn.waited)[: (len(turns) + 1) // 2]

        def median(name: str) -> float | None:
            values = [getattr(turn.measured, name) for turn in quiet]
            return None if None in values else statistics.median(values)

        ratios = [turn.ratio for turn in quiet]
        return cls(
            statistics.median(turn.measured.cost for turn in quiet),
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            median("rate"),
            median("p50"),
            median("p99"),
            statistics.median(turn.waited for turn in quiet),
        )


@attrs.define
class Results:
    """What was measured, by load and server; or why there is no figure."""

    sizes: Sizes
    turns: dict[str, dict[str, list[Turn]]] = attrs.field(factory=dict)
    rounds: dict[str, dict[str, int]] = attrs.field(factory=dict)
    failed: dict[str, dict[str, str]] = attrs.field(factory=dict)

    def figures(self) -> Mapping[str, Mapping[str, Figures]]:
        """Return all figures, by load and server."""
        return {
            load: {name: Figures.of(turns) for name, turns in of_servers.items()}
            for load, of_servers in self.turns.items()
        }

    def is_done(self, load: str, server: str, number: int) -> bool:
        """Return whether this was measured in that round, or cannot be."""
        is_hopeless = server in self.failed.get(load, {})
        return is_hopeless or self.rounds.get(load, {}).get(server, 0) > number

    def add(self, load: str, server: str, turns: Sequence[Turn]) -> None:
        """Take the turns of one more round."""
        self.turns.setdefault(load, {}).setdefault(server, []).extend(turns)
        rounds = self.rounds.setdefault(load, {})
        rounds[server] = rounds.get(server, 0) + 1

    def fail(self, load: str, server: str, why: str) -> None:
        """Take note that there is no figure. Those of earlier rounds are dropped."""
        self.failed.setdefault(load, {})[server] = why
        self.turns.get(load, {}).pop(server, None)

    def forget_failures(self) -> None:
        """Have what has failed measured again, in all rounds: something may have been mended."""
        for load, of_servers in self.failed.items():
            for server in of_servers:
                self.rounds.get(load, {}).pop(server, None)
        self.failed.clear()

    def write(self, file: Path) -> None:
        """Replace the file."""
        new = file.with_name(f"{file.name}.new")
        new.write_text(json.dumps({"version": VERSION, **attrs.asdict(self)}, indent=1) + "\n")
        new.replace(file)

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read what `write` has written. Raises `ResultsError`."""
        try:
            fields: dict[str, Any] = json.loads(file.read_text("utf-8"))
            if fields["version"] != VERSION:
                raise ResultsError(f"{file} is of version {fields['version']}, not {VERSION}")
            turns = {
                load: {
                    name: [
                        Turn(Measured(**turn["measured"]), turn["floor"], turn["waited"])
                        for turn in each
                    ]
                    for name, each in of_servers.items()
                }
                for load, of_servers in fields["turns"].items()
            }
            sizes = Sizes(**fields["sizes"])
            return cls(sizes, turns, fields["rounds"], fields["failed"])
        except OSError as exc:
            raise ResultsError(f"cannot read {file}: {exc.strerror}") from exc
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            raise ResultsError(f"{file} has no results of this program") from exc
