"""The command line: `python -m greeter_trio serve` and `client`."""

import argparse
import errno
import logging
import math
import os
import re
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import trio

from greeter_core import ClientConfig, ClientConnection, Framing, LocalProtocolError, ServerConfig, __version__

from . import _console, _tool
from ._errors import ExitStatus
from ._server import logger, serve_greeter
from ._text import complain, settle_output

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = "6000"

_SERVER_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CLIENT_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # the terminal is put in order first

_ADVICE = {
    errno.ECONNREFUSED: "is the server running, and on this port?",
    errno.EADDRINUSE: "choose another --port, or 0 for any free one",
    errno.EADDRNOTAVAIL: "this machine has no such address; check --host or GREETER_HOST",
    errno.EACCES: "ports below 1024 need privileges; choose another --port",
}

_STATUS = """\
exit status:
  0    done
  1    failed: cannot connect or listen, connection lost, protocol violation,
       refused, bad input
  2    wrong usage
  3    timed out
  130  interrupted by Ctrl-C (128 + N: ended by signal N)
"""

_ENVIRONMENT = """\
environment:
  GREETER_HOST, GREETER_PORT   instead of the defaults of --host and --port
"""

_SERVE_EPILOG = f"""\
SIGINT (Ctrl-C) and SIGTERM end it: every client is told goodbye.

{_STATUS}
{_ENVIRONMENT}
examples:
  python -m greeter_trio serve                  for this machine only
  python -m greeter_trio serve --host 0.0.0.0   for all its networks
  python -m greeter_trio serve --port 0         on a free port, which is logged
"""

_CLIENT_DESCRIPTION = """\
Have names greeted by a server. With NAMEs, or with names on standard input,
it is a tool that prints one greeting a line. On a terminal it is a
conversation."""

_CLIENT_EPILOG = f"""\
{_STATUS}
{_ENVIRONMENT}
examples:
  python -m greeter_trio client                 a conversation on this terminal
  python -m greeter_trio client Ada Grace       prints two greetings
  python -m greeter_trio client < names.txt     one name a line
  python -m greeter_trio client -- --x--        a name that begins with a dash
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it is None where the descriptor is closed
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        arguments = _parser().parse_args(argv)
        _fill_in(arguments)
        return int(arguments.run(arguments))
    finally:
        settle_output()


# Arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m greeter_trio",
        description="A TCP greeting service: tell it names, and it greets them.",
        epilog="`python -m greeter_trio COMMAND --help` shows the options of a command, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"greeter {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add = partial(commands.add_parser, formatter_class=argparse.RawDescriptionHelpFormatter)
    serve = add("serve", help="run the server", description="Greet whoever connects.", epilog=_SERVE_EPILOG)
    client = add(
        "client",
        help="talk to a server",
        description=_CLIENT_DESCRIPTION,
        epilog=_CLIENT_EPILOG,
    )
    for command in (serve, client):
        where = "to listen on" if command is serve else "of the server"
        command.add_argument("--host", help=f"address {where} (default: {DEFAULT_HOST})")
        command.add_argument("--port", help=f"TCP port {where} (default: {DEFAULT_PORT})")
        command.add_argument(
            "--framing",
            choices=[framing.value for framing in Framing],
            default=Framing.AUTO.value,
            help="how names end: lines, raw (one packet, one name), or auto: find out (default: auto)",
        )
    serve.add_argument(
        "--idle-timeout",
        type=_seconds,
        default=ServerConfig().idle_timeout,
        metavar="SECONDS",
        help="how long a client may go without a name; inf for ever (default: %(default)g)",
    )
    serve.set_defaults(parser=serve, run=_serve, lowest_port=0)
    client.add_argument(
        "--timeout",
        type=_seconds,
        default=ClientConfig().reply_timeout,
        metavar="SECONDS",
        help="how long connecting, and each answer, may take; inf for ever (default: %(default)g)",
    )
    client.add_argument("--json", action="store_true", help="print each greeting as a JSON object")
    client.add_argument("names", nargs="*", metavar="NAME", help="a name to be greeted; `exit` may come last")
    client.set_defaults(parser=client, run=_client, lowest_port=1)
    return parser


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:  # NaN is not, either
        msg = f"must be a number of seconds, more than 0, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return seconds


def _fill_in(arguments: argparse.Namespace) -> None:
    """Set host and port to what was given, or to the environment's, or to the default."""
    if arguments.host is None:
        arguments.host = os.environ.get("GREETER_HOST") or DEFAULT_HOST
    if not arguments.host:
        arguments.parser.error("--host must not be empty")
    source = "--port"
    if arguments.port is None and os.environ.get("GREETER_PORT"):
        source = "GREETER_PORT"
        arguments.port = os.environ[source]
    text = DEFAULT_PORT if arguments.port is None else arguments.port
    lowest: int = arguments.lowest_port
    if not (re.fullmatch("[0-9]{1,5}", text) and lowest <= int(text) <= 65535):
        arguments.parser.error(f"{source} must be a whole number from {lowest} to 65535, not {text!r}")
    arguments.port = int(text)


# Commands


def _serve(arguments: argparse.Namespace) -> int:
    handler = logging.StreamHandler()  # to standard error, flushed after each line
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    config = ServerConfig(framing=Framing(arguments.framing), idle_timeout=arguments.idle_timeout)
    try:
        return trio.run(_serve_until_signal, arguments.host, arguments.port, config)
    finally:
        logger.removeHandler(handler)


async def _serve_until_signal(host: str, port: int, config: ServerConfig) -> ExitStatus:
    shutdown = trio.Event()
    status = ExitStatus.DONE
    async with trio.open_nursery() as nursery:
        await nursery.start(_at_first_signal, _SERVER_SIGNALS, lambda _: shutdown.set(), signal.SIG_DFL)
        try:
            await serve_greeter(host, port, config=config, shutdown=shutdown)
        except (OSError, UnicodeError) as exc:
            complain(f"cannot listen on {host} port {port}: {_explain(exc)}")
            status = ExitStatus.FAILED
        nursery.cancel_scope.cancel()
    return status


def _client(arguments: argparse.Namespace) -> int:
    parser: argparse.ArgumentParser = arguments.parser
    names = [os.fsencode(name) for name in arguments.names]
    if b"exit" in names[:-1]:
        parser.error("`exit` ends the conversation, so no NAME can follow it")
    try:  # a connection that goes nowhere knows what a name is
        ClientConnection(now=0.0).send_names([name for name in names if name != b"exit"], now=0.0)
    except LocalProtocolError as exc:
        parser.error(f"NAME: {exc}")
    if sys.stdin is None and not names:
        parser.error("standard input is closed: give NAMEs as arguments, or names on standard input")
    if sys.stdout is None:
        complain("standard output is closed: there is nowhere to print greetings to")
        return ExitStatus.FAILED
    config = ClientConfig(framing=Framing(arguments.framing), reply_timeout=arguments.timeout)
    if names or not sys.stdin.isatty():
        converse = partial(_tool.converse, config=config, names=names, as_json=arguments.json)
    else:
        converse = partial(_console.converse, config=config)
    return trio.run(_converse_until_signal, arguments.host, arguments.port, arguments.timeout, converse)


async def _converse_until_signal(
    host: str, port: int, patience: float, converse: Callable[[trio.abc.Stream], Awaitable[ExitStatus]]
) -> int:
    status = 0

    def interrupt(number: int) -> None:
        nonlocal status
        status = 128 + number
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(_at_first_signal, _CLIENT_SIGNALS, interrupt, signal.SIG_IGN)
        status = await _converse(host, port, patience, converse)
        nursery.cancel_scope.cancel()
    return status


async def _converse(
    host: str, port: int, patience: float, converse: Callable[[trio.abc.Stream], Awaitable[ExitStatus]]
) -> ExitStatus:
    with trio.move_on_after(patience) as connecting:
        try:
            stream = await trio.open_tcp_stream(host, port)
        except (OSError, UnicodeError) as exc:
            complain(f"cannot connect to {host} port {port}: {_explain(exc)}")
            return ExitStatus.FAILED
    if connecting.cancelled_caught:
        complain(f"cannot connect to {host} port {port}: no answer within {patience:g} s")
        return ExitStatus.TIMED_OUT
    async with stream:
        return await converse(stream)


async def _at_first_signal(
    numbers: Sequence[signal.Signals],
    act: Callable[[int], None],
    afterwards: signal.Handlers,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Act at the first of these signals. What a second one does is up to `afterwards`: end the process, or nothing."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup wants it
        numbers = [number for number in numbers if number != signal.SIGHUP]
    for each in numbers:
        signal.signal(each, afterwards)  # the receiver puts this back
    with trio.open_signal_receiver(*numbers) as signals:
        task_status.started()
        number = await anext(signals)
    act(number)


def _explain(exc: Exception) -> str:
    """Return what went wrong with an address, and what to do about it."""
    cause = exc.__cause__ or exc  # trio.open_tcp_stream has the errors of all attempts there
    causes = cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause,)
    lines = []
    for each in causes:
        if isinstance(each, OSError) and not isinstance(each, socket.gaierror):
            text, advice = os.strerror(each.errno or 0), _ADVICE.get(each.errno or 0, "")
        else:  # the host's name
            advice = "check --host or GREETER_HOST"
            text = getattr(each, "strerror", None) or str(each)
        lines.append(f"{text} ({advice})" if advice else text)
    return "; ".join(dict.fromkeys(lines))
