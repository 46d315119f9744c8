"""Recording, tracing, replaying and demonstrating from the command line."""

import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel

from greeter_core import Step, read_transcript, replay
from greeter_trio._cli import demo as _demo
from greeter_trio._cli import main
from greeter_trio._cli import progress as _progress
from greeter_trio._cli import replay as _replay
from greeter_trio._cli.output import wants_colour
from greeter_trio._show.demo import Demo
from tests.support.processes import COMMAND, in_shell, run, run_client, serving, started
from tests.support.recordings import GOLDEN

pytest.importorskip("fcntl", reason="these tests use signals, pipes and devices of Unix")
_os: Any = os
_signal: Any = signal

Capture = pytest.CaptureFixture[str]
DEV_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")


def golden_lines(name: str = "nc") -> list[bytes]:
    return (GOLDEN / f"{name}.jsonl").read_bytes().splitlines(keepends=True)


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """Undo what commands do to signals in this process; some let SIGPIPE end it."""
    numbers = [_signal.SIGPIPE, _signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP]
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def check(path: Path) -> int:
    """Return how many steps a recording has, and check that it replays."""
    with path.open("rb") as file:
        assert replay(read_transcript(file)) is None
    with path.open("rb") as file:
        return sum(isinstance(item, Step) for _, item in read_transcript(file))


# --record and --trace


def test_server_and_client_are_recorded_and_traced(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "server.jsonl", tmp_path / "client.jsonl"
    traced = in_shell(f'exec "$@" > {tmp_path}/trace')
    with serving("--record", str(theirs), "--trace", command=traced) as server:
        done = run_client(server.port, "--record", str(ours), "--trace", "Ada", "小明")
        assert done.returncode == 0
        assert done.stdout.decode() == "Hello Ada!\nHello 小明!\n"
        drawn = done.stderr.decode()
        assert "the client's core" in drawn
        assert "小明⏎" in drawn
        server.stop()
    assert "the server's core" in (tmp_path / "trace").read_text("utf-8")
    assert check(theirs) >= 5
    assert check(ours) >= 8


@pytest.mark.parametrize("command", ["client --port 1 Ada", "serve --port 0"])
@pytest.mark.parametrize(
    ("where", "why"),
    [("{tmp}", "Is a directory"), ("{tmp}/x/y", "No such file or directory")],
)
def test_record_that_cannot_be_opened(
    command: str, where: str, why: str, tmp_path: Path, capfd: Capture
) -> None:
    path = where.format(tmp=tmp_path)
    assert main([*command.split(), "--record", path]) == 1
    assert capfd.readouterr().err == f"greeter: cannot write to {path}: {why}\n"


@DEV_FULL
def test_record_on_a_full_disk(capfd: Capture) -> None:
    assert main(["serve", "--port", "0", "--record", "/dev/full"]) == 1
    message = "greeter: cannot write to /dev/full: No space left on device\n"
    assert message in capfd.readouterr().err


def test_recording_is_kept_when_the_port_is_taken(tmp_path: Path) -> None:
    record = tmp_path / "record"
    record.write_text("what was recorded before")
    with serving() as server:
        done = run("serve", "--port", str(server.port), "--record", str(record))
    assert done.returncode == 1
    assert record.read_text() == "what was recorded before"


def test_disk_that_fails_later_stops_the_recording_and_not_the_server(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    _os.mkfifo(fifo)
    reader = subprocess.Popen(["head", "-n", "1", str(fifo)], stdout=subprocess.PIPE)
    with serving("--record", str(fifo)) as server:
        assert reader.communicate(timeout=20)[0] == b'{"transcript": 1}\n'
        for _ in range(3):
            assert run_client(server.port, "Ada").returncode == 0
        log = server.stop()
    assert log.count("any more: Broken pipe") == 1


# replay


def test_replay_of_a_real_conversation(capfd: Capture) -> None:
    assert main(["replay", str(GOLDEN / "nc.jsonl")]) == 0
    out, err = capfd.readouterr()
    assert (out, err) == ("1 conversation, 6 steps: everything came out as it was recorded\n", "")


def test_replay_draws(tmp_path: Path, capfd: Capture) -> None:
    page = tmp_path / "page.html"
    assert main(["replay", "--trace", "--page", str(page), str(GOLDEN / "telnet.jsonl")]) == 0
    assert "Hello Ada!⏎" in capfd.readouterr().out
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_replay_shows_the_first_difference(tmp_path: Path, capfd: Capture) -> None:
    lines = golden_lines()
    at = next(i for i, line in enumerate(lines) if b"Hello Ada" in line)
    lines[at] = lines[at].replace(b"Hello Ada", b"Hello Eda")
    path = tmp_path / "changed"
    path.write_bytes(b"".join(lines))
    assert main(["replay", "--trace", str(path)]) == 1
    first, expected, got = capfd.readouterr().out.splitlines()[-3:]
    assert first == f"{path}, line {at + 1}: this step comes out differently (output)"
    assert expected.startswith('expected  {"id": 1')
    assert "Hello Eda" in expected
    assert "Hello Ada" in got


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "line 1: the file is empty, and so no transcript"),
        (b"GIF89a\0\0", "line 1: this is no transcript"),
        (b"\xff\xfe\n", "line 1: this is not UTF-8"),
        (b'{"transcript": 2}\n', "line 1: this is a transcript of version 2, and only 1 is known"),
        (golden_lines()[0] + b"[" * 9999 + b"\n", "line 2: this is nested too deeply"),
        (
            golden_lines()[0] + b"1" * 9999 + b"\n",
            "line 2: a number has too many digits",
        ),
    ],
    ids=["empty", "GIF", "not UTF-8", "version", "depth", "digits"],
)
def test_damaged_file(content: bytes, why: str, tmp_path: Path, capfd: Capture) -> None:
    path, page = tmp_path / "damaged", tmp_path / "page"
    path.write_bytes(content)
    assert main(["replay", "--page", str(page), str(path)]) == 2
    assert capfd.readouterr().err == f"greeter: {path} is damaged: {why}\n"
    assert not page.exists()


def test_line_without_end(tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_replay, "_LONGEST", 1000)
    path = tmp_path / "long"
    path.write_bytes(golden_lines()[0] + b" " * 5000)
    assert main(["replay", str(path)]) == 2
    assert capfd.readouterr().err.endswith("line 2: it has more than 999 bytes\n")


def test_last_line_that_is_cut_short_is_reported_and_left_out(
    tmp_path: Path, capfd: Capture
) -> None:
    path = tmp_path / "cut"
    path.write_bytes(b"".join(golden_lines())[:-9])
    assert main(["replay", str(path)]) == 0
    out, err = capfd.readouterr()
    assert err == f"greeter: line {len(golden_lines())} is cut short, and left out\n"
    assert "as it was recorded" in out


def test_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "windows"
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(golden_lines()).replace(b"\n", b"\r\n"))
    assert main(["replay", str(path)]) == 0


@pytest.mark.parametrize("command", ["replay /dev/null", "demo --no-segments"])
def test_closed_standard_output(command: str) -> None:
    done = run(*command.split(), command=in_shell('exec "$@" >&-'))
    assert done.returncode == 1
    assert done.stderr.startswith((b"greeter: standard output is", b"greeter: cannot write to sta"))
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("replay {tmp}/missing", "cannot read {tmp}/missing: No such file or directory"),
        ("replay {tmp}", "cannot read {tmp}: Is a directory"),
        ("replay {nc} --page {tmp}", "cannot write to {tmp}: Is a directory"),
        ("replay {nc} --page {tmp}/x/y", "cannot write to {tmp}/x/y: No such file or directory"),
    ],
)
def test_files_that_cannot_be_used(
    arguments: str, message: str, tmp_path: Path, capfd: Capture
) -> None:
    names = {"tmp": tmp_path, "nc": GOLDEN / "nc.jsonl"}
    assert main(arguments.format(**names).split()) == 1
    assert capfd.readouterr().err == f"greeter: {message.format(**names)}\n"


@DEV_FULL
def test_full_disks_of_replay() -> None:
    done = run("replay", "--page", "/dev/full", str(GOLDEN / "nc.jsonl"))
    assert (done.returncode, done.stderr[:42]) == (1, b"greeter: cannot write to /dev/full: No spa")
    full = in_shell('exec "$@" > /dev/full')
    done = run("replay", "--trace", str(GOLDEN / "nc.jsonl"), command=full)
    message = b"greeter: cannot write to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, message)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGPIPE")
def test_reader_of_the_trace_has_left() -> None:
    shell = f"{' '.join(COMMAND)} replay --trace {GOLDEN / 'pipelining.jsonl'} | head -n 1"
    done = subprocess.run(shell, shell=True, capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (b"\n", b"")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ("replay {tmp}/a --page {tmp}/a", "--page and FILE"),
        ("replay {tmp}/a --page {tmp}/b", "--page and FILE"),
        ("demo --record {tmp}/x --page {tmp}/../{name}/x", "--record and --page"),
        ("demo --pcap {tmp}/x --record {tmp}/x", "--record and --pcap"),
        ("serve --record {tmp}/x --port-file {tmp}/x", "--record and --port-file"),
        ("serve --tls-cert {tmp}/a --record {tmp}/a", "--record and --tls-cert"),
        ("client --tls --ca {tmp}/a --record {tmp}/a", "--record and --ca"),
    ],
    ids=["same", "hard link", "dots", "pcap", "port file", "certificate", "authority"],
)
def test_same_file_twice(arguments: str, names: str, tmp_path: Path, capfd: Capture) -> None:
    (tmp_path / "a").write_text("recording")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    with pytest.raises(SystemExit, match=r"^2$"):
        main(arguments.format(tmp=tmp_path, name=tmp_path.name).split())
    assert f"error: {names} are the same file: " in capfd.readouterr().err
    assert (tmp_path / "a").read_text() == "recording"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("demo --pcap x --no-segments", "--pcap needs the segments: leave out --no-segments"),
        (
            "demo --clients 0",
            "argument --clients: must be a number of clients from 1 to 20, not '0'",
        ),
        (
            "demo --clients 21",
            "argument --clients: must be a number of clients from 1 to 20, not '21'",
        ),
    ],
)
def test_wrong_usage_of_demo(arguments: str, message: str, capfd: Capture) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(arguments.split())
    assert capfd.readouterr().err.endswith(f"error: {message}\n")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it takes long; and it is taken away at the end."""
    monkeypatch.setattr(_replay, "_OFTEN", 2)
    for delay, shown in ((0, True), (60, False)):
        monkeypatch.setattr(_progress, "_DELAY", delay)
        monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
        assert main(["replay", str(GOLDEN / "nc.jsonl")]) == 0
        assert ("\r1 conversation, 2 steps" in terminal.getvalue()) is shown
        assert terminal.getvalue().endswith(" \r" if shown else "")


def test_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert not wants_colour(12345)
    monkeypatch.setattr(os, "isatty", lambda _: True)
    assert wants_colour(1)
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_colour(1)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(1)


# demo


def test_demo(tmp_path: Path) -> None:
    record, page, file = (tmp_path / name for name in ("record", "page", "pcap"))
    files = ("--record", str(record), "--page", str(page), "--pcap", str(file))
    done = run("demo", "--clients", "1", *files)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    assert [f"\n{number}. " in shown for number in (1, 2, 3)] == [True] * 3
    assert max(map(len, shown.splitlines())) <= 80
    assert check(record) > 20
    assert "SYN ACK" in page.read_text("utf-8")
    if "what TCP's rules let expect" in shown:
        assert "┄┄ SYN  seq 0 ┄" in shown
    else:
        assert "╌╌ SYN  seq 0 ╌" in shown
        tcpdump = shutil.which("tcpdump")
        if tcpdump:
            command = [tcpdump, "-nr", str(file)]
            read = subprocess.run(command, capture_output=True, check=True)
            assert read.stdout.count(b"Flags [S]") == 4  # one, one, and the original twice


def test_pcap_without_a_capture(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise PermissionError(1, "Operation not permitted")

    async def play(_: object) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(_demo, "_open_capture", refuse)
    monkeypatch.setattr(Demo, "run", play)
    file = tmp_path / "pcap"
    assert main(["demo", "--pcap", str(file)]) == 1
    out, err = capfd.readouterr()
    assert "cannot be captured here: Operation not permitted." in out
    assert err == f"greeter: no segments were captured, so nothing is written to {file}\n"
    assert not file.exists()


def test_demo_that_breaks_off(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: object) -> None:
        async with trio.open_nursery():
            raise OSError("the network is away")

    monkeypatch.setattr(Demo, "run", fail)
    assert main(["demo", "--no-segments"]) == 1
    assert capfd.readouterr().err == "greeter: the demonstration broke off: the network is away\n"


def test_demo_without_segments() -> None:
    with started(*COMMAND, "demo", "--no-segments") as process:
        assert process.stdout
        shown = [process.stdout.readline().decode() for _ in range(8)]
    assert "what TCP's rules let expect" in "".join(shown)
    assert "┄┄ SYN  seq 0 ┄" in "".join(shown)


def test_interrupted_demo() -> None:
    with started(*COMMAND, "demo") as process:
        assert process.stdout
        while b"Welcome" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")
