"""See whether a server conforms: `python -m tests.conformance HOST PORT`."""

import argparse
import shlex
import signal
import sys
from collections.abc import Sequence

import trio

from greeter_core import ServerConfig

from .checking import Check, run_checks
from .configuration import config_from_json
from .corpus import CorpusError
from .kit import TOLERANCE, checks
from .targets import DEFAULTS, Running, Started, Target, TargetError

_EPILOG = """\
A server that runs already is taken to have the default configuration. COMMAND is started once for
each configuration that a check needs, with the options --port 0 --config JSON --send-timeout
SECONDS. It has to print one line, "listening on ADDRESS:PORT", and to end in good order when it
gets SIGTERM. JSON is the "config" of a transcript. Exit status: 0 if all checks have passed that
can be made, 1 if not, 2 for wrong usage or a damaged file of the corpus.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options, target = _parsed(arguments)
    try:
        rounds = checks(only=options.only, tolerance=options.tolerance)
    except CorpusError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    if not any(rounds):
        sys.stderr.write(f"there is no check with {options.only!r} in its name\n")
        return 2
    if options.list:
        for check in (*rounds[0], *rounds[1]):
            print(check)
        return 0
    return trio.run(_run, target, rounds, options.verbose)


async def _run(target: Target, rounds: tuple[list[Check], ...], verbose: bool) -> int:  # noqa: FBT001
    """Run the checks, and print the report; a signal ends the servers, too."""
    status = 1

    async def end_at_signal(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal status
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                status = 128 + number
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(end_at_signal)
        try:
            report = await run_checks(target, rounds)
        except TargetError as exc:
            sys.stderr.write(f"{exc}\n")
        else:
            sys.stdout.write(report.text(verbose=verbose))
            status = 0 if report.conforms else 1
        nursery.cancel_scope.cancel()
    return status


def _parsed(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Target]:
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description=__doc__,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("host", nargs="?", metavar="HOST", help="where the server runs")
    add("port", nargs="?", type=_port, metavar="PORT")
    add("--start", type=_command, metavar="COMMAND", help="start the server by this instead")
    what = "the configuration of the server that runs (default: {})"
    add("--config", type=_config, metavar="JSON", help=what)
    patience = "how long that server waits when it cannot send"
    add("--send-timeout", type=_seconds, metavar="SECONDS", help=patience)
    late = "how late a word may come (default: %(default)s)"
    add("--tolerance", type=_seconds, default=TOLERANCE, metavar="SECONDS", help=late)
    add("--only", default="", metavar="TEXT", help="only the checks that have this in their names")
    add("--list", action="store_true", help="print the names of the checks, and do nothing")
    add("--verbose", action="store_true", help="name all checks that are left out")
    options = parser.parse_args(arguments)
    if options.start is not None:
        for name in ("host", "config", "send_timeout"):
            if getattr(options, name) is not None:
                parser.error(f"--start gives the server its {name.replace('_', '-')}")
        return options, Started(options.start)
    if options.port is None and not options.list:
        parser.error("it takes HOST and PORT, or --start COMMAND")
    config = options.config or DEFAULTS
    return options, Running(options.host, options.port, config, options.send_timeout)


def _command(text: str) -> list[str]:
    try:
        command = shlex.split(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{exc}: {text!r}") from None
    if not command:
        raise argparse.ArgumentTypeError("no command")
    return command


def _port(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"not a port: {text!r}")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if 0 < seconds < 86400:
        return seconds
    raise argparse.ArgumentTypeError(f"not a number of seconds, more than 0: {text!r}")


def _config(text: str) -> ServerConfig:
    try:
        return config_from_json(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"no configuration: {exc}") from None


if __name__ == "__main__":
    raise SystemExit(main())
