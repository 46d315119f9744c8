"""`serve`: what its options, signals and systemd make of the server, its log, its exit status."""

import json
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio

from greeter_core import Framing, ServerConfig
from greeter_trio import Limits
from greeter_trio._cli import main, serve, systemd
from greeter_trio._cli.log import logger
from greeter_trio._net.listeners import Listener
from greeter_trio._service.sessions import Sessions
from greeter_trio._service.settings import Settings
from tests.support import processes
from tests.support.certificates import Authority
from tests.support.processes import COMMAND, HOST, in_shell, met, serving, serving_at, started
from tests.support.words import ADA, GOODBYE, PROMPT

if sys.platform == "win32":
    pytest.skip("these tests use signals and a shell", allow_module_level=True)

import fcntl
import resource

Serve: TypeAlias = Callable[[list[Listener], Sessions, trio.Event], Awaitable[int]]
Capture: TypeAlias = pytest.CaptureFixture[str]


class Run:
    """The command in this process, with another server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.told: list[str] = []
        """What systemd was told."""
        monkeypatch.setattr(systemd, "notify", self.told.append)

    def __call__(self, options: str, server: Serve | None = None) -> int:
        """Return the exit status."""

        async def run(*arguments: Any) -> int:
            with trio.fail_after(processes.PATIENCE):
                return await server(*arguments) if server else 0

        self._monkeypatch.setattr(serve, "serve", run)
        return main(["serve", *options.split()])


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Return a function that runs the command; what the process has is as before in the end."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    handlers, level = {number: signal.getsignal(number) for number in numbers}, logger.level
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for number in numbers:  # one that is not handled must not end the tests
        signal.signal(number, lambda *_: pytest.fail("a signal is not handled"))
    yield Run(monkeypatch)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    logger.setLevel(level)


@pytest.mark.parametrize(("cut", "status"), [(0, 0), (2, 3)])
def test_options_and_exit_status(run: Run, cut: int, status: int, tmp_path: Path) -> None:
    """Listeners are open, and in the port file, when the server begins, and closed at the end.

    The server has as many descriptors as it may have, not the few of the soft limit. The exit
    status tells whether conversations had to be cut off.
    """
    path, where = tmp_path / "port", f"unix:{tmp_path}/socket"
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, most))
    opened: list[Listener] = []

    async def server(listeners: list[Listener], sessions: Sessions, _: object) -> int:
        opened.extend(listeners)
        port = path.read_text().strip()
        assert [listener.name for listener in listeners] == [where, f"127.0.0.1:{port}"]
        config, limits = ServerConfig(framing=Framing.LINES), Limits(grace=2)
        assert sessions.settings == Settings(config=config, limits=limits, proxy_protocol=True)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most)
        return cut

    listen = f"--listen {where} --listen 127.0.0.1:0 --port-file {path}"
    assert run(f"{listen} --framing lines --grace 2 --proxy-protocol require", server) == status
    assert [each.socket.fileno() for each in opened] == [-1, -1]
    assert list(tmp_path.iterdir()) == [path]  # by now it may be a successor's


def test_reuse_port(run: Run) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((HOST, 0))
        port = other.getsockname()[1]
        assert [run(f"--port {port}"), run(f"--port {port} --reuse-port")] == [1, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--port {port}", "127.0.0.1:{port}: Address already in use (choose another port; serv"),
        ("--listen fd:9999", "greeter: cannot listen on fd:9999: Bad file descriptor (the proce"),
        ("--port 0 --tls-cert {tmp}/c", "{tmp}/c: No such file or directory\n"),
        ("--listen unix:{tmp}/s --port-file {tmp}/x/port", "cannot write the port file {tmp}/x/p"),
    ],
    ids=["port in use", "no descriptor", "no certificate", "no folder"],
)
def test_failures(run: Run, options: str, message: str, tmp_path: Path, capfd: Capture) -> None:
    """One line says what is wrong; exit status 1; the file of a Unix socket does not stay."""
    with socket.create_server((HOST, 0)) as other:
        names = {"port": other.getsockname()[1], "tmp": tmp_path}
        assert run(options.format(**names)) == 1
    out, err = capfd.readouterr()
    assert message.format(**names) in err
    assert err.startswith("greeter: ")
    assert (err.count("\n"), out, list(tmp_path.iterdir())) == (1, "", [])


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Return a socket that systemd passes."""
    with socket.create_server((HOST, 0)) as sock:
        monkeypatch.setattr(systemd, "activated", lambda: [sock])
        yield sock


@pytest.mark.parametrize("options", ["", "--listen 127.0.0.1:0", "--port 0"])
def test_socket_activation(run: Run, options: str, passed: socket.socket) -> None:
    """Systemd's sockets come first, and replace the default address; they are shared and kept."""

    async def server(listeners: list[Listener], *_: object) -> int:
        assert [each.socket is passed for each in listeners] == [True, False][: 1 + bool(options)]
        assert listeners[0].shared
        assert listeners[0].kept
        return 0

    assert run(options, server) == 0


def test_socket_given_twice(run: Run, passed: socket.socket, capfd: Capture) -> None:
    number = passed.fileno()
    assert run(f"--listen fd:{number}") == 1
    message = f"systemd has passed descriptor {number}, so the server listens on it: leave out "
    assert capfd.readouterr().err == f"greeter: {message}--listen fd:{number}\n"


_ACTIVATE = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_activated_process() -> None:
    """Its socket is at descriptor 3."""
    with socket.create_server((HOST, 0)) as sock:
        command = (sys.executable, "-c", _ACTIVATE, f"{sock.fileno()}", *COMMAND)
        with serving_at(command=command, pass_fds=[sock.fileno()]) as server:
            assert server.port == sock.getsockname()[1]
            met(server.port).reset()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_shutdown(run: Run, name: str, capfd: Capture) -> None:
    """Without TLS there is nothing to load again at SIGHUP."""

    async def server(_: object, __: object, shutdown: trio.Event) -> int:
        assert run.told == ["READY=1"]
        signal.raise_signal(signal.Signals[name])
        await shutdown.wait()
        return 0

    assert run("--port 0", server) == 0
    assert run.told == ["READY=1", "STOPPING=1"]
    (counters,) = capfd.readouterr().err.splitlines()
    assert counters.startswith("Counters: greeter_connections_accepted_total 0, ")


def test_counters(run: Run, capfd: Capture) -> None:
    """SIGUSR1 writes them at any level; at the end they are a line of the level info."""

    async def server(*_: object) -> int:
        signal.raise_signal(signal.SIGUSR1)
        while not (log := capfd.readouterr().err):
            await trio.lowlevel.checkpoint()
        assert log.startswith("Counters: ")
        return 0

    assert run("--port 0 --log-level warning", server) == 0
    assert capfd.readouterr().err == ""


async def hang_up(run: Run, sessions: Sessions) -> object:
    """Have the certificate loaded again, and return what new connections use then."""
    run.told.clear()
    signal.raise_signal(signal.SIGHUP)
    while len(run.told) < 2:
        await trio.lowlevel.checkpoint()
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", run.told[0])
    assert run.told[1] == "READY=1"
    return sessions.settings.ssl_context


def test_certificate_is_loaded_again(run: Run, tmp_path: Path, capfd: Capture) -> None:
    """At SIGHUP, and systemd is told; one that cannot be used changes nothing."""
    cert = Path(Authority(tmp_path).issue("localhost"))

    async def server(_: object, sessions: Sessions, shutdown: trio.Event) -> int:
        first = sessions.settings.ssl_context
        second = await hang_up(run, sessions)
        assert None is not first is not second is not None
        cert.write_bytes(b"nonsense")
        assert await hang_up(run, sessions) is second
        assert not shutdown.is_set()
        return 0

    assert run(f"--port 0 --tls-cert {cert}", server) == 0
    loaded, stays, _ = capfd.readouterr().err.splitlines()
    assert loaded == "The TLS certificate was loaded again: it holds for new connections"
    assert stays.startswith(f"The TLS certificate stays as it was: {cert}: there is no certificate")


def test_certificate_from_a_pipe(run: Run, tmp_path: Path, capfd: Capture) -> None:
    """It cannot be read again: SIGHUP does not stop the server to wait for it."""
    out, into = os.pipe()
    os.write(into, Path(Authority(tmp_path).issue("localhost")).read_bytes())
    os.close(into)

    async def server(_: object, sessions: Sessions, __: object) -> int:
        context = sessions.settings.ssl_context
        assert context is not None
        assert await hang_up(run, sessions) is context
        return 0

    assert run(f"--port 0 --tls-cert /dev/fd/{out}", server) == 0
    os.close(out)
    stays, _ = capfd.readouterr().err.splitlines()
    why = "it is a pipe, which can be read only once, at the start"
    assert stays == f"The TLS certificate stays as it was: /dev/fd/{out}: {why}"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_log_of_a_process(number: signal.Signals) -> None:
    """Also in Python's development mode, which reports what is not closed."""
    with serving(env=processes.environment(PYTHONDEVMODE="1")) as server:
        with met(server.port) as peer:
            who = "{}:{}".format(*peer.socket.getsockname())
            assert server.log.line() == f"Accept new connection from {who} (#1)"
            peer.say(b"Ada\nexit\n")
            assert peer.hear_rest() == ADA + PROMPT + GOODBYE
        server.log.expect(b" is closed: the client said exit; 1 name in ")
        with met(server.port) as peer:
            server.log.expect(b" (#2)\n")
            server.process.send_signal(number)
            assert peer.hear_rest() == GOODBYE
        shutting, closed, counters = server.wait().splitlines()
    assert shutting == "Shutting down: 1 conversation"
    assert " is closed: the server is shutting down; 0 names in " in closed
    assert counters.startswith(
        "Counters: greeter_connections_accepted_total 2, greeter_connections_open 0, "
        'greeter_connections_closed_total{reason="exit"} 1, '
        'greeter_connections_closed_total{reason="shutdown"} 1, greeter_names_greeted_total 1, '
    )


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_second_signal(second: signal.Signals) -> None:
    """It ends the server at once, as it ends any program."""
    with serving("--drain-delay", "600") as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.log.line() == "Shutting down: 0 conversations"
        server.process.send_signal(second)
        server.wait(-second)


def test_log_options(run: Run, capfd: Capture) -> None:
    async def server(*_: object) -> int:
        assert logger.level == logging.ERROR
        logger.warning("not shown")
        logger.error("shown")
        return 0

    assert run("--port 0 --log-level error --log-format json", server) == 0
    assert json.loads(capfd.readouterr().err)["message"] == "shown"
    assert logger.handlers == []


@pytest.mark.parametrize("script", ["$@ 2>&-", "$@ <&- >&- 2>&-", "$@ <&-", "trap '' INT; $@"])
def test_standard_streams(script: str) -> None:
    """A server without some of them, or in the background of a shell, works and ends well."""
    with socket.create_server((HOST, 0)) as sock:
        command, fd = in_shell(script.replace("$@", 'exec "$@"')), sock.fileno()
        with (
            started(*command, "serve", "--listen", f"fd:{fd}", pass_fds=[fd]) as process,
            met(sock.getsockname()[1]) as peer,
        ):
            peer.say(b"Ada\n")
            peer.hear(ADA + PROMPT)
            process.terminate()
            assert peer.hear_rest() == GOODBYE
            peer.end()
            assert process.stdout
            assert (process.wait(processes.PATIENCE), process.stdout.read()) == (0, b"")


@pytest.mark.parametrize(("is_closed", "connections"), [(True, 3), (False, 40)])
def test_log_without_a_reader(*, is_closed: bool, connections: int) -> None:
    """It stops neither the server nor its shutdown."""
    if sys.platform != "linux":
        pytest.skip("a pipe cannot be made small there")
    with started(*COMMAND, "serve", "--port", "0") as process:
        assert process.stderr
        port = int(process.stderr.readline().rpartition(b":")[2])
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        if is_closed:
            process.stderr.close()
        for _ in range(connections):
            with met(port) as peer:
                peer.say(b"exit\n")
                assert peer.hear_rest() == GOODBYE
        process.terminate()
        assert process.wait(processes.PATIENCE) == 0
