"""The options of `client`, and the environment behind them, as a frozen object."""

import math
import os
import re
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial

import attrs

from greeter_core import ClientConfig, Framing
from greeter_trio import Limits
from greeter_trio._net.endpoints import Tcp, Unix, parse_port, parse_unix, split_host

from .names import problem_with
from .parser import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    ENVIRONMENT,
    Arguments,
    Parser,
    file_name,
    number_for,
    whole_number,
)


@attrs.frozen(kw_only=True)
class ClientTls:
    """The files of a client that speaks TLS; without any, the system's CAs are trusted."""

    ca: str | None
    cert: str | None
    key: str | None


@attrs.frozen(kw_only=True)
class ClientOptions:
    """What `client` was asked to do."""

    endpoint: Tcp | Unix
    family: int
    """AF_INET or AF_INET6 where only these are wanted, or else AF_UNSPEC."""
    config: ClientConfig
    retry_for: float
    """Seconds."""
    every: float | None
    """Seconds between the beginnings of two conversations; None for one conversation."""
    count: int | None
    """How many conversations; None for any number."""
    tls: ClientTls | None
    send_proxy: str | None
    """The version of the PROXY header to send first."""
    json: bool
    names: tuple[bytes, ...]
    """`exit` may be the last one."""
    record: str | None
    trace: bool

    def command(self) -> Callable[[], int]:
        """Return what does it, and returns the exit status."""
        from .client import run_client  # noqa: PLC0415 - when its options are right

        return partial(run_client, self)


_DESCRIPTION = """\
Have names greeted by a server. With NAMEs, with names on standard input, or
with --json it prints one greeting a line. On a terminal it is a conversation."""

_STATUSES = """\
exit status:
  0  every name was greeted      5  TLS: handshake or certificate
  1  failed: input, output, ...  6  connection lost
  2  wrong usage                 7  what answers is no greeter
  3  timed out                   8  refused by the server
  4  cannot connect            130  Ctrl-C (128 + N: signal N)
"""

_EXAMPLES = """\
examples:
  %(prog)s                 a conversation on this terminal
  %(prog)s Ada Grace       prints two greetings
  %(prog)s < names.txt     one name a line
  %(prog)s --host greet.example:6000 --tls --json probe
  %(prog)s --every 1       watches a server, as ping does
"""

_MORE_EXAMPLES = """\
  %(prog)s -- --x--        a name that begins with a dash
  %(prog)s --retry-for 30 probe   waits for a server
  %(prog)s --host unix:greeter.sock Ada
"""


def parse(arguments: Sequence[str]) -> ClientOptions:
    """Return what was asked, defaults filled in; exit with status 2 where it makes no sense."""
    parser = _parser()
    # Options may stand between names, and nothing after `--` is an option.
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    parsed = parser.parse_intermixed_args(arguments[:end])
    return _options(parser, parsed, arguments[end + 1 :])


def _parser(everything: bool = False) -> Parser:  # noqa: FBT001, FBT002 - see Parser.helps
    more = f"{_STATUSES}\n{ENVIRONMENT}\n{_EXAMPLES}{_MORE_EXAMPLES}"
    epilog = more if everything else f"{_STATUSES}\n{_EXAMPLES}"
    parser = Parser(
        "client", " [NAME]...", everything=everything, description=_DESCRIPTION, epilog=epilog
    )
    parser.heading("where the server is")
    parser.option(
        "--host",
        common=True,
        help=f"HOST, HOST:PORT, [IPV6]:PORT or unix:PATH (default: {DEFAULT_HOST})",
    )
    parser.option("-p", "--port", common=True, help=f"TCP port (default: {DEFAULT_PORT})")
    parser.option(
        "-4",
        dest="only_ipv4",
        action="store_true",
        help="connect to IPv4 addresses only",
    )
    parser.option(
        "-6",
        dest="only_ipv6",
        action="store_true",
        help="connect to IPv6 addresses only",
    )

    parser.heading("how it talks")
    parser.framing()
    parser.option(
        "--tls",
        common=True,
        action="store_true",
        help="speak TLS; the certificate must be for --host",
    )
    parser.option(
        "--ca",
        type=file_name,
        metavar="FILE",
        help="certificates to trust, instead of the system's",
    )
    parser.option(
        "--cert", type=file_name, metavar="FILE", help="a certificate to show to the server"
    )
    parser.option(
        "--key",
        type=file_name,
        metavar="FILE",
        help="its private key, if that is not in the same file",
    )
    parser.choice("--send-proxy", "v1", "v2", help="send a PROXY header first, of this version")

    parser.heading("how long, and how often")
    parser.number(
        "--timeout",
        ClientConfig,
        "how long connecting, and each answer, may take",
        field="reply_timeout",
        common=True,
    )
    parser.option(
        "--retry-for",
        common=True,
        type=partial(number_for, Limits, "drain_delay"),  # a delay like that one
        default=0.0,
        metavar="SECONDS",
        help="how long to try again until a server says its welcome (default: 0)",
    )
    parser.option(
        "--every",
        common=True,
        type=_interval,
        metavar="SECONDS",
        help="watch: have a new conversation every so often, until Ctrl-C",
    )
    parser.option(
        "--count",
        common=True,
        type=partial(whole_number, "a number of conversations", 1, 999_999_999),
        metavar="N",
        help="with --every: end after N conversations",
    )

    parser.heading("what it shows")
    parser.option(
        "--json",
        common=True,
        action="store_true",
        help="print a JSON object for each name, greeted or not",
    )
    parser.trace("on standard error")
    parser.record()
    parser.heading("names")
    parser.option(
        "names",
        nargs="*",
        metavar="NAME",
        help="a name to be greeted; `exit` may come last; names that begin with a dash come after "
        "`--`",
    )
    parser.helps(_parser)
    return parser


def _interval(text: str) -> float:
    """Return the seconds between two conversations: those that a timeout can have, and finite."""
    number = number_for(ClientConfig, "reply_timeout", text)
    return number_for(Limits, "drain_delay", text) and number


def _options(parser: Parser, arguments: Arguments, more: Sequence[str]) -> ClientOptions:
    if not arguments.tls:
        parser.want(arguments, "--tls", "--ca", "--cert", "--key")
    if arguments.cert is None:
        parser.want(arguments, "--cert", "--key")
    if arguments.every is None:
        parser.want(arguments, "--every", "--count")
    elif arguments.retry_for:
        parser.error("--every already retries: leave out --retry-for")
    elif arguments.timeout == math.inf:
        parser.error("--every needs a --timeout that is finite, not inf")
    parser.want_distinct(arguments, ["--record"], ["--ca", "--cert", "--key"])
    endpoint = _endpoint(parser, arguments)
    if arguments.tls and isinstance(endpoint, Unix):
        parser.error(f"--tls needs a host that a certificate can be for, not {endpoint}")
    return ClientOptions(
        endpoint=endpoint,
        family=_family(parser, arguments),
        config=ClientConfig(framing=Framing(arguments.framing), reply_timeout=arguments.timeout),
        retry_for=arguments.retry_for,
        every=arguments.every,
        count=arguments.count,
        tls=ClientTls(ca=arguments.ca, cert=arguments.cert, key=arguments.key)
        if arguments.tls
        else None,
        send_proxy=arguments.send_proxy,
        json=arguments.json,
        names=_names(parser, arguments, more),
        record=arguments.record,
        trace=arguments.trace,
    )


def _family(parser: Parser, arguments: Arguments) -> int:
    if arguments.only_ipv4 and arguments.only_ipv6:
        parser.error("-4 and -6 exclude each other: leave out one of them")
    if arguments.only_ipv4:
        return socket.AF_INET
    return socket.AF_INET6 if arguments.only_ipv6 else socket.AF_UNSPEC


def _endpoint(parser: Parser, arguments: Arguments) -> Tcp | Unix:
    host, source = parser.host(arguments)
    try:
        host, port = split_host(host)
        if host.startswith("unix:"):
            return parse_unix(host)
    except ValueError as exc:
        parser.error(f"{source}: {exc}")
    if not host:
        parser.error(f"{source} must have a host before the colon")
    if host.startswith("fd:"):
        right = "HOST, HOST:PORT, [IPV6]:PORT or unix:PATH"
        parser.error(f"{source} must be {right}, not {host!r}")
    parser.refuse_star(host, source)
    if port is None:
        return Tcp(host, parser.port(arguments, lowest=1))
    if arguments.port is not None:
        parser.error(f"{source} has a port, {port!r}: leave out --port")
    try:
        return Tcp(host, parse_port(port, f"the port in {source}", lowest=1))
    except ValueError as exc:
        parser.error(str(exc))


def _names(parser: Parser, arguments: Arguments, more: Sequence[str]) -> tuple[bytes, ...]:
    given = [*arguments.names, *more]
    if not more:
        _refuse_an_address(parser, given)
    names = tuple(os.fsencode(name) for name in given)
    if b"exit" in names[:-1]:
        parser.error("`exit` ends the conversation, so no NAME can follow it")
    for name in names:
        problem = name != b"exit" and problem_with(name)
        if problem:
            parser.error(f"NAME: {problem}")
    if not names and sys.stdin is None and arguments.every is None:
        parser.error("standard input is closed: give NAMEs as arguments, or on standard input")
    return names


def _refuse_an_address(parser: Parser, names: Sequence[str]) -> None:
    """Exit if two names are a host and a port, as other programs take them."""
    match names:
        case [host, port] if re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= 65535:
            if host == "localhost" or "." in host or ":" in host:
                parser.error(
                    f"{host} and {port} would be greeted as names; to connect to them, write "
                    f"`{parser.prog} --host {host} --port {port}`, and for names, `--` before them"
                )
        case _:
            pass
