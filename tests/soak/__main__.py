"""Keep a server under bad loads for a while, and see whether all holds: `python -m tests.soak`."""

import argparse
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import attrs

from tests.support.accounting import Command, allow_open_files
from tests.support.crowds import WrongReplyError

from .connections import descriptors, idle, resets
from .deaf import deaf
from .drain import drain, restart
from .drippers import drippers
from .finding import QUICK, Finding, Scenario, Sizes
from .hostile import hostile
from .recorded import recorded

GREETER: Final = Command(["-m", "greeter_trio"])
SCENARIOS: Final[Mapping[str, Scenario]] = {
    scenario.__name__: scenario
    for scenario in (idle, drain, drippers, deaf, resets, descriptors, restart, recorded, hostile)
}
NOTES = """\
Times are those that the load saw, with its own share. On a machine that has other things to do they
are too long, and the worst of them say more about the machine than about the server. So the
drippers are judged by the median of several turns. Memory is growth in resident pages, without the
kernel's socket buffers.
"""


def findings(scenario: Scenario, sizes: Sizes, command: Command = GREETER) -> Iterable[Finding]:
    """Run a scenario; what it raises is a finding, too."""
    try:
        yield from scenario(sizes, command)
    except (OSError, RuntimeError, WrongReplyError) as exc:
        raised = f"{type(exc).__name__}: {exc}"
        yield Finding("the scenario could not go on", raised, "no error", holds=False)


def main() -> int:
    """Run the scenarios and print what they found; return 1 if something does not hold, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    names = ", ".join(SCENARIOS)
    add = parser.add_argument
    add("scenarios", nargs="*", metavar="SCENARIO", help=f"{names} (default: all of them)")
    add("--quick", action="store_true", help="do less of everything, in less than a minute")
    args = parser.parse_args()
    for name in args.scenarios:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name!r}: choose from {names}")
    if not Path("/proc/self/fd").exists():
        parser.exit(1, "The soak reads what it must know of the server from /proc, as on Linux.\n")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the servers
    sizes = _allowed(QUICK if args.quick else Sizes())
    failures = 0
    for name in args.scenarios or SCENARIOS:
        print(f"\n{name}: {SCENARIOS[name].__doc__}")
        start = time.monotonic()
        for finding in findings(SCENARIOS[name], sizes):
            print(finding, flush=True)
            failures += not finding.holds
        print(f"        {time.monotonic() - start:.0f} s")
    print(f"\n{NOTES}\n{f'{failures} findings do not hold.' if failures else 'All of it holds.'}")
    return 1 if failures else 0


def _allowed(sizes: Sizes) -> Sizes:
    """Return as much of it as this process may have descriptors for."""
    allowed = allow_open_files(sizes.idle + sizes.active) - sizes.active
    if allowed < sizes.idle:
        limit = f"the limit on open files allows {allowed} idle clients only"
        print(f"{limit}, not {sizes.idle}", file=sys.stderr)
    crowds = {name: min(getattr(sizes, name), allowed) for name in ("idle", "drippers", "deaf")}
    return attrs.evolve(sizes, **crowds)


if __name__ == "__main__":
    raise SystemExit(main())
