"""The options of both commands: what they become, what is wrong usage, and their help."""

import contextlib
import io
import math
import re
import socket
import sys
import tomllib
from typing import Any

import attrs
import pytest

from greeter_core import ClientConfig, Framing, ServerConfig, __version__
from greeter_trio import Limits, WhenFull
from greeter_trio._cli.client_options import ClientOptions, ClientTls
from greeter_trio._cli.options import parse
from greeter_trio._cli.serve_options import ServeOptions, ServerTls
from greeter_trio._cli.status import ExitStatus
from greeter_trio._net.endpoints import Fd, Tcp, Unix
from tests.support.processes import COMMAND, ROOT, run

IS_WINDOWS = sys.platform == "win32"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("GREETER_HOST", raising=False)
    monkeypatch.delenv("GREETER_PORT", raising=False)


SERVE_DEFAULTS = ServeOptions(
    endpoints=(Tcp("127.0.0.1", 6000),),
    endpoints_are_default=True,
    reuse_port=False,
    unix_mode=None,
    port_file=None,
    config=ServerConfig(),
    limits=Limits(),
    tls=None,
    proxy_protocol=False,
    log_level="info",
    log_format="text",
    log_time=False,
    record=None,
    trace=False,
)
CLIENT_DEFAULTS = ClientOptions(
    endpoint=Tcp("127.0.0.1", 6000),
    family=socket.AF_UNSPEC,
    config=ClientConfig(),
    retry_for=0.0,
    every=None,
    count=None,
    tls=None,
    send_proxy=None,
    json=False,
    names=(),
    record=None,
    trace=False,
)


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ("", {}),
        ("--host ::1", {"endpoints": (Tcp("::1", 6000),), "endpoints_are_default": False}),
        ("--port 0", {"endpoints": (Tcp("127.0.0.1", 0),), "endpoints_are_default": False}),
        ("--listen h:1", {"endpoints": (Tcp("h", 1),), "endpoints_are_default": False}),
        ("--reuse-port", {"reuse_port": True}),
        ("--port-file p", {"port_file": "p"}),
        ("--framing lines", {"config": ServerConfig(framing=Framing.LINES)}),
        ("--idle-timeout .5", {"config": ServerConfig(idle_timeout=0.5)}),
        ("--max-lifetime 9", {"config": ServerConfig(max_lifetime=9)}),
        ("--max-connections 1", {"limits": Limits(max_connections=1)}),
        ("--when-full reject", {"limits": Limits(when_full=WhenFull.REJECT)}),
        ("--handshake-timeout 7", {"limits": Limits(handshake_timeout=7)}),
        ("--send-timeout 6", {"limits": Limits(send_timeout=6)}),
        ("--drain-delay 0.25", {"limits": Limits(drain_delay=0.25)}),
        ("--grace 8", {"limits": Limits(grace=8)}),
        ("--tls-cert c --tls-key k", {"tls": ServerTls(cert="c", key="k", client_ca=None)}),
        ("--tls-cert c --tls-client-ca a", {"tls": ServerTls(cert="c", key=None, client_ca="a")}),
        ("--proxy-protocol require", {"proxy_protocol": True}),
        ("--log-level debug", {"log_level": "debug"}),
        ("--log-format json", {"log_format": "json"}),
        ("--log-time", {"log_time": True}),
        ("-p 0", {"endpoints": (Tcp("127.0.0.1", 0),), "endpoints_are_default": False}),
        ("--host [::1]", {"endpoints": (Tcp("::1", 6000),), "endpoints_are_default": False}),
    ],
)
def test_serve_options(arguments: str, changes: dict[str, Any]) -> None:
    assert parse(["serve", *arguments.split()]) == attrs.evolve(SERVE_DEFAULTS, **changes)


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ("", {}),
        ("--host ::1", {"endpoint": Tcp("::1", 6000)}),
        ("--port 7", {"endpoint": Tcp("127.0.0.1", 7)}),
        ("--framing lines", {"config": ClientConfig(framing=Framing.LINES)}),
        ("--timeout 3", {"config": ClientConfig(reply_timeout=3)}),
        ("--timeout inf", {"config": ClientConfig(reply_timeout=math.inf)}),
        ("--retry-for 30", {"retry_for": 30}),
        ("--tls", {"tls": ClientTls(ca=None, cert=None, key=None)}),
        ("--tls --ca a --cert c --key k", {"tls": ClientTls(ca="a", cert="c", key="k")}),
        ("--send-proxy v1", {"send_proxy": "v1"}),
        ("--send-proxy v2", {"send_proxy": "v2"}),
        ("-4", {"family": socket.AF_INET}),
        ("-6", {"family": socket.AF_INET6}),
        ("-p 7", {"endpoint": Tcp("127.0.0.1", 7)}),
        ("--host h:7", {"endpoint": Tcp("h", 7)}),
        ("--host [::1]:7", {"endpoint": Tcp("::1", 7)}),
        ("--host [fe80::1%eth0]:7", {"endpoint": Tcp("fe80::1%eth0", 7)}),
        ("--host [::1] --port 7", {"endpoint": Tcp("::1", 7)}),
        ("--every 0.5", {"every": 0.5}),
        ("--every 1 --count 3 Ada", {"every": 1, "count": 3, "names": (b"Ada",)}),
        (
            "Ada --json Bob -p 7 Eve",
            {"json": True, "endpoint": Tcp("127.0.0.1", 7), "names": (b"Ada", b"Bob", b"Eve")},
        ),
        ("Ada -- --json", {"names": (b"Ada", b"--json")}),
        ("-- example.org 443", {"names": (b"example.org", b"443")}),
        ("example.org 443 80", {"names": (b"example.org", b"443", b"80")}),
        ("example 443", {"names": (b"example", b"443")}),
        ("example.org 65536", {"names": (b"example.org", b"65536")}),
        ("--json", {"json": True}),
        ("-- -Ada- 小明 exit", {"names": (b"-Ada-", "小明".encode(), b"exit")}),
        ("Zo\udceb", {"names": (b"Zo\xeb",)}),
        (1024 * "x", {"names": (1024 * b"x",)}),
    ],
)
def test_client_options(arguments: str, changes: dict[str, Any]) -> None:
    assert parse(["client", *arguments.split()]) == attrs.evolve(CLIENT_DEFAULTS, **changes)


@pytest.mark.parametrize("options", [SERVE_DEFAULTS, CLIENT_DEFAULTS], ids=["serve", "client"])
def test_options_are_frozen(options: ServeOptions | ClientOptions) -> None:
    for field in attrs.fields(type(options)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(options, field.name, None)


@pytest.mark.parametrize(
    ("arguments", "host", "port", "where"),
    [
        ("", "h", "7", Tcp("h", 7)),
        ("", "", "", Tcp("127.0.0.1", 6000)),  # set but empty counts as unset
        ("--host i", "h", "7", Tcp("i", 7)),
        ("--port 8", "h", "http", Tcp("h", 8)),  # not looked at, even if wrong
    ],
)
def test_environment(
    arguments: str, host: str, port: str, where: Tcp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GREETER_HOST and GREETER_PORT stand for --host and --port where those are not given."""
    monkeypatch.setenv("GREETER_HOST", host)
    monkeypatch.setenv("GREETER_PORT", port)
    server, client = (parse([command, *arguments.split()]) for command in ("serve", "client"))
    assert isinstance(server, ServeOptions)
    assert isinstance(client, ClientOptions)
    assert (server.endpoints, client.endpoint) == ((where,), where)
    # Sockets from systemd take the place of what the environment says, too.
    assert server.endpoints_are_default == (not arguments)


@pytest.mark.skipif(IS_WINDOWS, reason="it has neither Unix sockets nor descriptors")
def test_other_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    several = parse(["serve", "--listen", "[::1]:0", "--listen", "unix:a", "--listen", "fd:3"])
    assert isinstance(several, ServeOptions)
    assert several.endpoints == (Tcp("::1", 0), Unix("a"), Fd(3))
    to_unix_socket = attrs.evolve(CLIENT_DEFAULTS, endpoint=Unix("a"))
    assert parse(["client", "--host", "unix:a", "--port", "7"]) == to_unix_socket
    monkeypatch.setenv("GREETER_HOST", "unix:a")
    assert parse(["client"]) == to_unix_socket


def test_a_port_within_the_host_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREETER_PORT", "7")
    monkeypatch.setenv("GREETER_HOST", "h:8")
    assert parse(["client"]) == attrs.evolve(CLIENT_DEFAULTS, endpoint=Tcp("h", 8))
    other = attrs.evolve(CLIENT_DEFAULTS, endpoint=Tcp("i", 9))
    assert parse(["client", "--host", "i:9"]) == other


def test_a_mode_for_unix_sockets() -> None:
    options = parse(["serve", "--listen", "unix:a", "--unix-mode", "660"])
    assert isinstance(options, ServeOptions)
    assert options.unix_mode == 0o660


def exits(*arguments: str) -> tuple[object, str, str]:
    """Return the exit status, and what is printed to standard output and error."""
    with (
        pytest.raises(SystemExit) as end,
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        parse(arguments)
    return end.value.code, out.getvalue(), err.getvalue()


def wrong_usage(*arguments: str) -> str:
    """Return the line that says what is wrong, after how the command is used."""
    status, out, err = exits(*arguments)
    assert (status, out) == (ExitStatus.USAGE, "")
    assert err.startswith("usage: ")
    return err.splitlines()[-1]


WRONG = {
    "greet": ["COMMAND must be serve, client, demo, replay", "'greet'"],
    "serve Ada": ["unrecognized arguments: Ada"],
    "serve --max-clients 3": ["unrecognized arguments: --max-clients 3"],
    "serve --port=": ["--port", "''"],
    "serve --port 65536": ["--port", "0 to 65535", "'65536'"],
    "serve --host=": ["--host must not be empty"],
    "serve --host h:7": ["--host must be a host alone, not 'h:7'", "--listen"],
    "serve --host unix:x": ["--host must be a host alone", "--listen"],
    "serve --host [::1": ["--host: an IPv6 address", "'[::1'"],
    "serve --unix-mode 660": ["--unix-mode needs --listen unix:PATH"],
    "serve --listen unix:@x --unix-mode 660": ["--unix-mode needs --listen unix:PATH"],
    "serve --listen unix:x --unix-mode 999": ["--unix-mode", "three octal digits", "'999'"],
    "serve --log-time --log-format json": ["--log-time is for text"],
    "serve --port-file=": ["--port-file", "the name of a file", "''"],
    "serve --tls-cert=": ["--tls-cert", "the name of a file", "''"],
    "serve --listen h:0 --port 0": ["--listen", "leave out --host and --port"],
    "serve --listen h:0 --host h": ["--listen", "leave out --host and --port"],
    "serve --listen 6000": ["--listen", "HOST:PORT", "'6000'"],
    "serve --idle-timeout 0": ["--idle-timeout", "more than 0", "not '0'"],
    "serve --max-lifetime -1": ["--max-lifetime"],
    "serve --max-connections 1.5": ["--max-connections", "whole number", "not '1.5'"],
    "serve --handshake-timeout soon": ["--handshake-timeout", "more than 0", "'soon'"],
    "serve --send-timeout nan": ["--send-timeout", "not 'nan'"],
    "serve --drain-delay inf": ["--drain-delay", "finite", "not 'inf'"],
    "serve --grace 0": ["--grace", "more than 0"],
    "serve --tls-key k": ["--tls-key needs --tls-cert"],
    "serve --tls-client-ca a": ["--tls-client-ca needs --tls-cert"],
    "serve --framing words": ["--framing", "'words'"],
    "serve --proxy-protocol maybe": ["--proxy-protocol", "'maybe'"],
    "serve --when-full panic": ["--when-full", "'panic'"],
    "serve --log-level trace": ["--log-level", "'trace'"],
    "serve --log-format xml": ["--log-format", "'xml'"],
    "client --host h:": ["the port in --host must be a whole number from 1 to 65535, not ''"],
    "client --host :7": ["--host must have a host before the colon"],
    "client --host h:7 --port 8": ["--host has a port, '7'", "leave out --port"],
    "client --host [h]:7": ["--host: the text in brackets must be an IPv6 address, not 'h'"],
    "client --every 0": ["--every", "more than 0", "'0'"],
    "client --every inf": ["--every", "finite", "'inf'"],
    "client --every soon": ["--every", "'soon'"],
    "client --every 1 --count 0": ["--count", "from 1", "'0'"],
    "client --every 1 --count 1.5": ["--count", "'1.5'"],
    "client --count 3": ["--count needs --every"],
    "client --every 1 --retry-for 3": ["--every", "leave out --retry-for"],
    "client --every 1 --timeout inf": ["--every needs a --timeout that is finite"],
    "client example.org 443": ["client --host example.org --port 443", "`--` before"],
    "client localhost 1": ["--host localhost --port 1"],
    "client ::1 65535": ["--host ::1 --port 65535"],
    "client --json Ada --jason Bob": ["unrecognized arguments: --jason"],
    "client --record=": ["--record", "the name of a file", "''"],
    "client --port 0": ["--port", "1 to 65535", "'0'"],
    f"client --port {5000 * '8'}": ["--port", 700 * "8" + " ... " + 100 * "8"],
    "client -4 -6": ["-4 and -6 exclude each other"],
    "client --timeout -1": ["--timeout", "more than 0", "'-1'"],
    "client --retry-for -1": ["--retry-for", "0 or more", "'-1'"],
    "client --every -1": ["--every", "'-1'"],
    "client --every 1 --count -1": ["--count", "'-1'"],
    "client -p -1": ["--port", "'-1'"],
    "client --time 3": ["unrecognized arguments: --time"],
    "client --timeout 0": ["--timeout", "more than 0", "not '0'"],
    "client --framing words": ["--framing", "'words'"],
    "client --retry-for inf": ["--retry-for", "finite", "not 'inf'"],
    "client --ca x": ["--ca needs --tls"],
    "client --cert x": ["--cert needs --tls"],
    "client --key x": ["--key needs --tls"],
    "client --tls --key x": ["--key needs --cert"],
    "client --tls --host unix:x": ["--tls needs a host", "unix:x"],
    "client --host unix:": ["--host", "1 to 107 bytes"],
    "replay": ["FILE"],
    "replay a --page a": ["--page and FILE are the same file: a"],
    "demo --clients 21": ["--clients", "from 1 to 20", "'21'"],
    "demo --no-segments --pcap x": ["--pcap needs the segments"],
    "client --send-proxy v3": ["--send-proxy", "'v3'"],
    "client exit Ada": ["`exit` ends the conversation", "NAME"],
    f"client Ada {1025 * 'x'}": ["NAME", "1024"],
    "client Ada\rBob": ["NAME", "CR"],
}


@pytest.mark.parametrize("arguments", WRONG, ids=lambda line: line[:40] or "nothing")
def test_wrong_usage(arguments: str) -> None:
    """What makes no sense, alone or together, is named in the last line; exit status 2."""
    if IS_WINDOWS and "unix:" in arguments:
        pytest.skip("there are no Unix sockets")
    last = wrong_usage(*arguments.split(" "))
    assert [part for part in WRONG[arguments] if part not in last] == []
    assert "math" not in last


def test_wrong_port_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREETER_PORT", "٦٠٠٠")
    message = "GREETER_PORT must be a whole number from 0 to 65535, not '٦٠٠٠'"
    assert wrong_usage("serve").endswith(f" serve: error: {message}")
    helped("serve")  # which it does not disturb


def test_no_names_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without standard input, names must be arguments."""
    monkeypatch.setattr(sys, "stdin", None)
    assert parse(["client", "Ada"]) == attrs.evolve(CLIENT_DEFAULTS, names=(b"Ada",))
    assert "standard input is closed" in wrong_usage("client")


def helped(*arguments: str) -> str:
    """Return what --help prints, which must be all that happens."""
    status, out, err = exits(*arguments, "--help")
    assert (status, err) == (0, "")
    return out


COMMANDS = ["serve", "client", "demo", "replay"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["greeter", "python -m greeter_trio"])
def test_help(command: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fits a screen of 80 columns and 40 lines, and calls the command what it was called."""
    path = "/greeter_trio/__main__.py" if name.startswith("python") else "/bin/greeter"
    monkeypatch.setattr(sys, "argv", [path])
    lines = helped(command).splitlines()
    assert lines[0].startswith(f"usage: {name} {command} [OPTION]...")
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    if command != "demo":
        examples = lines[lines.index("examples:") + 1 :]
        assert len(examples) >= 3
        assert all(line.startswith(f"  {name} {command} ") for line in examples)


@pytest.mark.parametrize("name", ["greeter", "python -m greeter_trio"])
def test_without_a_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how to begin."""
    path = "/greeter_trio/__main__.py" if name.startswith("python") else "/bin/greeter"
    monkeypatch.setattr(sys, "argv", [path])
    status, out, err = exits()
    assert (status, out) == (ExitStatus.USAGE, "")
    assert max(map(len, err.splitlines())) <= 80
    for command in COMMANDS:
        assert f"\n  {command} " in err
    assert f"to begin:\n  {name} serve " in err
    assert helped() == err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_all_is_complete(command: str) -> None:
    """It has the exit statuses, the environment, and each option with its default, in groups."""
    status, text, err = exits(command, "--help-all")
    assert (status, err) == (0, "")
    assert max(map(len, text.splitlines())) <= 80
    statuses = text.partition("\nexit status:\n")[2].partition("\n\n")[0]
    expected = {*ExitStatus} if command == "client" else {0, 1, 2, 130}
    found = set(map(int, re.findall(r"(?:^|  )(\d+) +[a-zA-Z]", statuses, re.MULTILINE)))
    assert found == expected | ({3} if command == "serve" else set())
    if command in ("serve", "client"):
        assert "\nenvironment:\n  GREETER_HOST, GREETER_PORT " in text
        assert len(re.findall(r"^[a-z][a-z, ]+:$", text, re.MULTILINE)) >= 6  # headings
    common = set(re.findall(r"--[a-z-]+", helped(command)))
    assert common <= set(re.findall(r"--[a-z-]+", text))
    for words in re.findall(r"^  --\S+ SECONDS\s+([^-]+)", text, re.MULTILINE):
        assert "(default: " in words or "every so often" in words


def test_help_has_signals_and_limits() -> None:
    _, text, _ = exits("serve", "--help-all")
    signals = text.partition("\nsignals:\n")[2].partition("\n\n")[0]
    known = {"SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGBREAK"}
    assert set(re.findall(r"\bSIG[A-Z0-9]+\b", signals)) == known
    words = " ".join(text.split())
    limits = re.findall(r"--([a-z-]+) SECONDS [^-]*; inf for no limit \(default: ", words)
    assert limits == ["idle-timeout", "max-lifetime", "handshake-timeout", "send-timeout", "grace"]


def script() -> tuple[str, ...]:
    """Return a command that does what an installed console script does."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        target = tomllib.load(file)["project"]["scripts"]["greeter"]
    module, _, function = target.partition(":")
    code = f"import sys; from {module} import {function}; sys.argv[0] = '/bin/greeter'; "
    return (sys.executable, "-c", code + f"sys.exit({function}())")


@pytest.mark.parametrize("name", ["greeter", "python -m greeter_trio"])
def test_ways_to_start(name: str) -> None:
    command = script() if name == "greeter" else COMMAND
    done = run("--version", command=command)
    shown = done.stdout.decode().splitlines()
    assert (shown, done.stderr, done.returncode) == ([f"greeter {__version__}"], b"", 0)
    done = run("client", "--port", "x", command=command)
    assert done.stderr.decode().splitlines()[-1].startswith(f"{name} client: error: --port must ")
    assert (done.stdout, done.returncode) == (b"", 2)


def test_interrupt_before_trio_takes_it() -> None:
    """Ctrl-C while modules are imported ends the process without a traceback."""
    code = "import signal, greeter_trio.__main__; signal.raise_signal(signal.SIGINT)"
    done = run(command=[sys.executable, "-c", code])
    assert (done.returncode, done.stderr) == (-2, b"")
