"""Signals at every moment, to every command, as process 1, and in all that it may wait for."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hostile import children, end_of, in_namespace, without_threads
from tests.support.processes import (
    COMMAND,
    PATIENCE,
    Output,
    Process,
    environment,
    in_shell,
    met,
    run,
    serving,
    started,
)
from tests.support.words import GOODBYE

if sys.platform == "win32":
    pytest.skip("it has no such signals", allow_module_level=True)

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
OUR_FIRST_LINE = b"from greeter_trio._cli.early import prepare"
ENDED = {INT: (-INT, 130), TERM: (-TERM, 143)}


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("serve --port 0", INT),
        ("serve --port 0", TERM),
        ("client --port {}", INT),
        ("demo --no-segments", INT),
    ],
)
def test_a_signal_at_any_moment(number: signal.Signals, command: str, port: int) -> None:
    """It ends the process, and there is no traceback.

    Python itself, before our first line has done its work, is interrupted with one by SIGINT: that
    is from 8 to 15 ms after the start here.
    """
    words = command.format(port).split()
    for milliseconds in (0, 25, 50, 75, 100, 120, 140, 160, 180, 300):
        with started(*COMMAND, *words) as process:
            time.sleep(milliseconds / 1000)
            process.send_signal(number)
            status, _, err = end_of(process)
        if b"Traceback" in err and (b"/greeter_trio/" not in err or OUR_FIRST_LINE in err):
            continue
        assert b"Traceback" not in err, (milliseconds, err)
        # A server that is up ends well, and so does a client that has nothing left to read.
        assert status in (*ENDED[number], 0), (milliseconds, err)


def test_our_first_line_is_early() -> None:
    """What comes before signals are ready imports nothing that Python has not at its start."""
    script = "import sys; before = set(sys.modules); import greeter_trio._cli.early; "
    script += "print(*sorted(set(sys.modules) - before))"
    done = run("-S", "-c", script, command=[sys.executable])
    new = done.stdout.decode().split()
    ours = [name for name in new if name.startswith("greeter_trio")]
    assert ours == ["greeter_trio", "greeter_trio._cli", "greeter_trio._cli.early"]
    assert not {"signal", "typing", "enum", "trio", "types"} & set(new)


@pytest.mark.parametrize("numbers", [(INT, TERM), (TERM, INT, INT), (HUP, TERM, INT, HUP)], ids=len)
def test_a_burst_of_signals(numbers: tuple[signal.Signals, ...], port: int) -> None:
    """One of them ends the tool; a server ends well, or by one of them."""
    with started(*COMMAND, "client", "--port", f"{port}", stdin=-1) as client:
        time.sleep(0.5)
        for number in numbers:
            client.send_signal(number)
        status, _, err = end_of(client)
    # To a shell the same: one that comes at the very end, or before the loop runs, ends it itself.
    assert status in {end for number in numbers for end in (128 + number, -number)}
    assert err == b""
    with serving() as server:
        for number in numbers:
            server.process.send_signal(number)
        status = server.process.wait(PATIENCE)
        assert status in (0, *(-number for number in numbers))
        assert "Traceback" not in server.log.rest().decode()


# What is waited for meanwhile


@pytest.mark.parametrize("option", ["--drain-delay", "--grace"])
def test_a_second_signal_while_a_server_waits(option: str) -> None:
    with serving(option, "600") as server, met(server.port) as peer:
        server.process.send_signal(TERM)
        server.log.expect(b"Shutting down: 1 conversation\n")
        if option == "--grace":
            assert peer.hear_rest() == GOODBYE  # and the peer does not close
        server.process.send_signal(INT)
        server.wait(-INT)


@pytest.fixture
def hanging_resolver(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """Return a command in whose surroundings the server of DNS never answers."""
    where = "127.83.17.53"
    resolv, hosts = tmp_path / "resolv.conf", tmp_path / "nsswitch.conf"
    resolv.write_text(f"nameserver {where}\noptions timeout:20\n")
    hosts.write_text("hosts: dns\n")
    script = f"mount --bind {resolv} /etc/resolv.conf && mount --bind {hosts} /etc/nsswitch.conf &&"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind((where, 53))
        except OSError as exc:
            pytest.skip(f"this process may not be a server of DNS: {exc}")
        yield (*in_namespace("-m"), "sh", "-c", f'{script} exec "$@"', "sh", *COMMAND)


@pytest.mark.parametrize("number", [INT, TERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["client", "--host", "greeter.example", "Ada"], None),
        (["serve", "--host", "greeter.example"], 0),
    ],
    ids=["client", "serve"],
)
def test_a_signal_while_a_name_is_resolved(
    number: signal.Signals,
    words: list[str],
    status: int | None,
    hanging_resolver: tuple[str, ...],
) -> None:
    with started(*hanging_resolver, *words) as process:
        time.sleep(0.7)
        assert process.poll() is None
        start = time.monotonic()
        process.send_signal(number)
        assert end_of(process) == (128 + number if status is None else status, b"", b"")
        assert time.monotonic() < start + 5


def test_a_resolver_that_hangs_and_a_timeout(hanging_resolver: tuple[str, ...]) -> None:
    words = ("client", "--host", "greeter.example", "--timeout", "0.5", "Ada")
    with started(*hanging_resolver, *words) as process:
        status, out, err = end_of(process)
    where = b"greeter.example:6000"
    said = b"greeter: cannot connect to %b: its name was not resolved within 0.5 s\n" % where
    assert (status, out, err) == (3, b"", said)


@pytest.mark.parametrize("option", ["--ca", "--cert"])
def test_a_signal_while_a_fifo_waits_for_its_writer(option: str, port: int, tmp_path: Path) -> None:
    """The event loop waits with it, and cannot take the signal."""
    os.mkfifo(tmp_path / "fifo")
    words = ("client", "--port", f"{port}", "--tls", option, str(tmp_path / "fifo"), "Ada")
    with started(*COMMAND, *words) as process:
        time.sleep(0.5)
        assert process.poll() is None
        process.terminate()
        assert end_of(process) == (-TERM, b"", b"")


# Process 1, which the kernel spares from every signal that has no handler


def only_child(process: Process) -> int:
    """Return the process id, here, of the process 1 that this command has started."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := children(process):
            return found[0]
    raise AssertionError("there is no process 1")


@pytest.fixture
def as_first() -> tuple[str, ...]:
    return (*in_namespace("-pf", "--kill-child"), *COMMAND)


def test_a_server_as_process_1(as_first: tuple[str, ...]) -> None:
    """The first signal shuts it down, and the second one ends it."""
    with started(*as_first, "serve", "--port", "0", "--drain-delay", "600") as process:
        log = Output(process.stderr)
        log.expect(b"Waiting for connection on ")
        first = only_child(process)
        os.kill(first, TERM)
        log.expect(b"Shutting down: 0 conversations\n")
        os.kill(first, TERM)
        assert process.wait(PATIENCE) == 143
        log.join()


def test_no_signal_is_lost_at_the_start_of_process_1(as_first: tuple[str, ...]) -> None:
    """From our first line on, one is enough, whenever it comes."""
    for milliseconds in (40, 70, 100, 150, 200):
        with started(*as_first, "serve", "--port", "0") as process:
            first = only_child(process)
            time.sleep(milliseconds / 1000)
            os.kill(first, TERM)
            assert process.wait(PATIENCE) in (0, 143)


@pytest.mark.parametrize("number", [INT, TERM, HUP], ids=["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_client_as_process_1(
    as_first: tuple[str, ...], number: signal.Signals, port: int
) -> None:
    with started(*as_first, "client", "--port", f"{port}", stdin=-1) as process:
        first = only_child(process)
        time.sleep(0.5)
        os.kill(first, number)
        status, out, err = end_of(process)
    assert (status, out, err) == (128 + number, b"", b"")


def test_a_server_under_nohup() -> None:
    """SIGHUP, which the parent has had ignored, remains so."""
    with serving(command=in_shell("trap '' HUP; exec \"$@\"")) as server:
        server.process.send_signal(HUP)
        with met(server.port) as peer:
            assert peer.say(b"exit\n").hear_rest() == GOODBYE


# No thread can be had


def test_no_thread_can_be_had() -> None:
    """What needs none works; what does says so in one line."""
    command = (*without_threads(), *COMMAND)
    env = environment()
    with started(*command, "serve", "--port", "0", env=env) as process:
        log = Output(process.stderr)
        port = log.line().rpartition(":")[2]
        done = run("client", "--port", port, "Ada", command=command)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"Hello Ada!\n", b"")
        done = run("client", "--port", port, "--json", stdin=b"Ada\nBob\n", command=command)
        assert (done.returncode, done.stdout.count(b"\n"), done.stderr) == (0, 2, b"")
        log.expect(b" is closed: the client said exit; 2 names in ")
        process.terminate()
        assert process.wait(PATIENCE) == 0
        log.expect(b"Counters: ")
        log.join()
    why = "a thread is needed to resolve its name, and cannot be started (can't start new thread)"
    for words, status, what in [
        (["serve", "--host", "localhost", "--port", "0"], 1, "listen on localhost:0"),
        (["client", "--host", "localhost", "Ada"], 4, "connect to localhost:6000"),
    ]:
        done = run(*words, command=command)
        assert done.stderr.decode() == f"greeter: cannot {what}: {why}\n"
        assert done.returncode == status
