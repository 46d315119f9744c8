"""`serve`: its log, its end by signals, what it cannot do, and peers that behave badly."""

import contextlib
import errno
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from greeter_trio._cli import main
from tests.cli.helpers import (
    COMMAND,
    ESCAPES,
    GOODBYE,
    HOST,
    PATIENCE,
    PROMPT,
    WELCOME,
    Peer,
    assert_one_complaint,
    connected,
    connected_to_file,
    environment,
    free_port,
    hello,
    in_shell,
    met,
    run,
    serving,
    serving_at,
    started,
)
from tests.trio.certificates import Authority

if sys.platform == "win32":
    pytest.skip("these tests use signals and a shell", allow_module_level=True)

# The log


def test_log() -> None:
    """The log has a line when the server waits, when a client comes, and when it has gone: who, why, and how much."""
    with serving() as server:
        with met(server.port) as peer:
            who = "{}:{}".format(*peer.socket.getsockname())
            assert server.log.line() == f"Accept new connection from {who} (#1)"
            peer.say(b"Ada\nBob\nexit\n")
            assert peer.hear_rest().endswith(GOODBYE)
        closed = server.log.line()
        sent = len(WELCOME + PROMPT + hello("Ada") + PROMPT + hello("Bob") + PROMPT + GOODBYE)
        assert re.fullmatch(
            rf"Connection from {re.escape(who)} is closed: the client said exit; "
            rf"2 names in \d+\.\d s, 13 bytes in, {sent} out \(#1\)",
            closed,
        )
        shutting, counters = server.stop().splitlines()
        assert shutting == "Shutting down: 0 conversations"
        assert counters == (
            "Counters: greeter_connections_accepted_total 1, greeter_connections_open 0, "
            'greeter_connections_closed_total{reason="exit"} 1, greeter_names_greeted_total 2, '
            f"greeter_received_bytes_total 13, greeter_sent_bytes_total {sent}, greeter_accept_failures_total 0"
        )


def test_log_says_why_a_connection_is_closed() -> None:
    """The log tells apart a client that has ended its stream, broken the connection, or been refused."""
    with serving() as server:
        with met(server.port) as peer:
            peer.say(b"Ada\n")
            peer.hear(hello("Ada") + PROMPT)
            peer.end()
            assert peer.hear_rest() == b""
        server.log.expect(b"is closed: the client ended it; 1 name in ")
        met(server.port).reset()
        server.log.expect(
            b"is closed: the connection was lost (Connection reset by peer); 0 names in "
        )
        with met(server.port) as peer:
            peer.say(b"x" * 1025)
            assert peer.hear_rest() == b"Sorry, names are limited to 1024 bytes.\n"
        server.log.expect(
            b'is closed: the server said "Sorry, names are limited to 1024 bytes."; 0 names in '
        )


def test_standard_output_stays_empty() -> None:
    """The server writes nothing to standard output."""
    with started(*COMMAND, "serve", "--port", "0") as process:
        assert process.stderr
        assert process.stdout
        port = int(process.stderr.readline().rpartition(b":")[2])
        with met(port) as peer:
            peer.say(b"exit\n")
            assert peer.hear_rest() == GOODBYE
        process.terminate()
        assert process.stdout.read() == b""


def test_terminal_escapes_never_reach_the_log() -> None:
    """A name with terminal escapes is echoed exactly on the wire, and the log has none of it raw."""
    with serving() as server:
        with met(server.port) as peer:
            peer.say(f"{ESCAPES}\nexit\n".encode())
            assert peer.hear_rest() == hello(ESCAPES) + PROMPT + GOODBYE
        log = server.stop()
    assert "1 name in" in log
    assert "".join(log.splitlines()).isprintable()


def test_nothing_leaks() -> None:
    """In Python's development mode, which reports what is not closed, the server's log is the same as ever."""
    with serving(env=environment(PYTHONDEVMODE="1")) as server:
        with met(server.port) as peer:
            peer.say(b"exit\n")
            assert peer.hear_rest() == GOODBYE
        met(server.port).reset()
        server.log.expect(b"lost")
        with met(server.port) as peer:
            server.process.terminate()
            assert peer.hear_rest() == GOODBYE
        assert server.process.wait(PATIENCE) == 0
        assert server.log.rest().count(b"\n") == 5


# Its end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signal_says_goodbye(number: signal.Signals) -> None:
    """SIGINT and SIGTERM: every open conversation hears Goodbye! and the end of the connection; exit status 0."""
    with (
        serving() as server,
        met(server.port) as silent,
        met(server.port) as talker,
        met(server.port) as typist,
    ):
        talker.say(b"Ada\n")
        talker.hear(hello("Ada") + PROMPT)
        typist.say(b"Bob\nGra")
        typist.hear(hello("Bob") + PROMPT)
        server.process.send_signal(number)
        for peer in (silent, talker, typist):
            assert peer.hear_rest() == GOODBYE
            peer.end()
        assert server.process.wait(PATIENCE) == 0
        assert server.log.rest().count(b"is closed: the server is shutting down; ") == 3


def test_signal_with_nobody_connected() -> None:
    """A signal ends a server that nobody talks to, at once."""
    with serving() as server:
        shutting, counters = server.stop(signal.SIGINT).splitlines()
        assert shutting == "Shutting down: 0 conversations"
        assert counters.startswith("Counters: greeter_connections_accepted_total 0, ")


def test_nobody_is_accepted_after_a_signal() -> None:
    """While the last conversations end, nobody else can connect."""
    with serving() as server, met(server.port) as peer:
        server.process.terminate()
        assert peer.hear_rest() == GOODBYE  # it lingers now, until the peer ends, too
        with pytest.raises(OSError) as refused:  # noqa: PT011 - the number tells
            connected(server.port).hear(WELCOME)
        assert refused.value.errno in (errno.ECONNREFUSED, errno.ECONNRESET)
        peer.end()
        assert server.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_second_signal_ends_it_at_once(second: signal.Signals) -> None:
    """A peer that never reads what it is sent holds up nobody else, and a second signal does not wait for it."""
    with serving() as server, met(server.port) as deaf, met(server.port) as peer:
        fill(deaf)
        peer.say(b"Ada\n")
        peer.hear(hello("Ada") + PROMPT)
        server.process.send_signal(signal.SIGTERM)
        assert peer.hear_rest() == GOODBYE  # so the first one has been noticed
        assert server.process.poll() is None
        server.process.send_signal(second)
        assert server.process.wait(10) == -second  # left alone it would take 15 seconds


def test_a_client_that_is_cut_off() -> None:
    """Where a conversation had to be cut off the exit status is 3, and the log says how many."""
    with serving("--grace", "0.2") as server, met(server.port) as deaf:
        fill(deaf)
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 3
        *_, cut, counters = server.log.rest().decode().splitlines()
        assert cut == "Grace of 0.2 s ran out: 1 conversation cut off"
        assert ' greeter_connections_closed_total{reason="cut"} 1, ' in counters


def test_drain_delay() -> None:
    """With --drain-delay clients are still welcomed after the signal, for so long."""
    with serving("--drain-delay", "1") as server:
        server.process.terminate()
        assert server.log.line() == "Shutting down: 0 conversations"
        with met(server.port) as peer:
            peer.say(b"Ada\n")
            peer.hear(hello("Ada") + PROMPT)
            assert peer.hear_rest() == GOODBYE
        assert server.process.wait(PATIENCE) == 0


def test_sigkill_and_restart() -> None:
    """A server that was killed while clients were connected is replaced on the same port at once."""
    with serving() as server, met(server.port) as one, met(server.port) as two:
        server.process.kill()
        server.process.wait(PATIENCE)
        with serving_at("--port", str(server.port)) as other, met(other.port) as peer:
            assert other.port == server.port
            assert one.hear_rest() == two.hear_rest() == b""
            peer.say(b"exit\n")
            assert peer.hear_rest() == GOODBYE


def fill(deaf: Peer) -> None:
    """Ask for greetings, and read none, until the server takes no more names because it cannot get rid of them."""
    deaf.socket.settimeout(0.5)
    with contextlib.suppress(TimeoutError, ConnectionError):
        for _ in range(2000):
            deaf.say(b"name\n" * 10_000)
        pytest.fail("the server takes everything")


def test_sigint_ignored() -> None:
    """A server that was started with SIGINT ignored, as a shell's background jobs are, ends at SIGTERM."""
    with serving(command=in_shell("trap '' INT; exec \"$@\"")) as server, met(server.port) as peer:
        server.process.terminate()
        assert peer.hear_rest() == GOODBYE
        peer.end()
        assert server.process.wait(PATIENCE) == 0


# What it cannot do


def test_port_in_use() -> None:
    """A port that somebody else listens on is one line that names address and port, and exit status 1."""
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        done = run("serve", "--port", str(port))
    assert_one_complaint(
        done, 1, f"cannot listen on 127.0.0.1:{port}: Address already in use", "--reuse-port"
    )


def test_privileged_port() -> None:
    """A port that is not for everybody is one line that says so, and exit status 1."""
    drop = "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 10, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
    humble = (
        sys.executable,
        "-c",
        drop,
    )  # without CAP_NET_BIND_SERVICE (10), which PR_CAPBSET_DROP (24) takes away
    bind = "import socket; socket.create_server(('127.0.0.1', 1))"
    if b"PermissionError" not in run(command=(*humble, sys.executable, "-c", bind)).stderr:
        pytest.skip("on this machine every port is for everybody")
    done = run("serve", "--port", "1", command=(*humble, *COMMAND))
    assert_one_complaint(done, 1, "cannot listen on 127.0.0.1:1: Permission denied", "1024")


def test_address_of_another_machine() -> None:
    """An address that is not this machine's is one line that names it, and exit status 1."""
    done = run("serve", "--host", "192.0.2.1", "--port", "0")
    assert_one_complaint(done, 1, "cannot listen on 192.0.2.1:0: Cannot assign requested address")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
def test_no_such_host(host: str) -> None:
    """A host that has no address is one line that names it, and exit status 1."""
    done = run("serve", "--host", host, "--port", "0")
    assert_one_complaint(done, 1, f"cannot listen on {host}:0: ", "check the name of the host")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--port", "65536"),
        ("--port", ""),
        ("--port", "8" * 5000),
        ("--framing", "words"),
        ("--idle-timeout", "0"),
        ("--idle-timeout", "soon"),
        ("--max-clients", "3"),
    ],
)
def test_wrong_usage(option: str, value: str) -> None:
    """A wrong value is named with its option in the last line on standard error; exit status 2."""
    done = run("serve", option, value)
    last = done.stderr.decode().splitlines()[-1]
    assert done.returncode == 2, last
    assert option in last
    assert value in last
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--listen", "127.0.0.1:0", "--port", "0"], ["--listen", "--host and --port"]),
        (["--listen", "127.0.0.1:0", "--host", "127.0.0.1"], ["--listen", "--host and --port"]),
        (["--listen", "6000"], ["--listen", "HOST:PORT", "'6000'"]),
        (["--listen", "unix:"], ["--listen", "1 to 107 bytes"]),
        (["--listen", "fd:x"], ["--listen", "'x'"]),
        (["--listen", "[::1]"], ["--listen", "'[::1]'"]),
        (["--host", ""], ["--host must not be empty"]),
        (["--tls-key", "key.pem"], ["--tls-key needs --tls-cert"]),
        (["--tls-client-ca", "ca.pem"], ["--tls-client-ca needs --tls-cert"]),
        (["--proxy-protocol", "maybe"], ["--proxy-protocol", "'maybe'"]),
        (["--max-connections", "0"], ["--max-connections", "1 or more", "'0'"]),
        (["--max-connections", "1.5"], ["--max-connections", "whole number", "'1.5'"]),
        (["--when-full", "panic"], ["--when-full", "'panic'"]),
        (["--max-lifetime", "-1"], ["--max-lifetime"]),
        (["--handshake-timeout", "0"], ["--handshake-timeout", "more than 0", "'0'"]),
        (["--send-timeout", "nan"], ["--send-timeout", "'nan'"]),
        (["--drain-delay", "inf"], ["--drain-delay", "finite", "'inf'"]),
        (["--grace", "0"], ["--grace", "more than 0"]),
        (["--log-level", "trace"], ["--log-level", "'trace'"]),
        (["--log-format", "xml"], ["--log-format", "'xml'"]),
        (["Ada"], ["unrecognized arguments: Ada"]),
    ],
    ids=" ".join,
)
def test_usage(options: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What makes no sense, alone or together, is named in the last line on standard error; exit status 2."""
    with pytest.raises(SystemExit) as exit_:
        main(["serve", *options])
    out, err = capsys.readouterr()
    assert exit_.value.code == 2
    assert out == ""
    for part in parts:
        assert part in err.splitlines()[-1]


# Options and environment


def test_port_from_the_environment() -> None:
    """Without --port, GREETER_PORT is the port; 0 is a free one."""
    with started(*COMMAND, "serve", env=environment(GREETER_PORT="0")) as process:
        assert process.stderr
        port = int(process.stderr.readline().rpartition(b":")[2])
        assert port != 0
        met(port).socket.close()


def test_wrong_port_from_the_environment() -> None:
    """A wrong GREETER_PORT is named; exit status 2."""
    done = run("serve", env=environment(GREETER_PORT="http"))
    assert done.returncode == 2
    assert "GREETER_PORT" in (last := done.stderr.decode().splitlines()[-1])
    assert "'http'" in last


def test_host_from_the_environment() -> None:
    """Without --host, GREETER_HOST is the address; with it, it is not looked at."""
    env = environment(GREETER_HOST="192.0.2.1")
    assert_one_complaint(run("serve", "--port", "0", env=env), 1, "192.0.2.1")
    with serving("--host", HOST, env=env) as server:
        met(server.port).socket.close()


def test_ipv6() -> None:
    """An IPv6 address is logged in brackets."""
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with serving("--host", "::1") as server, connected(server.port, "::1") as peer:
        peer.hear(WELCOME)
        assert server.log.line().startswith("Accept new connection from [::1]:")


def has_ipv6() -> bool:
    """Return whether this machine has an IPv6 address of its own."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_idle_timeout() -> None:
    """A client that names nobody within --idle-timeout is told so, and the connection ends; the log says why."""
    with serving("--idle-timeout", "0.2") as server:
        with met(server.port) as silent:
            assert silent.hear_rest() == b"Sorry, no name came in time.\n"
        server.log.expect(b'is closed: the server said "Sorry, no name came in time."; 0 names in ')


def test_framing_lines() -> None:
    """With --framing lines a name waits for its LF, however long that takes."""
    with serving("--framing", "lines") as server, met(server.port) as peer:
        peer.say(b"A")
        peer.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            peer.socket.recv(1)
        peer.socket.settimeout(PATIENCE)
        peer.say(b"da\n")
        peer.hear(hello("Ada") + PROMPT)


def test_framing_raw() -> None:
    """With --framing raw what comes together is one name, whatever is in it."""
    with serving("--framing", "raw") as server, met(server.port) as peer:
        peer.say(b"Ada\nBob")
        peer.hear(hello("Ada\nBob") + PROMPT)


@pytest.mark.parametrize("when_full", ["wait", "reject"])
def test_max_connections(when_full: str) -> None:
    """With --max-connections the next client waits for its place, or is told that there is none."""
    with (
        serving("--max-connections", "1", "--when-full", when_full) as server,
        met(server.port) as guest,
        connected(server.port) as other,
    ):
        if when_full == "reject":
            assert other.hear_rest() == b"Sorry, the server is full.\n"
        guest.say(b"exit\n")
        assert guest.hear_rest() == GOODBYE
        guest.end()
        if when_full == "wait":
            other.hear(WELCOME + PROMPT)


def test_other_limits() -> None:
    """--max-lifetime, --handshake-timeout and --send-timeout do what they say."""
    with serving(
        "--max-lifetime", "0.3", "--handshake-timeout", "0.2", "--proxy-protocol", "require"
    ) as server:
        with connected(server.port) as peer:
            assert peer.hear_rest() == b""
            server.log.expect(b"is closed: no PROXY header within 0.2 s; ")
        with connected(server.port) as peer:
            peer.say(b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 6000\r\n")
            assert peer.hear_rest() == WELCOME + PROMPT + GOODBYE
            server.log.expect(b"Accept new connection from 192.0.2.1:4711 through 127.0.0.1:")
    with serving("--send-timeout", "0.2") as server, met(server.port) as deaf:
        fill(deaf)
        server.log.expect(
            b"is closed: the connection was lost (the peer took less than 64 KiB in 0.2 s); "
        )


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc/PID/limits")
def test_descriptors_are_allowed() -> None:
    """The server has as many descriptors as it may have, and not the few of the soft limit."""
    with serving(command=in_shell('ulimit -S -n 64 && exec "$@"')) as server:
        limits = Path(f"/proc/{server.process.pid}/limits").read_text()
    found = re.search(r"^Max open files +(\d+) +(\d+) ", limits, re.MULTILINE)
    assert found
    assert found[1] == found[2] != "64"


def test_few_descriptors() -> None:
    """A server that has no descriptors left serves those who are there, and others again when they have left."""
    with (
        serving(command=in_shell('ulimit -n 20 && exec "$@"')) as server,
        contextlib.ExitStack() as opened,
    ):
        peer = opened.enter_context(met(server.port))
        crowd = [opened.enter_context(connected(server.port)) for _ in range(30)]
        server.log.expect(
            f"Cannot accept connections on {server.names[0]}: Too many open files; ".encode()
        )
        peer.say(b"Ada\n")
        peer.hear(hello("Ada") + PROMPT)
        for each in crowd[:-1]:
            each.socket.close()
        crowd[-1].hear(WELCOME + PROMPT)


# Where it listens


def test_listen(tmp_path: Path) -> None:
    """--listen can be repeated, and each place is served; at the end the file of a Unix socket is gone."""
    path = tmp_path / "socket"
    wanted = ["127.0.0.1:0", f"unix:{path}"]
    if has_ipv6():
        wanted.append("[::1]:0")
    options = [option for where in wanted for option in ("--listen", where)]
    with serving_at(*options, listeners=len(wanted)) as server:
        assert server.names[1] == wanted[1]
        peers = [connected(server.port), connected_to_file(str(path))]
        if len(wanted) == 3:
            peers.append(connected(int(server.names[2].rpartition(":")[2]), "::1"))
        for peer in peers:
            with peer:
                peer.hear(WELCOME + PROMPT)
                peer.say(b"exit\n")
                assert peer.hear_rest() == GOODBYE
        assert path.is_socket()
        log = server.stop()
    assert f"Accept new connection from unix:{path} (#" in log
    assert not path.exists()


def test_unix_socket_of_a_server_that_was_killed(tmp_path: Path) -> None:
    """The file that a killed server has left is replaced by the next one, and that of a living server is not."""
    where = f"unix:{tmp_path / 'socket'}"
    with serving_at("--listen", where) as server:
        server.process.kill()
        server.process.wait(PATIENCE)
        with serving_at("--listen", where):
            assert_one_complaint(
                run("serve", "--listen", where),
                1,
                f"cannot listen on {where}",
                "someone is listening",
            )
            with connected_to_file(str(tmp_path / "socket")) as peer:
                peer.hear(WELCOME)


def test_listening_descriptor() -> None:
    """With fd:N the server listens on a socket that it was started with, and leaves its backlog to the next one."""
    with socket.create_server((HOST, 0)) as sock:
        options = ("--listen", f"fd:{sock.fileno()}")
        with serving_at(*options, pass_fds=[sock.fileno()]) as server, met(server.port) as peer:
            assert server.port == sock.getsockname()[1]
            peer.say(b"exit\n")
            assert peer.hear_rest() == GOODBYE
            peer.end()
            server.stop()
        early = connected(server.port)
        with serving_at(*options, pass_fds=[sock.fileno()]), early:
            early.hear(WELCOME + PROMPT)


def test_descriptor_that_is_something_else() -> None:
    """A descriptor that is no listening socket is one line, and exit status 1."""
    assert_one_complaint(run("serve", "--listen", "fd:0"), 1, "cannot listen on fd:0: ", "socket")
    assert_one_complaint(
        run("serve", "--listen", "fd:77"), 1, "cannot listen on fd:77: ", "pass the descriptor"
    )


# What systemd does: sockets from descriptor 3 on, for a process whose number it knows.
_ACTIVATE = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("more", [(), ("--listen", "127.0.0.1:0")], ids=["alone", "and more"])
def test_socket_activation(more: tuple[str, ...]) -> None:
    """A socket that systemd has opened is used, instead of the default address, or besides what was asked for."""
    with socket.create_server((HOST, 0)) as sock:
        early = connected(sock.getsockname()[1])
        command = (sys.executable, "-c", _ACTIVATE, str(sock.fileno()), *COMMAND)
        listeners = 1 + bool(more)
        with serving_at(
            *more, listeners=listeners, command=command, pass_fds=[sock.fileno()]
        ) as server:
            assert server.port == sock.getsockname()[1]
            with early:
                early.hear(WELCOME + PROMPT)
            with met(int(server.names[-1].rpartition(":")[2])) as peer:
                peer.say(b"exit\n")
                assert peer.hear_rest() == GOODBYE


def test_sockets_for_another_process() -> None:
    """LISTEN_FDS is of no interest to a process that it is not for."""
    with serving(env=environment(LISTEN_FDS="1", LISTEN_PID="1")) as server:
        met(server.port).socket.close()


def test_notify_socket(tmp_path: Path) -> None:
    """Who started it is told when the server is ready, and when it is stopping."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(PATIENCE)
        with serving(env=environment(NOTIFY_SOCKET=str(tmp_path / "notify"))) as server:
            assert supervisor.recv(100) == b"READY=1"
            with met(server.port) as peer:
                server.process.terminate()
                assert peer.hear_rest() == GOODBYE
                assert supervisor.recv(100) == b"STOPPING=1"
            assert server.process.wait(PATIENCE) == 0


def test_port_file(tmp_path: Path) -> None:
    """The port file is there when the server waits, has the port, and stays: by then it may be a successor's."""
    path = tmp_path / "port"
    with serving("--port-file", str(path)) as server:
        assert path.read_text() == f"{server.port}\n"
        port = server.port
        server.stop()
    assert path.read_text() == f"{port}\n"
    assert list(tmp_path.iterdir()) == [path]


def test_port_file_that_cannot_be_written(tmp_path: Path) -> None:
    """A port file that cannot be written is one line, and exit status 1; the file of a Unix socket does not stay."""
    where = f"unix:{tmp_path / 'socket'}"
    path = tmp_path / "folder" / "port"
    done = run("serve", "--listen", where, "--port-file", str(path))
    assert_one_complaint(done, 1, f"cannot write the port file {path}", "the folder must exist")
    assert list(tmp_path.iterdir()) == []


def test_reuse_port() -> None:
    """Two servers share a port if both of them want to."""
    with serving("--reuse-port") as one, serving_at("--port", str(one.port), "--reuse-port") as two:
        assert one.port == two.port
        port = str(one.port)
        assert_one_complaint(
            run("serve", "--port", port), 1, f"cannot listen on 127.0.0.1:{port}", "--reuse-port"
        )
        one.stop()
        met(port=two.port).socket.close()


# Signals that do not end it


def test_a_log_that_nobody_reads() -> None:
    """A pipe that is full of log lines stops neither the server nor its shutdown."""
    with started(
        *COMMAND, "serve", "--port", "0", "--framing", "lines", stdout=subprocess.DEVNULL
    ) as process:
        assert process.stderr
        port = int(process.stderr.readline().rpartition(b":")[2])
        for _ in range(600):  # two lines each, and a pipe has room for 64 KiB
            with met(port) as peer:
                peer.say(b"exit\n")
                assert peer.hear_rest() == GOODBYE
        process.terminate()
        assert process.wait(PATIENCE) == 0
        assert len(process.stderr.read()) <= 65536


def test_hangup_without_tls() -> None:
    """Without TLS there is nothing to load again: SIGHUP, as from a terminal that goes, says goodbye to everybody."""
    with serving() as server, met(server.port) as peer:
        server.process.send_signal(signal.SIGHUP)
        assert peer.hear_rest() == GOODBYE
        peer.end()
        assert server.process.wait(PATIENCE) == 0


def test_counters() -> None:
    """At SIGUSR1 the counters are written to the log, of open conversations as well, and the server goes on."""
    with serving() as server, met(server.port) as peer:
        peer.say(b"Ada\nBob\n")
        peer.hear(hello("Ada") + PROMPT + hello("Bob") + PROMPT)
        server.log.line()
        server.process.send_signal(signal.SIGUSR1)
        assert server.log.line() == (
            "Counters: greeter_connections_accepted_total 1, greeter_connections_open 1, "
            "greeter_names_greeted_total 2, greeter_received_bytes_total 8, greeter_sent_bytes_total 82, "
            "greeter_accept_failures_total 0"
        )
        peer.say(b"exit\n")
        assert peer.hear_rest() == GOODBYE
        peer.end()
        last = server.stop().splitlines()[-1]
        assert (
            'greeter_connections_open 0, greeter_connections_closed_total{reason="exit"} 1, '
            in last
        )


def test_certificate_is_loaded_again(tmp_path: Path) -> None:
    """At SIGHUP the certificate is loaded again, for new clients, and systemd is told; a broken one changes nothing."""
    authority = Authority(tmp_path)
    cert = Path(authority.issue("localhost"))
    trusting = ssl.create_default_context(cafile=authority.path)

    def meet() -> tuple[Peer, bytes]:
        sock = socket.create_connection((HOST, server.port), timeout=PATIENCE)
        tls = trusting.wrap_socket(sock, server_hostname="localhost")
        peer = Peer(tls)
        peer.hear(WELCOME + PROMPT)
        return peer, tls.getpeercert(binary_form=True) or b""

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(PATIENCE)
        env = environment(NOTIFY_SOCKET=str(tmp_path / "notify"))
        with serving("--tls-cert", str(cert), "--log-level", "info", env=env) as server:
            assert supervisor.recv(100) == b"READY=1"
            old, first = meet()
            cert.write_bytes(Path(authority.issue("localhost")).read_bytes())
            server.process.send_signal(signal.SIGHUP)
            server.log.expect(
                b"The TLS certificate was loaded again: it holds for new connections\n"
            )
            assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", supervisor.recv(100))
            assert supervisor.recv(100) == b"READY=1"
            new, second = meet()
            assert first != second
            cert.write_text("nonsense")
            server.process.send_signal(signal.SIGHUP)
            server.log.expect(
                f"The TLS certificate stays as it was: {cert}: there is no certificate in it".encode()
            )
            assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", supervisor.recv(100))
            assert supervisor.recv(100) == b"READY=1"
            newest, third = meet()
            assert second == third
            for peer in (old, new, newest):
                with peer:
                    peer.say(b"Ada\nexit\n")
                    peer.hear(hello("Ada") + PROMPT + GOODBYE)


def test_certificate_that_cannot_be_used(tmp_path: Path) -> None:
    """A certificate that is none is one line that names the file, and exit status 1."""
    path = tmp_path / "cert.pem"
    assert_one_complaint(
        run("serve", "--port", "0", "--tls-cert", str(path)), 1, f"{path}: No such file"
    )


# The log's options


def test_json_log() -> None:
    """With --log-format json every line is an object, and those of a connection have its facts."""
    with started(*COMMAND, "serve", "--port", "0", "--log-format", "json") as process:
        assert process.stderr
        first = json.loads(process.stderr.readline())
        with met(int(first["message"].rpartition(":")[2])) as peer:
            peer.say(ESCAPES.encode() + b"\nexit\n")
            peer.hear_rest()
        process.terminate()
        told = [json.loads(line) for line in process.stderr.read().splitlines()]
        assert process.wait(PATIENCE) == 0
    assert [line.get("event") for line in told] == ["open", "closed", None, None]
    assert {line["level"] for line in [first, *told]} == {"info"}
    assert (told[1]["reason"], told[1]["names"], told[1]["connection"]) == ("exit", 1, 1)
    assert told[-1]["greeter_names_greeted_total"] == 1


def test_log_level() -> None:
    """With --log-level warning nothing is logged while nothing is wrong; with debug every event is."""
    with started(
        *COMMAND, "serve", "--port", "0", "--port-file", "/dev/null/port", "--log-level", "warning"
    ) as process:
        assert process.wait(PATIENCE) == 1
    port = free_port()
    with started(*COMMAND, "serve", "--port", str(port), "--log-level", "warning") as process:
        with met_as_soon_as_possible(port) as peer:
            peer.say(b"exit\n")
            assert peer.hear_rest() == GOODBYE
        process.terminate()
        assert process.stderr
        assert process.stderr.read() == b""
    with serving("--log-level", "debug") as server, met(server.port) as peer:
        peer.say(b"Ada\n")
        server.log.expect(b"#1 NamesReceived(names=(b'Ada',))\n")


# Peers


def test_three_clients() -> None:
    """Three clients are served at the same time, each in its own conversation."""
    with (
        serving() as server,
        met(server.port) as ada,
        met(server.port) as bob,
        met(server.port) as cleo,
    ):
        for name, peer in (("Ada", ada), ("Bob", bob), ("Cleo", cleo)) * 2:
            peer.say(f"{name}\n".encode())
            peer.hear(hello(name) + PROMPT)
        for peer in (cleo, ada, bob):
            peer.say(b"exit\n")
            assert peer.hear_rest() == GOODBYE


@pytest.mark.parametrize("end", [b"", b"\n"], ids=["unterminated", "line"])
def test_long_names(port: int, end: bytes) -> None:
    """A name of 1024 bytes is greeted; one more is refused, and so is what comes after it."""
    with met(port) as peer:
        name = b"x" * 1024
        peer.say(name + end)
        peer.hear(hello(name) + PROMPT)
        peer.say(name + b"x" + end)
        assert peer.hear_rest() == b"Sorry, names are limited to 1024 bytes.\n"


def test_goodbye_survives_what_nobody_reads(port: int) -> None:
    """A client that goes on talking after exit, and reads late, still finds its Goodbye!."""
    with met(port) as peer:
        peer.say(b"exit\n" + b"x" * 10_000_000)
        assert peer.hear_rest() == GOODBYE


def test_peer_that_resets() -> None:
    """Peers that break their connections, at any moment, do no harm to anybody else."""
    with serving() as server, met(server.port) as other:
        connected(server.port).reset()
        met(server.port).reset()
        peer = met(server.port)
        peer.say(b"name\n" * 50_000)
        peer.reset()
        for _ in range(3):
            server.log.expect(b"is closed: the connection was lost (")
        other.say(b"exit\n")
        assert other.hear_rest() == GOODBYE


# Standard streams


def test_standard_error_broken() -> None:
    """A server whose log nobody reads any more goes on, and ends well."""
    with started(*COMMAND, "serve", "--port", "0") as process:
        assert process.stderr
        port = int(process.stderr.readline().rpartition(b":")[2])
        process.stderr.close()
        for _ in range(2):
            with met(port) as peer:
                peer.say(b"exit\n")
                assert peer.hear_rest() == GOODBYE
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_standard_error_closed(closed: str) -> None:
    """A server that was started without standard error, or without any standard stream, works and ends well."""
    port = free_port()
    with started(*in_shell(f'exec "$@" {closed}'), "serve", "--port", str(port)) as process:
        with met_as_soon_as_possible(port) as peer:
            peer.say(b"Ada\nexit\n")
            assert peer.hear_rest() == hello("Ada") + PROMPT + GOODBYE
        process.terminate()
        assert process.wait(PATIENCE) == 0


def met_as_soon_as_possible(port: int) -> Peer:
    """Connect to a server that cannot say when it is ready."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        with contextlib.suppress(ConnectionRefusedError):
            return met(port)
        time.sleep(0.02)
    pytest.fail("the server is never ready")


def test_standard_input_closed() -> None:
    """A server that was started without standard input works and ends well."""
    with serving(command=in_shell('exec "$@" <&-')) as server, met(server.port) as peer:
        peer.say(b"Ada\nexit\n")
        assert peer.hear_rest() == hello("Ada") + PROMPT + GOODBYE
