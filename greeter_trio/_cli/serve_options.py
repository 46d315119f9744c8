"""The options of `serve`, and the environment behind them, as a frozen object."""

import argparse
import re
from collections.abc import Callable, Sequence
from functools import partial

import attrs

from greeter_core import Framing, ServerConfig
from greeter_trio import Limits, WhenFull
from greeter_trio._net.endpoints import Endpoint, Tcp, Unix, split_host

from .parser import DEFAULT_HOST, DEFAULT_PORT, ENVIRONMENT, Arguments, Parser, endpoint, file_name


@attrs.frozen(kw_only=True)
class ServerTls:
    """The files of a server that speaks TLS."""

    cert: str
    key: str | None
    client_ca: str | None


@attrs.frozen(kw_only=True)
class ServeOptions:
    """What `serve` was asked to do."""

    endpoints: tuple[Endpoint, ...]
    endpoints_are_default: bool
    """Whether none was given, so that sockets from systemd take their place."""
    reuse_port: bool
    unix_mode: int | None
    """The mode of the files of Unix sockets; None for what umask leaves."""
    port_file: str | None
    config: ServerConfig
    limits: Limits
    tls: ServerTls | None
    proxy_protocol: bool
    log_level: str
    log_format: str
    log_time: bool
    record: str | None
    trace: bool

    def command(self) -> Callable[[], int]:
        """Return what does it, and returns the exit status."""
        from .serve import run_server  # noqa: PLC0415 - when its options are right

        return partial(run_server, self)


_DESCRIPTION = "Greet the clients that connect, until Ctrl-C or SIGTERM."

_EXAMPLES = """\
examples:
  %(prog)s                  for this machine only
  %(prog)s --host 0.0.0.0   for all its networks
  %(prog)s --port 0         on a free port, which is logged
  %(prog)s --listen [::]:6000 --listen unix:greeter.sock
  %(prog)s --tls-cert cert.pem --tls-key key.pem
"""

_STATUSES = """\
exit status:
  0    shut down in good order
  1    failed: cannot listen, or a file cannot be used
  2    wrong usage
  3    shut down, but conversations had to be cut off when --grace ran out
  130  ended by a second Ctrl-C (128 + N: by signal N)
"""

_EVERYTHING = f"""\
signals:
  SIGINT (Ctrl-C), SIGTERM   shut down: every client is told goodbye; a second
                             one ends the server at once
  SIGHUP                     with --tls-cert: load the certificate again;
                             otherwise the same as SIGTERM
  SIGUSR1                    write counters to the log
  SIGBREAK (Ctrl-Break)      on Windows, which lacks the last two: shut down

{_STATUSES}
{ENVIRONMENT}
{_EXAMPLES}"""


def parse(arguments: Sequence[str]) -> ServeOptions:
    """Return what was asked, defaults filled in; exit with status 2 where it makes no sense."""
    parser = _parser()
    return _options(parser, parser.parse_args(arguments))


def _parser(everything: bool = False) -> Parser:  # noqa: FBT001, FBT002 - see Parser.helps
    epilog = _EVERYTHING if everything else f"{_STATUSES}\n{_EXAMPLES}"
    parser = Parser("serve", "", everything=everything, description=_DESCRIPTION, epilog=epilog)
    parser.heading("where it listens")
    parser.option("--host", common=True, help=f"address to listen on (default: {DEFAULT_HOST})")
    parser.option(
        "-p",
        "--port",
        common=True,
        help=f"TCP port to listen on; 0 for any free one (default: {DEFAULT_PORT})",
    )
    parser.option(
        "--listen",
        common=True,
        action="append",
        type=endpoint,
        metavar="WHERE",
        help="HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N, instead of --host and --port; "
        "can be repeated",
    )
    parser.option(
        "--reuse-port", action="store_true", help="share the port with other servers (SO_REUSEPORT)"
    )
    parser.option(
        "--unix-mode",
        type=_mode,
        metavar="MODE",
        help="mode of the files of Unix sockets, octal, such as 660 (default: what umask leaves)",
    )
    parser.option(
        "--port-file", type=file_name, metavar="PATH", help="write the TCP port there, once open"
    )

    parser.heading("how it talks")
    parser.framing()
    parser.number("--idle-timeout", ServerConfig, "how long a client may go without a greeted name")
    parser.number("--max-lifetime", ServerConfig, "how long a conversation may last")
    parser.option(
        "--tls-cert",
        common=True,
        type=file_name,
        metavar="FILE",
        help="speak TLS, with this certificate (PEM, with its chain)",
    )
    parser.option(
        "--tls-key",
        common=True,
        type=file_name,
        metavar="FILE",
        help="its private key, if that is not in the same file",
    )
    parser.option(
        "--tls-client-ca",
        type=file_name,
        metavar="FILE",
        help="demand a certificate of clients, signed by one of these CAs",
    )
    parser.choice(
        "--proxy-protocol",
        *("off", "require"),
        default="off",
        help="require: each connection begins with a PROXY header, version 1 or 2 (default: off)",
    )

    parser.heading("limits")
    parser.number(
        "--max-connections", Limits, "how many clients are served at the same time", common=True
    )
    parser.choice(
        "--when-full",
        *[choice.value for choice in WhenFull],
        default=Limits().when_full.value,
        help="further clients wait, or get a refusal (default: wait)",
    )
    parser.number("--handshake-timeout", Limits, "for a PROXY header and a TLS handshake together")
    parser.number(
        "--send-timeout", Limits, "how long a client may take to read the next 64 KiB sent to it"
    )
    parser.number(
        "--drain-delay", Limits, "how long to go on accepting after a signal to shut down"
    )
    parser.number("--grace", Limits, "how long conversations may then take to end")

    parser.heading("log, on standard error")
    parser.choice(
        "--log-level",
        *("debug", "info", "warning", "error"),
        default="info",
        help="the least level that is logged; debug: every event of every conversation "
        "(default: info)",
    )
    parser.choice(
        "--log-format",
        *("text", "json"),
        default="text",
        help="json: an object a line, with the time (default: text)",
    )
    parser.option(
        "--log-time", action="store_true", help="begin each line of text with the time (UTC)"
    )

    parser.heading("what it shows")
    parser.trace("on standard output")
    parser.record()
    parser.helps(_parser)
    return parser


def _mode(text: str) -> int:
    if re.fullmatch("0?[0-7]{3}", text):
        return int(text, 8)
    raise argparse.ArgumentTypeError(f"must be three octal digits, such as 660, not {text!r}")


def _options(parser: Parser, arguments: Arguments) -> ServeOptions:
    is_default = (arguments.host, arguments.port) == (None, None)
    if arguments.listen and not is_default:
        parser.error("--listen says where to listen: leave out --host and --port")
    if arguments.tls_cert is None:
        parser.want(arguments, "--tls-cert", "--tls-key", "--tls-client-ca")
    files = ["--tls-cert", "--tls-key", "--tls-client-ca"]
    parser.want_distinct(arguments, ["--record", "--port-file"], files)
    endpoints = tuple(arguments.listen or [_tcp(parser, arguments)])
    if arguments.unix_mode is not None:
        _check_unix_mode(parser, endpoints)
    if arguments.log_time and arguments.log_format == "json":
        parser.error("--log-time is for text: with --log-format json each object has its time")
    return ServeOptions(
        endpoints=endpoints,
        endpoints_are_default=not arguments.listen and is_default,
        reuse_port=arguments.reuse_port,
        unix_mode=arguments.unix_mode,
        port_file=arguments.port_file,
        config=ServerConfig(
            framing=Framing(arguments.framing),
            idle_timeout=arguments.idle_timeout,
            max_lifetime=arguments.max_lifetime,
        ),
        limits=Limits(
            max_connections=arguments.max_connections,
            when_full=WhenFull(arguments.when_full),
            handshake_timeout=arguments.handshake_timeout,
            send_timeout=arguments.send_timeout,
            drain_delay=arguments.drain_delay,
            grace=arguments.grace,
        ),
        tls=arguments.tls_cert
        and ServerTls(
            cert=arguments.tls_cert, key=arguments.tls_key, client_ca=arguments.tls_client_ca
        ),
        proxy_protocol=arguments.proxy_protocol == "require",
        log_level=arguments.log_level,
        log_format=arguments.log_format,
        log_time=arguments.log_time,
        record=arguments.record,
        trace=arguments.trace,
    )


def _tcp(parser: Parser, arguments: Arguments) -> Tcp:
    host, source = parser.host(arguments)
    port = parser.port(arguments, lowest=0)
    try:
        name, given = split_host(host)
    except ValueError as exc:
        parser.error(f"{source}: {exc}")
    if given is not None or name.startswith(("unix:", "fd:")):
        parser.error(f"{source} must be a host alone, not {host!r}: for more, there is --listen")
    parser.refuse_star(name, source)
    return Tcp(name, port)


def _check_unix_mode(parser: Parser, endpoints: Sequence[Endpoint]) -> None:
    if not any(isinstance(each, Unix) and not each.is_abstract for each in endpoints):
        parser.error("--unix-mode needs --listen unix:PATH")
