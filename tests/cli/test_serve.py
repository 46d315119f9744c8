"""`serve`: its log, its end by signals, what it cannot do, and peers that behave badly."""

import contextlib
import errno
import re
import signal
import socket
import sys
import time

import pytest

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
    environment,
    free_port,
    hello,
    in_shell,
    met,
    run,
    serving,
    started,
)

# The log


def test_log() -> None:
    """The log has a line when the server waits, when a client comes, and when it has gone: who, why, and how much."""
    with serving() as server:
        with met(server.port) as peer:
            who = "{}:{}".format(*peer.socket.getsockname())
            assert server.log.line() == f"Accept new connection from {who}"
            peer.say(b"Ada\nBob\nexit\n")
            assert peer.hear_rest().endswith(GOODBYE)
        closed = server.log.line()
        assert re.fullmatch(
            rf"Connection from {re.escape(who)} is closed: the client said exit; 2 names in \d+\.\d s", closed
        )
        assert server.stop() == ""


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
        server.log.expect(b"is closed: the connection was lost (Connection reset by peer); 0 names in ")
        with met(server.port) as peer:
            peer.say(b"x" * 1025)
            assert peer.hear_rest() == b"Sorry, names are limited to 1024 bytes.\n"
        server.log.expect(b'is closed: the server said "Sorry, names are limited to 1024 bytes."; 0 names in ')


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
        assert server.log.rest().count(b"\n") == 3


# Its end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signal_says_goodbye(number: signal.Signals) -> None:
    """SIGINT and SIGTERM: every open conversation hears Goodbye! and the end of the connection; exit status 0."""
    with serving() as server, met(server.port) as silent, met(server.port) as talker, met(server.port) as typist:
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
    """A signal ends a server that nobody talks to, without a word."""
    with serving() as server:
        assert server.stop(signal.SIGINT) == ""


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


def test_second_signal_ends_it_at_once() -> None:
    """A peer that never reads what it is sent holds up nobody else, and a second signal does not wait for it."""
    with serving() as server, met(server.port) as deaf, met(server.port) as peer:
        fill(deaf)
        peer.say(b"Ada\n")
        peer.hear(hello("Ada") + PROMPT)
        server.process.send_signal(signal.SIGINT)
        assert peer.hear_rest() == GOODBYE  # so the first one has been noticed
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == -signal.SIGINT  # left alone it would take 15 seconds


def fill(deaf: Peer) -> None:
    """Ask for greetings, and read none, until the server takes no more names because it cannot get rid of them."""
    deaf.socket.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
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
    assert_one_complaint(done, 1, f"cannot listen on 127.0.0.1 port {port}", "Address already in use", "--port")


def test_privileged_port() -> None:
    """A port that is not for everybody is one line that says so, and exit status 1."""
    drop = "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 10, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
    humble = (sys.executable, "-c", drop)  # without CAP_NET_BIND_SERVICE (10), which PR_CAPBSET_DROP (24) takes away
    bind = "import socket; socket.create_server(('127.0.0.1', 1))"
    if b"PermissionError" not in run(command=(*humble, sys.executable, "-c", bind)).stderr:
        pytest.skip("on this machine every port is for everybody")
    done = run("serve", "--port", "1", command=(*humble, *COMMAND))
    assert_one_complaint(done, 1, "cannot listen on 127.0.0.1 port 1", "Permission denied", "1024")


def test_address_of_another_machine() -> None:
    """An address that is not this machine's is one line that names it, and exit status 1."""
    done = run("serve", "--host", "192.0.2.1", "--port", "0")
    assert_one_complaint(done, 1, "cannot listen on 192.0.2.1 port 0", "Cannot assign requested address", "--host")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b"])
def test_no_such_host(host: str) -> None:
    """A host that has no address is one line that names it, and exit status 1."""
    done = run("serve", "--host", host, "--port", "0")
    assert_one_complaint(done, 1, f"cannot listen on {host} port 0", "--host")


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
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving("--host", "::1") as server, connected(server.port, "::1") as peer:
        peer.hear(WELCOME)
        assert server.log.line().startswith("Accept new connection from [::1]:")


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
    """With --framing raw what comes together is a name, even after an LF."""
    with serving("--framing", "raw") as server, met(server.port) as peer:
        peer.say(b"Ada\nBob")
        peer.hear(hello("Ada") + PROMPT + hello("Bob") + PROMPT)


# Peers


def test_three_clients() -> None:
    """Three clients are served at the same time, each in its own conversation."""
    with serving() as server, met(server.port) as ada, met(server.port) as bob, met(server.port) as cleo:
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
