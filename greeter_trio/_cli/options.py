"""What can be said on the command line, and in the environment instead."""

import argparse
import math
import os
import re
from collections.abc import Callable, Sequence
from functools import partial

from greeter_core import (
    ClientConfig,
    ClientConnection,
    Framing,
    LocalProtocolError,
    ServerConfig,
    __version__,
)
from greeter_trio._net.listeners import parse_endpoint
from greeter_trio._service.limits import Limits, WhenFull

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = "6000"

_ENVIRONMENT = """\
environment:
  GREETER_HOST, GREETER_PORT   instead of the defaults of --host and --port
"""

_SERVE_EPILOG = f"""\
signals:
  SIGINT (Ctrl-C), SIGTERM   shut down: every client is told goodbye; a second
                             one ends the server at once
  SIGHUP                     with --tls-cert: load the certificate again;
                             otherwise the same as SIGTERM
  SIGUSR1                    write counters to the log
  SIGBREAK (Ctrl-Break)      on Windows, which lacks the last two: shut down

exit status:
  0    shut down in good order
  1    failed: cannot listen, or a file cannot be used
  2    wrong usage
  3    shut down, but conversations had to be cut off when --grace ran out
  130  ended by a second Ctrl-C (128 + N: by signal N)

{_ENVIRONMENT}
examples:
  python -m greeter_trio serve                  for this machine only
  python -m greeter_trio serve --host 0.0.0.0   for all its networks
  python -m greeter_trio serve --port 0         on a free port, which is logged
  python -m greeter_trio serve --listen [::]:6000 --listen unix:greeter.sock
  python -m greeter_trio serve --tls-cert cert.pem --tls-key key.pem
"""

_CLIENT_DESCRIPTION = """\
Have names greeted by a server. With NAMEs, with names on standard input, or
with --json it is a tool that prints one greeting a line. On a terminal it is
a conversation."""

_CLIENT_EPILOG = f"""\
exit status:
  0    done
  1    failed: cannot connect, connection lost, protocol violation, refused,
       bad input
  2    wrong usage
  3    timed out
  130  interrupted by Ctrl-C (128 + N: ended by signal N)

{_ENVIRONMENT}
examples:
  python -m greeter_trio client                 a conversation on this terminal
  python -m greeter_trio client Ada Grace       prints two greetings
  python -m greeter_trio client < names.txt     one name a line
  python -m greeter_trio client -- --x--        a name that begins with a dash
  python -m greeter_trio client --retry-for 30 probe   waits for a server
  python -m greeter_trio client --host greet.example --tls --json probe
  python -m greeter_trio client --host unix:greeter.sock Ada
"""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what was said, with what was left out filled in; exit with status 2 where it makes no sense."""
    arguments = _parser().parse_args(argv)
    check: Callable[[argparse.Namespace], None] = arguments.check
    check(arguments)
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m greeter_trio",
        description="A TCP greeting service: tell it names, and it greets them.",
        epilog="`python -m greeter_trio COMMAND --help` shows the options of a command, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"greeter {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    add = partial(commands.add_parser, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_serve(
        add(
            "serve",
            help="run the server",
            description="Greet whoever connects.",
            epilog=_SERVE_EPILOG,
        )
    )
    _add_client(
        add(
            "client",
            help="talk to a server",
            description=_CLIENT_DESCRIPTION,
            epilog=_CLIENT_EPILOG,
        )
    )
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(error=parser.error, check=_check_serve)
    limits, config = Limits(), ServerConfig()
    where = parser.add_argument_group("where it listens")
    where.add_argument("--host", help=f"address to listen on (default: {DEFAULT_HOST})")
    where.add_argument(
        "--port", help=f"TCP port to listen on; 0 for any free one (default: {DEFAULT_PORT})"
    )
    where.add_argument(
        "--listen",
        action="append",
        type=_endpoint,
        metavar="WHERE",
        help="HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N, instead of --host and --port; can be repeated",
    )
    where.add_argument(
        "--reuse-port", action="store_true", help="share the port with other servers (SO_REUSEPORT)"
    )
    where.add_argument(
        "--port-file", metavar="PATH", help="write the TCP port there, once it is open"
    )

    whom = parser.add_argument_group("how it talks")
    _add_framing(whom)
    _add_seconds(
        whom, "--idle-timeout", config.idle_timeout, "how long a client may go without a name"
    )
    _add_seconds(whom, "--max-lifetime", config.max_lifetime, "how long a conversation may last")
    whom.add_argument(
        "--tls-cert", metavar="FILE", help="speak TLS, with this certificate (PEM, with its chain)"
    )
    whom.add_argument(
        "--tls-key", metavar="FILE", help="its private key, if that is not in the same file"
    )
    whom.add_argument(
        "--tls-client-ca",
        metavar="FILE",
        help="want a certificate of clients, signed by one of these",
    )
    whom.add_argument(
        "--proxy-protocol",
        choices=["off", "require"],
        default="off",
        help="require: each connection begins with a PROXY header, version 1 or 2 (default: off)",
    )

    bounds = parser.add_argument_group("limits")
    bounds.add_argument(
        "--max-connections",
        type=_count,
        default=limits.max_connections,
        metavar="N",
        help="how many clients are served at the same time (default: %(default)d)",
    )
    bounds.add_argument(
        "--when-full",
        choices=[choice.value for choice in WhenFull],
        default=limits.when_full.value,
        help="further clients wait, or are told so and rejected (default: %(default)s)",
    )
    _add_seconds(
        bounds,
        "--handshake-timeout",
        limits.handshake_timeout,
        "for a PROXY header and a TLS handshake",
    )
    _add_seconds(
        bounds,
        "--send-timeout",
        limits.send_timeout,
        "how long a client may take for 64 KiB of what it is sent",
    )
    _add_seconds(
        bounds,
        "--drain-delay",
        limits.drain_delay,
        "how long to accept after a signal to shut down",
        _delay,
    )
    _add_seconds(bounds, "--grace", limits.grace, "how long conversations may then take to end")

    log = parser.add_argument_group("log, on standard error")
    log.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        help="what is worth a line; debug: every event of every conversation (default: info)",
    )
    log.add_argument(
        "--log-format",
        choices=["text", "json"],
        default="text",
        help="json: an object a line (default: text)",
    )


def _add_client(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(error=parser.error, check=_check_client)
    config = ClientConfig()
    parser.add_argument(
        "--host",
        help=f"address of the server, or unix:PATH, which has no port (default: {DEFAULT_HOST})",
    )
    parser.add_argument("--port", help=f"TCP port of the server (default: {DEFAULT_PORT})")
    _add_framing(parser)
    _add_seconds(
        parser, "--timeout", config.reply_timeout, "how long connecting, and each answer, may take"
    )
    _add_seconds(
        parser, "--retry-for", 0.0, "how long to try again until a server says its welcome", _delay
    )
    parser.add_argument(
        "--tls", action="store_true", help="speak TLS; the certificate must be for --host"
    )
    parser.add_argument(
        "--ca", metavar="FILE", help="certificates to trust, instead of the system's"
    )
    parser.add_argument("--cert", metavar="FILE", help="a certificate to show to the server")
    parser.add_argument(
        "--key", metavar="FILE", help="its private key, if that is not in the same file"
    )
    parser.add_argument(
        "--send-proxy", choices=["v1", "v2"], help="send a PROXY header first, of this version"
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object for each name, greeted or not"
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="a name to be greeted; `exit` may come last"
    )


def _add_framing(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    parser.add_argument(
        "--framing",
        choices=[framing.value for framing in Framing],
        default=Framing.AUTO.value,
        help="how names end: lines, raw (one packet, one name), or auto: find out (default: auto)",
    )


def _add_seconds(
    parser: "argparse.ArgumentParser | argparse._ArgumentGroup",
    option: str,
    default: float,
    meaning: str,
    kind: "Callable[[str], float] | None" = None,
) -> None:
    for_ever = "" if kind is _delay else "; inf for ever"
    parser.add_argument(
        option,
        type=kind or _seconds,
        default=default,
        metavar="SECONDS",
        help=f"{meaning}{for_ever} (default: {default:g})",
    )


# Types


def _seconds(text: str) -> float:
    return _number(text, "a number of seconds, more than 0", lambda seconds: seconds > 0)


def _delay(text: str) -> float:
    return _number(
        text, "a finite number of seconds, 0 or more", lambda seconds: 0 <= seconds < math.inf
    )


def _number(text: str, right: str, is_right: Callable[[float], bool]) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan  # which is never right
    if not is_right(number):
        msg = f"must be {right}, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return number


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) < 1:
        msg = f"must be a whole number, 1 or more, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _endpoint(text: str) -> object:
    try:
        return parse_endpoint(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


# What only makes sense together, and the environment


def _check_serve(arguments: argparse.Namespace) -> None:
    if arguments.listen and (arguments.host, arguments.port) != (None, None):
        arguments.error("--listen says where to listen: leave out --host and --port")
    if arguments.tls_cert is None:
        _want(arguments, "--tls-cert", "--tls-key", "--tls-client-ca")
    arguments.only_if_not_activated = (arguments.listen, arguments.host, arguments.port) == (
        None,
        None,
        None,
    )
    _fill_in(arguments, lowest_port=0)


def _check_client(arguments: argparse.Namespace) -> None:
    arguments.names = [os.fsencode(name) for name in arguments.names]
    if b"exit" in arguments.names[:-1]:
        arguments.error("`exit` ends the conversation, so no NAME can follow it")
    try:  # a connection that goes nowhere knows what a name is
        ClientConnection(now=0.0).send_names(
            [name for name in arguments.names if name != b"exit"], now=0.0
        )
    except LocalProtocolError as exc:
        arguments.error(f"NAME: {exc}")
    if not arguments.tls:
        _want(arguments, "--tls", "--ca", "--cert", "--key")
    if arguments.cert is None:
        _want(arguments, "--cert", "--key")
    _fill_in(arguments, lowest_port=1)
    if arguments.host.startswith("unix:"):
        try:
            parse_endpoint(arguments.host)
        except ValueError as exc:
            arguments.error(f"--host: {exc}")
        if arguments.tls:
            arguments.error(
                f"--tls needs a host that a certificate can be for, not {arguments.host}"
            )


def _want(arguments: argparse.Namespace, wanted: str, *options: str) -> None:
    """Exit if any of these options was given, because it makes no sense without the one that is wanted."""
    for option in options:
        if getattr(arguments, option.removeprefix("--").replace("-", "_")) is not None:
            arguments.error(f"{option} needs {wanted}")


def _fill_in(arguments: argparse.Namespace, lowest_port: int) -> None:
    """Set host and port to what was given, or to the environment's, or to the default."""
    if arguments.host is None:
        arguments.host = os.environ.get("GREETER_HOST") or DEFAULT_HOST
    if not arguments.host:
        arguments.error("--host must not be empty")
    source = "--port"
    if arguments.port is None and os.environ.get("GREETER_PORT"):
        source = "GREETER_PORT"
        arguments.port = os.environ[source]
    text = DEFAULT_PORT if arguments.port is None else arguments.port
    if not (re.fullmatch("[0-9]{1,5}", text) and lowest_port <= int(text) <= 65535):
        arguments.error(
            f"{source} must be a whole number from {lowest_port} to 65535, not {text!r}"
        )
    arguments.port = int(text)
