"""Change the product in one place at a time and run the tests: `python -m tests.mutants`."""

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from .changes import Mutant, draw, find

assert sys.platform != "win32"  # for groups of processes, and limits to their memory

LIMIT: Final = 120.0  # seconds for a run of pytest, or as long as all of them take without a mutant
MEMORY: Final = 4 << 30  # bytes for a process: some mutants fill a list in an endless loop
UNCOPIED: Final = shutil.ignore_patterns(".git", "__pycache__", "*venv*", ".*_cache", ".hypothesis")
APART: Final = ("soak", "benchmarks", "paths", "recipes", "mutants")


def groups(root: Path, mutant: Mutant) -> list[list[str]]:
    """Return the tests that concern a mutant: of its name, of its folder, others, the core's."""
    home = Path(mutant.place).parent.name.removeprefix("greeter").strip("_")
    found: dict[int, list[str]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        folder = path.relative_to(root / "tests").parts[0]
        if folder in APART or home == "core" != folder:
            continue
        near = mutant.module.strip("_")[:6] in path.name
        order = 3 if folder == "core" != home else 0 if near else 1 if folder == home else 2
        found.setdefault(order, []).append(str(path.relative_to(root)))
    return [found[order] for order in sorted(found)]


def failure(copy: Path, tests: Sequence[str], limit: float) -> str:
    """Run tests in a copy of the checkout, and return the first that fails."""
    options = ("-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0")
    shutil.rmtree(copy / ".hypothesis", ignore_errors=True)  # what it kept of the last mutant
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            return f"no end within {limit:.0f} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what the tests have started
            process.wait()
        output.seek(0)
        failed = re.search(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", output.read(), re.MULTILINE)
    return "" if status in {0, 5} else failed[1] if failed else f"exit status {status}"


def decide(copy: Path, mutant: Mutant, limit: float) -> str:
    """Say which test notices the mutant."""
    path = copy / mutant.place.partition(":")[0]
    text = path.read_bytes()
    path.write_bytes(mutant.text or text)
    try:
        for tests in groups(copy, mutant):
            failed = failure(copy, tests, limit)
            # A test that fails must fail again: some depend on how busy the machine is.
            if failed and "::" in failed and not failure(copy, [failed], limit):
                failed = failure(copy, tests, limit)
            if failed:
                return f"killed by {failed}"
    finally:
        path.write_bytes(text)
    return "SURVIVED"


def decide_all(args: argparse.Namespace, results: dict[Mutant, str]) -> None:
    """Run the tests with each mutant that has no result yet, and note and print its result."""
    todo = [mutant for mutant, result in results.items() if not result]
    pending, lock, limit = iter(todo), threading.Lock(), LIMIT

    def work(copy: Path) -> None:
        for mutant in pending:
            result = decide(copy, mutant, limit)
            with lock:
                results[mutant] = result
                print(f"{result}: {mutant.title()}", flush=True)
                _write(args.json, results)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        copies = [Path(folder, str(number)) for number in range(args.jobs)]
        for copy in copies:
            shutil.copytree(args.root, copy, ignore=UNCOPIED)
        for mutant in {mutant.package: mutant for mutant in todo}.values():
            start = time.monotonic()
            unchanged = decide(copies[0], mutant._replace(text=b""), 5 * LIMIT)
            limit = max(limit, time.monotonic() - start)
            if unchanged != "SURVIVED":
                sys.exit(f"Without a mutant: {unchanged}")
        list(pool.map(work, copies))


def main() -> None:
    """Draw mutants, or take an earlier sample, and run the tests with each."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    add = parser.add_argument
    add("--number", type=int, default=120, help="how many mutants (default: %(default)s)")
    add("--seed", type=int, default=1, help="of the sample (default: %(default)s)")
    add("--only", default="", metavar="TEXT", help="part of `path:line function: old -> new`")
    add("--list", action="store_true", help="show the sample and run nothing")
    add("--root", type=Path, default=Path(__file__).parents[2], help="the checkout to test")
    add("--sample", type=Path, metavar="FILE", help="take the mutants from what --json wrote")
    add("--json", type=Path, metavar="FILE", help="write results here, and keep those there are")
    add("--jobs", type=int, default=1, help="how many mutants at a time (default: %(default)s)")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    found = {mutant[:6]: mutant for mutant in find(args.root)}
    sample = [Mutant(*row[:-1]) for row in _read(args.sample)]
    wanted = [mutant for mutant in sample or found.values() if args.only in mutant.title()]
    decided = {tuple(row[:6]): row[-1] for row in _read(args.json) if row[-1] != "NOT FOUND"}
    results: dict[Mutant, str] = {}
    for mutant in wanted if sample else draw(wanted, args.number, args.seed):
        here = found.get(mutant[:6], mutant)  # where it is now
        results[here] = decided.get(here[:6], "") if here.text else "NOT FOUND"
        if args.list or not here.text:
            print(f"{results[here] or 'undecided'}: {here.title()}")
    _write(args.json, results)
    if not args.list:
        decide_all(args, results)
    counts = Counter(result.partition(" ")[0] or "undecided" for result in results.values())
    print(", ".join(f"{number} {result}" for result, number in counts.items()))


def _read(file: Path | None) -> list[list[Any]]:
    return json.loads(file.read_text()) if file and file.exists() else []


def _write(file: Path | None, results: dict[Mutant, str]) -> None:
    if file:
        rows = [[*mutant[:-1], result] for mutant, result in results.items()]
        file.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
