"""`client --every`: a line for each conversation, and a summary."""

import contextlib
import json
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from greeter_core import read_transcript, replay
from greeter_trio._cli import stdio
from greeter_trio._cli.client_options import ClientOptions
from greeter_trio._cli.options import parse
from greeter_trio._cli.watch import watch
from tests.support.clocks import SETTLED
from tests.support.peers import Peer, scripted
from tests.support.plays import Step, after, conversation, hears_rest, play, says
from tests.support.processes import (
    COMMAND,
    PATIENCE,
    Output,
    Process,
    free_port,
    in_shell,
    run,
    serving,
    started,
)
from tests.support.words import PROMPT, WELCOME

if sys.platform == "win32":
    pytest.skip("these tests use signals and a shell", allow_module_level=True)

import fcntl
import termios

GREETS = conversation("probe")
REFUSES = says(b"Sorry, no.\n")
SILENT = hears_rest()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what is written to standard output."""
    texts: list[str] = []

    async def take(_: object, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        texts.append(data.decode())

    monkeypatch.setattr(stdio, "in_thread", take)
    return texts


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    autojump_clock.autojump_threshold = SETTLED
    return autojump_clock


async def watched(*plays: Step, options: str = "", times: list[float] | None = None) -> int:
    """Watch a server that plays these, one for each connection; return the exit status."""
    count = 0

    async def serve(peer: Peer) -> None:
        nonlocal count
        count += 1
        if times is not None:
            times.append(trio.current_time())
        await plays[count - 1](peer)

    async with scripted(serve) as port:
        words = f"client --port {port} --count {len(plays)} --every 1 {options}"
        parsed = parse(words.split())
        assert isinstance(parsed, ClientOptions)
        return await watch(parsed)


def objects(written: list[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    *visits, last = map(json.loads, "".join(written).splitlines())
    return visits, last["summary"]


async def test_lines_and_summary(clock: MockClock, written: list[str]) -> None:
    status = await watched(GREETS, REFUSES, REFUSES, GREETS)
    assert status == 8  # that of the last one that has failed
    head, one, two, three, four, *summary = "".join(written).splitlines()
    how = "every 1 s, times in ms; Ctrl-C ends it"
    assert re.fullmatch(rf"Watching 127\.0\.0\.1:\d+ {how}", head)
    number = r" +\d+\.\d\d"
    greeted = rf"127\.0\.0\.1:\d+  connect{number}  first byte{number}  greeting{number}"
    begun = r"\d\d:\d\d:\d\d    \d "
    assert re.fullmatch(begun + greeted, one)
    assert re.fullmatch(begun + "the server refused: Sorry, no.", two)
    assert re.fullmatch(begun + "refused, as before", three)
    assert re.fullmatch(begun + greeted, four)
    assert re.fullmatch(r"--- 127\.0\.0\.1:\d+: 4 conversations in 3\.0 s ---", summary[1])
    assert summary[2] == "2 greeted, 2 failed (50.00%): refused 2"
    assert re.fullmatch(r"longest outage 2\.00 s, from [\d:.]+ to [\d:.]+", summary[3])
    assert summary[4].split() == ["ms", "(±1", "%)", "min", "median", "99", "%", "max"]
    assert [line[:12].strip() for line in summary[5:]] == ["connect", "first byte", "greeting"]
    assert max(map(len, "".join(written).splitlines())) <= 80


async def test_objects(clock: MockClock, written: list[str]) -> None:
    slow = play(after(0.25), GREETS)
    assert await watched(slow, SILENT, GREETS, options="--json --timeout 5") == 3
    visits, summary = objects(written)
    assert [visit["conversation"] for visit in visits] == [1, 3, 2]  # as they ended
    one, three, two = visits
    assert (one["name"], one["greeting"]) == ("probe", "Hello probe!")
    assert (one["first_byte_ms"], one["greeting_ms"]) == (250, 0)
    assert two["error"]["code"] == "timed_out"
    assert (two["greeting"], two["error"]["stage"]) == (None, "welcome")
    assert "error" not in three
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one["time"])
    assert summary["conversations"] == 3
    assert (summary["greeted"], summary["failed"]) == (2, {"timed_out": 1})
    assert summary["longest_outage"]["seconds"] == 1
    assert summary["first_byte_ms"]["max"] == 250


async def test_a_slow_conversation_does_not_delay_the_next(
    clock: MockClock, written: list[str]
) -> None:
    times: list[float] = []
    slow = play(after(7.5), GREETS)
    assert await watched(slow, slow, GREETS, GREETS, times=times) == 0
    assert times == pytest.approx([0, 1, 2, 3])


async def test_several_names(clock: MockClock, written: list[str]) -> None:
    assert await watched(conversation("Ada", "Bob"), options="--json Ada Bob exit") == 0
    (visit,), _ = objects(written)
    assert visit["greeting"] == "Hello Bob!"


async def test_the_host_is_resolved_each_time(
    clock: MockClock, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    getaddrinfo = trio.socket.getaddrinfo

    async def note(host: str, *arguments: Any, **more: Any) -> Any:
        if arguments[0]:  # a server that is opened has none yet
            asked.append(host)
        return await getaddrinfo(host, *arguments, **more)

    monkeypatch.setattr(trio.socket, "getaddrinfo", note)
    await watched(GREETS, GREETS, GREETS)
    assert asked == ["127.0.0.1"] * 3


async def test_failures_at_each_stage(clock: MockClock, written: list[str]) -> None:
    stuck = play(says(WELCOME), hears_rest())
    early = says(WELCOME + PROMPT + b"Goodbye!\n")
    assert await watched(stuck, early, options="--json --timeout 2") == 3
    visits, _ = objects(written)
    assert {(each["error"]["code"], each["error"]["stage"]) for each in visits} == {
        ("timed_out", "prompt"),
        ("refused", "greeting"),
    }


# Processes


@contextlib.contextmanager
def watching(port: int, *options: str, **streams: Any) -> Iterator[tuple[Process, Output]]:
    words = ("client", "--port", f"{port}", "--every", "0.05", *options)
    with started(*COMMAND, *words, **streams) as process:
        yield process, Output(process.stdout)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_it_with_the_summary(number: signal.Signals, status: int) -> None:
    with serving() as server, watching(server.port) as (process, output):
        for _ in range(4):
            output.line()
        process.send_signal(number)
        assert process.wait(PATIENCE) == status
        rest = output.rest().decode()
        assert process.stderr
        assert process.stderr.read() == b""
    assert re.search(r"\n--- 127\.0\.0\.1:\d+: \d+ conversations in ", rest)
    assert " greeted, 0 failed\n" in rest


def test_ctrl_c_after_a_failure() -> None:
    with watching(free_port(), "--json") as (process, output):
        output.line()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 4
        last = json.loads(output.rest().splitlines()[-1])
    assert last["summary"]["greeted"] == 0
    assert last["summary"]["longest_outage"]["to"] is None


def wait_until_full(pipe: int) -> None:
    """Wait until a program that writes to a pipe has filled it, and what it keeps itself."""
    before = -1
    while (now := arrived(pipe)) > before or not now:
        before = now
        time.sleep(0.3)


def arrived(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_server_that_hangs_is_told_at_ctrl_c() -> None:
    """Before the timeout of the first conversation."""
    with socket.create_server(("127.0.0.1", 0)) as silent, watching(silent.getsockname()[1]) as it:
        process, output = it
        for _ in range(3):
            silent.accept()[0].detach()  # it stays open as long as this process
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 3
        assert re.search(
            r"0 greeted, 0 failed, \d+ unfinished, the oldest for", output.rest().decode()
        )


def test_a_signal_ends_it_though_nobody_reads() -> None:
    """Its summary waits for a reader, but not for long."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        options = ("client", "--port", f"{port}", "--every", "0.001", "--timeout", "0.01")
        with started(*COMMAND, *options) as process:
            assert process.stdout
            wait_until_full(process.stdout.fileno())
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 3


def test_a_reader_that_leaves() -> None:
    with serving() as server:
        shell = (
            f'"$@" client --port {server.port} --every 0.01 | head -3; echo "${{PIPESTATUS[0]}}"'
        )
        done = run(command=("bash", "-c", shell, "bash", *COMMAND))
    lines = done.stdout.decode().splitlines()
    assert (len(lines), lines[-1], done.stderr) == (4, "141", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk() -> None:
    command = in_shell('exec "$@" > /dev/full')
    done = run("client", "--port", f"{free_port()}", "--every", "1", command=command)
    message = b"greeter: cannot write to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, message)


def test_it_can_be_recorded(tmp_path: Path) -> None:
    record = tmp_path / "record"
    with serving() as server:
        options = ("--every", "0.01", "--count", "5", "--record", str(record))
        assert run("client", "--port", f"{server.port}", *options).returncode == 0
    with record.open("rb") as file:
        items = list(read_transcript(file))
    assert replay(items) is None
    assert {item.id for _, item in items} == {1, 2, 3, 4, 5}


def test_files_of_tls_are_read_first() -> None:
    done = run("client", "--tls", "--ca", "/nowhere", "--every", "1")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"greeter: /nowhere: No such file or directory\n"
