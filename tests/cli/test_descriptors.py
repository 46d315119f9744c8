"""Descriptors 0, 1 and 2 as others leave them: stalled, full, slow, closed, non-blocking."""

import contextlib
import errno
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.hostile import converse, end_of, in_namespace, passed_server, stalled
from tests.support.processes import (
    COMMAND,
    PATIENCE,
    Completed,
    Output,
    Process,
    environment,
    free_port,
    in_shell,
    run,
    started,
)
from tests.support.words import hello

if sys.platform == "win32":
    pytest.skip("it has no such descriptors", allow_module_level=True)

import pty

STALLED: dict[str, Callable[[], tuple[int, int]]] = {"pipe": os.pipe, "terminal": pty.openpty}
SOON = 3.0
"""Seconds that ending takes at most when nobody reads: one, and what a busy machine needs."""


def terminate(process: Process) -> tuple[int, bytes, bytes]:
    """End it by SIGTERM, which must take effect soon."""
    start = time.monotonic()
    process.terminate()
    ended = end_of(process)
    assert time.monotonic() < start + SOON
    return ended


# What the server writes


@pytest.mark.parametrize(("kind", "full"), [("pipe", True), ("terminal", False)])
@pytest.mark.parametrize(
    ("options", "stream"),
    [([], "stderr"), (["--log-level", "debug"], "stderr"), (["--trace"], "stdout")],
    ids=["log", "debug", "trace"],
)
def test_a_server_whose_output_nobody_reads(
    kind: str, options: list[str], stream: str, *, full: bool
) -> None:
    """It serves, and ends well."""
    with stalled(STALLED[kind], full=full) as (_, end), contextlib.ExitStack() as stack:
        streams: dict[str, Any] = {stream: end}
        process, port = stack.enter_context(passed_server(*options, **streams))
        for _ in range(220):
            converse(port, b"Ada")
        assert terminate(process)[0] == 0


def test_a_log_that_is_read_late() -> None:
    """Its lines are whole, and what was lost is told where it is missing."""
    with (
        stalled(os.pipe) as (reader, writer),
        passed_server("--log-level", "debug", stderr=writer) as (process, port),
    ):
        os.close(writer)
        name = b"x" * 1000
        for _ in range(3):
            converse(port, *[name] * 500)
        log = Output(reader)
        log.expect(b"The log could not be written: ")
        converse(port, b"Ada")
        assert terminate(process)[0] == 0
        log.rest()
        lines = log.all().splitlines()
    assert lines[-1].startswith(b"Counters: ")
    assert {len(line) for line in lines if name in line} <= {
        len(line) for line in lines[:50] if name in line
    }


def test_a_log_on_a_disk_that_is_full(tmp_path: Path) -> None:
    """The server serves; when there is room again, it tells how many lines are missing."""
    where = tmp_path / "disk"
    where.mkdir()
    script = 'mount -t tmpfs -o size=16k none "$0" && exec "$@" 2>>"$0/log"'
    command = (*in_namespace("-m"), "sh", "-c", script, str(where), *COMMAND)
    with passed_server(command=command) as (process, port):
        converse(port, b"Ada")
        disk = Path(f"/proc/{process.pid}/root{where}")  # as that process sees it
        log, filler = disk / "log", disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(512))
        for _ in range(60):
            converse(port, b"Ada")
        filler.unlink()
        converse(port, b"Ada")
        process.terminate()
        text = b""
        while b"Counters: " not in text:  # the namespace goes with its last process
            text = log.read_bytes() if log.exists() else text
        assert process.wait(PATIENCE) == 0
    (note,) = [line for line in text.splitlines() if b"dropped" in line]
    lost = int(note.split()[6])
    accepted = [line for line in text.splitlines() if line.startswith(b"Accept new")]
    closed = [line for line in text.splitlines() if line.startswith(b"Connection from")]
    assert note == b"The log could not be written: %d lines dropped" % lost
    assert len(accepted) + len(closed) + lost == 124


def test_a_recording_whose_reader_has_stalled(tmp_path: Path) -> None:
    """The server does not wait for it at its end."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fifo = os.open(path, os.O_RDWR)
    with passed_server("--record", str(path)) as (process, port):
        for _ in range(60):
            converse(port, *[b"x" * 1000] * 5)
        status, _, log = terminate(process)
    os.close(fifo)
    assert (status, b"cannot write to %b any more: it is not read" % bytes(path) in log) == (
        0,
        True,
    )


# What the tools read and write


@pytest.mark.parametrize(
    ("kind", "stream", "arguments"),
    [
        ("pipe", "stdout", "client --port {port} Ada"),
        ("pipe", "stdout", "client --port {port} --json Ada"),
        ("terminal", "stdout", "client --port {port} --json Ada"),
        ("pipe", "stderr", "client --port {closed} Ada"),
        ("pipe", "stderr", "client --port {port} --trace Ada"),
        ("terminal", "stderr", "client --port {port} --trace Ada"),
        ("pipe", "stderr", "client --port x"),
        ("pipe", "stdout", "client --help"),
        ("pipe", "stdout", "demo --no-segments"),
        ("terminal", "stdout", "demo --no-segments"),
    ],
)
def test_a_tool_whose_output_nobody_reads(
    kind: str, stream: str, arguments: str, port: int
) -> None:
    """SIGTERM ends it, wherever it waits."""
    words = arguments.format(port=port, closed=free_port()).split()
    with stalled(STALLED[kind], full=True) as (_, end), contextlib.ExitStack() as stack:
        streams: dict[str, Any] = {stream: end}
        process = stack.enter_context(started(*COMMAND, *words, **streams))
        time.sleep(0.4)
        # A short line can fit after all: a terminal makes room when somebody waits.
        assert terminate(process)[0] in (-signal.SIGTERM, 143, 0, 2, 4)


@pytest.mark.parametrize("kind", STALLED)
def test_a_slow_reader_of_a_descriptor_that_does_not_block(
    kind: str, port: int, tmp_path: Path
) -> None:
    """All greetings come; the flag, which other processes share, stays as it is."""
    names = [b"name %05d" % number for number in range(5000)]
    path = tmp_path / "names"
    path.write_bytes(b"\n".join(names))
    greetings = b""
    with path.open("rb") as file, stalled(STALLED[kind]) as (reader, writer):
        os.set_blocking(writer, False)
        arguments = ("client", "--port", f"{port}")
        with started(*COMMAND, *arguments, stdin=file, stdout=writer) as process:
            last = hello(names[-1]).rstrip()
            while last not in greetings:
                time.sleep(0.0005)
                greetings += os.read(reader, 4096)
            assert end_of(process) == (0, b"", b"")
        assert not os.get_blocking(writer)
    assert greetings.replace(b"\r", b"") == b"".join(map(hello, names))


def test_names_from_a_descriptor_that_does_not_block(port: int) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    with started(*COMMAND, "client", "--port", f"{port}", stdin=reader) as process:
        output = Output(process.stdout)
        for name in ("Ada", "Bob"):
            os.write(writer, f"{name}\n".encode())
            output.expect(hello(name))
        os.close(writer)
        assert process.wait(PATIENCE) == 0
    assert not os.get_blocking(reader)
    os.close(reader)


@pytest.mark.parametrize("arguments", [["client", "--port", "{}"], ["replay", "/dev/stdin"]])
def test_a_fifo_without_a_writer(arguments: list[str], port: int, tmp_path: Path) -> None:
    """It is waited for, and SIGTERM ends that."""
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDWR)
    words = [word.format(port) for word in arguments]
    with started(*COMMAND, *words, stdin=fifo) as process:
        time.sleep(0.5)
        assert process.poll() is None
        status, out, err = terminate(process)
    os.close(fifo)
    assert (status, out, err) in [(143, b"", b""), (-signal.SIGTERM, b"", b"")]


def in_its_place(arguments: str, redirection: str, port: int, recording: Path) -> Completed:
    words = arguments.format(port=port, recording=recording).split()
    return run(*words, command=in_shell(f'exec "$@" {redirection}'))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, port: int) -> Path:
    path = tmp_path_factory.mktemp("recording") / "recording"
    assert run("client", "--port", f"{port}", "--record", str(path), "Ada").returncode == 0
    return path


FULL = "greeter: cannot write to standard output: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    ("arguments", "redirection", "status", "said"),
    [
        ("client --port {port} Ada", ">/dev/full", 1, FULL),
        ("client --port {port} Ada", "2>/dev/full", 0, ""),
        ("client --port {port} --trace Ada", "2>/dev/full", 1, ""),
        ("replay {recording}", ">/dev/full", 1, FULL),
        ("replay {recording} --trace", ">/dev/full", 1, FULL),
        (
            "demo --no-segments --clients 1",
            ">/dev/full",
            1,
            FULL.replace(" output", " output any more"),
        ),
        (
            "client --port {port} --record /dev/full Ada",
            "",
            1,
            "greeter: cannot write to /dev/full: No space left on device\n",
        ),
    ],
)
def test_a_full_device(  # noqa: PLR0917 - pytest names them
    arguments: str, redirection: str, status: int, said: str, port: int, recording: Path
) -> None:
    """One line says so, and the exit status."""
    done = in_its_place(arguments, redirection, port, recording)
    assert (done.returncode, done.stderr.decode()) == (status, said)


CLOSINGS = ["".join(each) for each in itertools.product(("", "<&- "), ("", ">&- "), ("", "2>&- "))][
    1:
]


@pytest.mark.parametrize("closed", CLOSINGS)
def test_closed_in_every_combination(closed: str, port: int, recording: Path) -> None:
    """No socket or file takes the place of a stream, and nothing is printed to another one."""
    greeted = in_its_place("client --port {port} Ada", closed, port, recording)
    replayed = in_its_place("replay {recording}", closed, port, recording)
    wrong = in_its_place("client --port x", closed, port, recording)
    has_output, has_errors = " >&-" not in f" {closed}", "2>&-" not in closed
    assert greeted.stdout == (b"Hello Ada!\n" if has_output else b"")
    assert replayed.stdout.endswith(b"recorded\n" if has_output else b"")
    assert [greeted.returncode, replayed.returncode] == [not has_output] * 2
    assert bool(greeted.stderr) == bool(replayed.stderr) == (has_errors and not has_output)
    assert (wrong.returncode, wrong.stdout, bool(wrong.stderr)) == (2, b"", has_errors)


@pytest.mark.parametrize("arguments", ["client --port {port}", "demo --no-segments"])
def test_a_reader_that_leaves(arguments: str, port: int, recording: Path, tmp_path: Path) -> None:
    """As `head -1` does; the tool ends by SIGPIPE, without a word."""
    words = arguments.format(port=port, recording=recording).split()
    names = tmp_path / "names"
    names.write_bytes(b"".join(b"%d\n" % number for number in range(20_000)))
    with names.open("rb") as file, started(*COMMAND, *words, stdin=file) as process:
        assert process.stdout
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(PATIENCE) == -signal.SIGPIPE
        assert process.stderr
        assert process.stderr.read() == b""


def test_no_reading_of_standard_input(port: int) -> None:
    done = run("client", "--port", f"{port}", command=in_shell('exec "$@" <&- 0>/dev/null'))
    why = os.strerror(errno.EBADF)
    assert done.stderr.decode() == f"greeter: cannot read standard input: {why}\n"
    assert done.returncode == 1


def test_json_on_a_terminal(port: int) -> None:
    """It says what it waits for."""
    with stalled(pty.openpty) as (keyboard, line):
        arguments = ("client", "--port", f"{port}", "--json")
        with started(*COMMAND, *arguments, stdin=line) as process:
            said = Output(process.stderr)
            assert "Ctrl-D ends them" in said.line()
            os.write(keyboard, b"Ada\n\x04")
            assert process.wait(PATIENCE) == 0
            assert process.stdout
            assert b'"greeting": "Hello Ada!"' in process.stdout.read()


def test_output_that_python_does_not_buffer() -> None:
    """With PYTHONUNBUFFERED, as in many containers, each line is still written when it is there."""
    script = (
        "import os, sys; from greeter_trio._cli.output import prepared_output\n"
        "with prepared_output(): print('first'); os.write(1, b'second\\n')"
    )
    env = environment(PYTHONUNBUFFERED="1")
    done = run("-c", script, command=[sys.executable], env=env)
    assert done.stdout == b"first\nsecond\n"
