"""Keep a real server under bad loads for a while, and see whether all holds: `python -m tests.soak`."""

import argparse
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import attrs

from tests.benchmarks.load import WrongReplyError
from tests.benchmarks.process import allow_open_files

from .deaf import deaf
from .descriptors import descriptors
from .drain import drain
from .drippers import drippers
from .finding import Finding, Scenario, Sizes
from .idle import idle
from .resets import resets
from .restart import restart

GREETER: Final = ("-m", "greeter_trio")
SCENARIOS: Final[Mapping[str, Scenario]] = {
    "idle": idle,
    "drain": drain,
    "drippers": drippers,
    "deaf": deaf,
    "resets": resets,
    "descriptors": descriptors,
    "restart": restart,
}
QUICK = Sizes(
    idle=500,
    active=20,
    idle_seconds=5,
    drains=4,
    drippers=200,
    drip_turns=3,
    drip_seconds=1,
    deaf=100,
    deaf_seconds=2,
    send_timeout=1,
    resets=200,
    places=20,
    starved_seconds=3,
    restarts=1,
)
NOTES = """\
Times are those that the load saw, with its own share. On a machine that has other things to do they
are too long, and the worst of them say more about the machine than about the server. So the
drippers are judged by the median of several turns. Memory is growth in resident pages, without the
kernel's socket buffers.
"""


def findings(
    scenario: Scenario, sizes: Sizes, command: Iterable[str] = GREETER
) -> Iterable[Finding]:
    """Run a scenario. What it raises is a finding, too."""
    try:
        yield from scenario(sizes, tuple(command))
    except (OSError, RuntimeError, WrongReplyError) as exc:
        yield Finding(
            "the scenario could not go on", f"{type(exc).__name__}: {exc}", "no error", holds=False
        )


def line(finding: Finding) -> str:
    """Return the finding as a line of a table."""
    verdict = "" if not finding.expected else "ok" if finding.holds else "FAILS"
    text = f"  {verdict:6}{finding.what:54}  {finding.figure}"
    return f"{text} (expected: {finding.expected})\n" if finding.expected else f"{text}\n"


def main() -> int:
    """Run the scenarios, print what they found, and return 1 if anything does not hold, or else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    names = ", ".join(SCENARIOS)
    parser.add_argument(
        "scenarios", nargs="*", metavar="SCENARIO", help=f"{names} (default: all of them)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="do less of everything, in less than a minute"
    )
    args = parser.parse_args()
    for name in args.scenarios:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name!r}: choose from {names}")
    if not Path("/proc/self/fd").exists():
        parser.exit(
            1, "The soak reads what it needs to know of the server from /proc, as Linux has it.\n"
        )
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # not without ending the servers
    sizes = _allowed(QUICK if args.quick else Sizes())
    failures = 0
    for name in args.scenarios or SCENARIOS:
        scenario = SCENARIOS[name]
        sys.stdout.write(f"\n{name}: {scenario.__doc__}\n")
        start = time.monotonic()
        for finding in findings(scenario, sizes):
            sys.stdout.write(line(finding))
            sys.stdout.flush()
            failures += not finding.holds
        sys.stdout.write(f"        {time.monotonic() - start:.0f} s\n")
    sys.stdout.write(
        f"\n{NOTES}\n{f'{failures} findings do not hold.' if failures else 'All of it holds.'}\n"
    )
    return 1 if failures else 0


def _allowed(sizes: Sizes) -> Sizes:
    """Return as much of it as this process may have descriptors for."""
    allowed = allow_open_files(sizes.idle + sizes.active) - sizes.active
    if allowed < sizes.idle:
        sys.stderr.write(
            f"Only {allowed} idle clients, not {sizes.idle}: the limit on open files allows no more.\n"
        )
    crowds = {name: min(getattr(sizes, name), allowed) for name in ("idle", "drippers", "deaf")}
    return attrs.evolve(sizes, **crowds)


if __name__ == "__main__":
    raise SystemExit(main())
