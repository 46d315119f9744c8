"""The options of the command line, and the environment behind them, as frozen objects."""

import argparse
import contextlib
import itertools
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeAlias

import attrs

from greeter_core import (
    ClientConfig,
    Framing,
    ServerConfig,
    __version__,
)
from greeter_trio import Limits, WhenFull
from greeter_trio._net.endpoints import Endpoint, Tcp, Unix, parse_endpoint, parse_port
from greeter_trio._net.proxy import HeaderEncoder, encode_v1, encode_v2

from .names import problem_with

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = "6000"

_ENCODERS: dict[str, HeaderEncoder] = {"v1": encode_v1, "v2": encode_v2}


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
    port_file: str | None
    config: ServerConfig
    limits: Limits
    tls: ServerTls | None
    proxy_protocol: bool
    log_level: str
    log_format: str
    record: str | None
    trace: bool


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
    config: ClientConfig
    retry_for: float
    """Seconds."""
    tls: ClientTls | None
    encode_header: HeaderEncoder | None
    """Makes the PROXY header to send first."""
    json: bool
    names: tuple[bytes, ...]
    """`exit` may be the last one."""
    record: str | None
    trace: bool


@attrs.frozen(kw_only=True)
class ReplayOptions:
    """What `replay` was asked to do."""

    file: str
    trace: bool
    page: str | None


@attrs.frozen(kw_only=True)
class DemoOptions:
    """What `demo` was asked to do."""

    clients: int
    segments: bool
    record: str | None
    page: str | None
    pcap: str | None


_Settings: TypeAlias = Callable[..., ServerConfig | ClientConfig | Limits]
Options: TypeAlias = ServeOptions | ClientOptions | ReplayOptions | DemoOptions


def parse(argv: Sequence[str] | None = None) -> Options:
    """Return what was asked, defaults filled in; exit with status 2 where it makes no sense."""
    arguments = _parser().parse_args(argv)
    make: Callable[[argparse.Namespace], Options] = arguments.make
    return make(arguments)


# The parser

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
  %(prog)s                  for this machine only
  %(prog)s --host 0.0.0.0   for all its networks
  %(prog)s --port 0         on a free port, which is logged
  %(prog)s --listen [::]:6000 --listen unix:greeter.sock
  %(prog)s --tls-cert cert.pem --tls-key key.pem
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
  %(prog)s                 a conversation on this terminal
  %(prog)s Ada Grace       prints two greetings
  %(prog)s < names.txt     one name a line
  %(prog)s -- --x--        a name that begins with a dash
  %(prog)s --retry-for 30 probe   waits for a server
  %(prog)s --host greet.example --tls --json probe
  %(prog)s --host unix:greeter.sock Ada
"""


_REPLAY_DESCRIPTION = """\
Give the inputs of a recording to new connections, and compare what comes of
them with what was recorded: outputs, events, deadlines and states."""

_REPLAY_EPILOG = """\
exit status:
  0    everything comes out as it was recorded
  1    something does not, which is shown; or a file cannot be used
  2    wrong usage, or FILE is damaged
  130  interrupted by Ctrl-C (128 + N: ended by signal N)

examples:
  %(prog)s greeter.jsonl
  %(prog)s --trace greeter.jsonl | less
  %(prog)s --page greeter.html greeter.jsonl
"""

_DEMO_DESCRIPTION = """\
Show how a conversation over TCP begins, goes on and ends: a server and its
clients, in this process and over the loopback interface, in three scenes. No
server has to run, and no privilege is needed."""

_DEMO_EPILOG = """\
The segments of TCP are those that the kernel really sends. Capturing them
takes Linux, and a privilege (CAP_NET_RAW) or user namespaces. Without these it
says so, and draws what TCP's rules let expect instead.

exit status:
  0    done
  1    failed: a file cannot be written
  2    wrong usage
  130  interrupted by Ctrl-C (128 + N: ended by signal N)
"""


def _parser() -> argparse.ArgumentParser:
    is_script = not sys.argv[0].endswith("__main__.py")
    parser = argparse.ArgumentParser(
        prog="greeter" if is_script else "python -m greeter_trio",
        description="A TCP greeting service: tell it names, and it greets them.",
        epilog="`%(prog)s COMMAND --help` shows the options of a command, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"greeter {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_serve(
        commands.add_parser(
            "serve",
            help="run the server",
            description="Greet the clients that connect.",
            epilog=_SERVE_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    _add_client(
        commands.add_parser(
            "client",
            help="talk to a server",
            description=_CLIENT_DESCRIPTION,
            epilog=_CLIENT_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    _add_replay(
        commands.add_parser(
            "replay",
            help="check and draw a recording",
            description=_REPLAY_DESCRIPTION,
            epilog=_REPLAY_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    _add_demo(
        commands.add_parser(
            "demo",
            help="show how a conversation over TCP goes",
            description=_DEMO_DESCRIPTION,
            epilog=_DEMO_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(make=partial(_serve_options, parser.error))
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
        help="HOST:PORT, [IPV6]:PORT, unix:PATH or fd:N, instead of --host and --port; "
        "can be repeated",
    )
    where.add_argument(
        "--reuse-port", action="store_true", help="share the port with other servers (SO_REUSEPORT)"
    )
    where.add_argument(
        "--port-file", metavar="PATH", help="write the TCP port there, once it is open"
    )

    how = parser.add_argument_group("how it talks")
    _add_framing(how)
    _add_number(
        how, "--idle-timeout", ServerConfig, "how long a client may go without a greeted name"
    )
    _add_number(how, "--max-lifetime", ServerConfig, "how long a conversation may last")
    how.add_argument(
        "--tls-cert", metavar="FILE", help="speak TLS, with this certificate (PEM, with its chain)"
    )
    how.add_argument(
        "--tls-key", metavar="FILE", help="its private key, if that is not in the same file"
    )
    how.add_argument(
        "--tls-client-ca",
        metavar="FILE",
        help="demand a certificate of clients, signed by one of these CAs",
    )
    how.add_argument(
        "--proxy-protocol",
        choices=["off", "require"],
        default="off",
        help="require: each connection begins with a PROXY header, version 1 or 2 (default: off)",
    )

    limits = parser.add_argument_group("limits")
    _add_number(
        limits,
        "--max-connections",
        Limits,
        "how many clients are served at the same time",
    )
    limits.add_argument(
        "--when-full",
        choices=[choice.value for choice in WhenFull],
        default=Limits().when_full.value,
        help="further clients wait, or get a refusal (default: %(default)s)",
    )
    _add_number(
        limits, "--handshake-timeout", Limits, "for a PROXY header and a TLS handshake together"
    )
    _add_number(
        limits,
        "--send-timeout",
        Limits,
        "how long a client may take to read the next 64 KiB sent to it",
    )
    _add_number(
        limits, "--drain-delay", Limits, "how long to go on accepting after a signal to shut down"
    )
    _add_number(limits, "--grace", Limits, "how long conversations may then take to end")

    log = parser.add_argument_group("log, on standard error")
    log.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        help="the least level that is logged; debug: every event of every conversation "
        "(default: info)",
    )
    log.add_argument(
        "--log-format",
        choices=["text", "json"],
        default="text",
        help="json: an object a line (default: text)",
    )

    show = parser.add_argument_group("what it shows")
    _add_trace(show, "on standard output")
    _add_record(show)


def _add_client(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(make=partial(_client_options, parser.error))
    parser.add_argument(
        "--host",
        help=f"address of the server, or unix:PATH, which has no port (default: {DEFAULT_HOST})",
    )
    parser.add_argument("--port", help=f"TCP port of the server (default: {DEFAULT_PORT})")
    _add_framing(parser)
    _add_number(
        parser,
        "--timeout",
        ClientConfig,
        "how long connecting, and each answer, may take",
        "reply_timeout",
    )
    parser.add_argument(
        "--retry-for",
        type=partial(_number_for, Limits, "drain_delay"),  # a delay like that one
        default=0.0,
        metavar="SECONDS",
        help="how long to try again until a server says its welcome (default: 0)",
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
        "--send-proxy", choices=list(_ENCODERS), help="send a PROXY header first, of this version"
    )
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object for each name, greeted or not"
    )
    _add_trace(parser, "on standard error")
    _add_record(parser)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="a name to be greeted; `exit` may come last"
    )


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(make=partial(_replay_options, parser.error))
    parser.add_argument("file", metavar="FILE", help="a transcript, as --record writes it")
    _add_trace(parser, "on standard output")
    _add_page(parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(make=partial(_demo_options, parser.error))
    parser.add_argument(
        "--clients",
        type=_few,
        default=3,
        metavar="N",
        help="how many clients come at once in the second scene, 1 to 20 (default: 3)",
    )
    parser.add_argument(
        "--no-segments",
        action="store_true",
        help="do not capture the segments of TCP, and change no namespace for that",
    )
    _add_record(parser)
    _add_page(parser)
    parser.add_argument(
        "--pcap", metavar="FILE", help="write the segments to FILE, for Wireshark and tcpdump"
    )


def _few(text: str) -> int:
    if not re.fullmatch("[1-9]|1[0-9]|20", text):
        raise argparse.ArgumentTypeError(f"a number of clients from 1 to 20, not {text!r}")
    return int(text)


def _add_trace(parser: "argparse.ArgumentParser | argparse._ArgumentGroup", where: str) -> None:
    parser.add_argument(
        "--trace", action="store_true", help=f"draw the conversation as a sequence diagram, {where}"
    )


def _add_record(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    parser.add_argument(
        "--record", metavar="FILE", help="write a transcript to FILE, which `replay` reads"
    )


def _add_page(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--page", metavar="FILE.html", help="draw the conversations as a page for a browser"
    )


def _add_framing(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    parser.add_argument(
        "--framing",
        choices=[framing.value for framing in Framing],
        default=Framing.AUTO.value,
        help="how names end: lines, raw (one packet, one name), or auto: find out (default: auto)",
    )


def _add_number(
    parser: "argparse.ArgumentParser | argparse._ArgumentGroup",
    option: str,
    settings: _Settings,
    meaning: str,
    field: str = "",
) -> None:
    """Add an option for a number that a field of the settings keeps; by default of its own name."""
    field = field or option.removeprefix("--").replace("-", "_")
    default = getattr(settings(), field)
    try:
        settings(**{field: math.inf})
        forever = "; inf for no limit"
    except ValueError:
        forever = ""
    parser.add_argument(
        option,
        type=partial(_number_for, settings, field),
        default=default,
        metavar="N" if isinstance(default, int) else "SECONDS",
        help=f"{meaning}{forever} (default: {default:g})",
    )


def _number_for(settings: _Settings, field: str, text: str) -> float:
    """Return the number that is written here, if the settings accept it for that field."""
    number: float | str
    try:
        number = int(text) if re.fullmatch("[0-9]{1,9}", text) else float(text)
    except ValueError:
        number = text  # which the settings refuse, and say what is right
    try:
        settings(**{field: number})
    except ValueError as exc:
        right = str(exc).removeprefix(f"{field} ").partition(", not ")[0].replace("math.inf", "inf")
        raise argparse.ArgumentTypeError(f"{right}, not {text!r}") from None
    assert not isinstance(number, str)  # noqa: S101 - no field of theirs takes one
    return number


def _endpoint(text: str) -> Endpoint:
    try:
        return parse_endpoint(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


# From arguments to options: what only makes sense together, and the environment

_Error: TypeAlias = Callable[[str], NoReturn]


def _serve_options(error: _Error, arguments: argparse.Namespace) -> ServeOptions:
    where = (arguments.host, arguments.port)
    if arguments.listen and where != (None, None):
        error("--listen says where to listen: leave out --host and --port")
    if arguments.tls_cert is None:
        _want(error, arguments, "--tls-cert", "--tls-key", "--tls-client-ca")
    files = ["--tls-cert", "--tls-key", "--tls-client-ca"]
    _want_distinct(error, arguments, ["--record", "--port-file"], files)
    endpoint = Tcp(*_host_and_port(error, arguments, lowest_port=0))
    return ServeOptions(
        endpoints=tuple(arguments.listen or [endpoint]),
        endpoints_are_default=not arguments.listen and where == (None, None),
        reuse_port=arguments.reuse_port,
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
        record=arguments.record,
        trace=arguments.trace,
    )


def _client_options(error: _Error, arguments: argparse.Namespace) -> ClientOptions:
    if not arguments.tls:
        _want(error, arguments, "--tls", "--ca", "--cert", "--key")
    if arguments.cert is None:
        _want(error, arguments, "--cert", "--key")
    _want_distinct(error, arguments, ["--record"], ["--ca", "--cert", "--key"])
    endpoint = _server_endpoint(error, arguments)
    if arguments.tls and isinstance(endpoint, Unix):
        error(f"--tls needs a host that a certificate can be for, not {endpoint}")
    return ClientOptions(
        endpoint=endpoint,
        config=ClientConfig(framing=Framing(arguments.framing), reply_timeout=arguments.timeout),
        retry_for=arguments.retry_for,
        tls=ClientTls(ca=arguments.ca, cert=arguments.cert, key=arguments.key)
        if arguments.tls
        else None,
        encode_header=_ENCODERS.get(arguments.send_proxy),
        json=arguments.json,
        names=_names(error, arguments),
        record=arguments.record,
        trace=arguments.trace,
    )


def _replay_options(error: _Error, arguments: argparse.Namespace) -> ReplayOptions:
    _want_distinct(error, arguments, ["--page"], ["FILE"])
    return ReplayOptions(file=arguments.file, trace=arguments.trace, page=arguments.page)


def _demo_options(error: _Error, arguments: argparse.Namespace) -> DemoOptions:
    if arguments.no_segments and arguments.pcap is not None:
        error("--pcap needs the segments: leave out --no-segments")
    _want_distinct(error, arguments, ["--record", "--page", "--pcap"])
    return DemoOptions(
        clients=arguments.clients,
        segments=not arguments.no_segments,
        record=arguments.record,
        page=arguments.page,
        pcap=arguments.pcap,
    )


def _want_distinct(
    error: _Error, arguments: argparse.Namespace, written: Sequence[str], read: Sequence[str] = ()
) -> None:
    """Exit if a file that is to be written is another one of these, which it would spoil."""
    given = [
        (name, path)
        for name in (*written, *read)
        if (path := getattr(arguments, name.lstrip("-").replace("-", "_").lower())) is not None
    ]
    for (name, path), (other, other_path) in itertools.combinations(given, 2):
        same = os.path.realpath(path) == os.path.realpath(other_path)
        with contextlib.suppress(OSError):  # one of them does not exist
            same = same or Path(path).samefile(other_path)
        if same and name in written:
            error(f"{name} and {other} are the same file: {path}")


def _names(error: _Error, arguments: argparse.Namespace) -> tuple[bytes, ...]:
    names = tuple(os.fsencode(name) for name in arguments.names)
    if b"exit" in names[:-1]:
        error("`exit` ends the conversation, so no NAME can follow it")
    for name in names:
        problem = name != b"exit" and problem_with(name)
        if problem:
            error(f"NAME: {problem}")
    if not names and sys.stdin is None:
        error("standard input is closed: give NAMEs as arguments, or names on standard input")
    return names


def _server_endpoint(error: _Error, arguments: argparse.Namespace) -> Tcp | Unix:
    host, port = _host_and_port(error, arguments, lowest_port=1)
    if not host.startswith("unix:"):
        return Tcp(host, port)
    try:
        endpoint = parse_endpoint(host)
    except ValueError as exc:
        error(f"--host: {exc}")
    assert isinstance(endpoint, Unix)  # noqa: S101 - that is what it begins with
    return endpoint


def _want(error: _Error, arguments: argparse.Namespace, wanted: str, *options: str) -> None:
    """Exit if one of these options was given: it makes no sense without the one that is wanted."""
    for option in options:
        if getattr(arguments, option.removeprefix("--").replace("-", "_")) is not None:
            error(f"{option} needs {wanted}")


def _host_and_port(
    error: _Error, arguments: argparse.Namespace, lowest_port: int
) -> tuple[str, int]:
    """Return what was given, or what the environment has, or the defaults."""
    host, port, source = arguments.host, arguments.port, "--port"
    if host is None:
        host = os.environ.get("GREETER_HOST") or DEFAULT_HOST
    if not host:
        error("--host must not be empty")
    if port is None and os.environ.get("GREETER_PORT"):
        port, source = os.environ["GREETER_PORT"], "GREETER_PORT"
    try:
        return host, parse_port(DEFAULT_PORT if port is None else port, source, lowest_port)
    except ValueError as exc:
        error(str(exc))
