"""The options of both commands: what they become, what is wrong usage, and their help."""

import contextlib
import io
import math
import re
import sys
import tomllib
from typing import Any

import attrs
import pytest

from greeter_core import ClientConfig, Framing, ServerConfig, __version__
from greeter_trio import Limits, WhenFull
from greeter_trio._cli.options import ClientOptions, ClientTls, ServeOptions, ServerTls, parse
from greeter_trio._cli.status import ExitStatus
from greeter_trio._net.endpoints import Fd, Tcp, Unix
from greeter_trio._net.proxy import encode_v1, encode_v2
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
    port_file=None,
    config=ServerConfig(),
    limits=Limits(),
    tls=None,
    proxy_protocol=False,
    log_level="info",
    log_format="text",
    record=None,
    trace=False,
)
CLIENT_DEFAULTS = ClientOptions(
    endpoint=Tcp("127.0.0.1", 6000),
    config=ClientConfig(),
    retry_for=0.0,
    tls=None,
    encode_header=None,
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
        ("--send-proxy v1", {"encode_header": encode_v1}),
        ("--send-proxy v2", {"encode_header": encode_v2}),
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
    "": ["COMMAND"],
    "greet": ["COMMAND", "'greet'"],
    "serve Ada": ["unrecognized arguments: Ada"],
    "serve --max-clients 3": ["unrecognized arguments: --max-clients 3"],
    "serve --port=": ["--port", "''"],
    "serve --port 65536": ["--port", "0 to 65535", "'65536'"],
    "serve --host=": ["--host must not be empty"],
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
    "client --port 0": ["--port", "1 to 65535", "'0'"],
    f"client --port {5000 * '8'}": ["--port", 5000 * "8"],
    "client --timeout 0": ["--timeout", "more than 0", "not '0'"],
    "client --framing words": ["--framing", "'words'"],
    "client --retry-for inf": ["--retry-for", "finite", "not 'inf'"],
    "client --ca x": ["--ca needs --tls"],
    "client --cert x": ["--cert needs --tls"],
    "client --key x": ["--key needs --tls"],
    "client --tls --key x": ["--key needs --cert"],
    "client --tls --host unix:x": ["--tls needs a host", "unix:x"],
    "client --host unix:": ["--host", "1 to 107 bytes"],
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
    last = wrong_usage(*arguments.split(" ")) if arguments else wrong_usage()
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


@pytest.mark.parametrize("arguments", [[], ["serve"], ["client"]], ids=str)
@pytest.mark.parametrize("name", ["greeter", "python -m greeter_trio"])
def test_help(arguments: list[str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has 80 columns, and calls the command what it was called."""
    path = "/greeter_trio/__main__.py" if name.startswith("python") else "/bin/greeter"
    monkeypatch.setattr(sys, "argv", [path])
    lines = helped(*arguments).splitlines()
    assert lines[0].startswith(" ".join([f"usage: {name}", *arguments, ""]))
    assert max(map(len, lines)) <= 80
    if arguments:
        examples = lines[lines.index("examples:") + 1 :]
        assert len(examples) >= 3
        assert all(line.startswith(f"  {name} {arguments[0]} ") for line in examples)
    else:
        assert re.search(r"\n +serve .*\n +client .*COMMAND --help`", "\n".join(lines), re.DOTALL)


@pytest.mark.parametrize("command", ["serve", "client"])
def test_help_is_complete(command: str) -> None:
    """It has the exit statuses, the environment, and each option with its default."""
    text = helped(command)
    statuses = text.partition("\nexit status:\n")[2].partition("\n\n")[0]
    assert set(map(int, re.findall(r"^  (\d+) ", statuses, re.MULTILINE))) == set(ExitStatus)
    assert "\nenvironment:\n  GREETER_HOST, GREETER_PORT " in text
    usage, _, rest = text.partition("\n\n")
    options = set(re.findall(r"--[a-z-]+", usage)) - {"--help"}
    assert len(options) > 5
    for option in options:
        assert re.search(rf"^  {option}\b.*(\n {{10,}}|  +)\S", rest, re.MULTILINE), option
    for words in re.findall(r"^  --\S+ SECONDS\s+([^-]+)", rest, re.MULTILINE):
        assert "(default: " in words


def test_help_has_signals_and_limits() -> None:
    text = helped("serve")
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
