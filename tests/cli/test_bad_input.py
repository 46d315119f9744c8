"""What people write in options, in the environment, and what files turn out to be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from greeter_core import ClientConnection, EndReason, LocalProtocolError
from greeter_trio import ConversationFailed
from greeter_trio._cli.options import parse
from greeter_trio._cli.systemd import activated
from tests.support.certificates import Authority
from tests.support.logs import gathered
from tests.support.processes import (
    COMMAND,
    PATIENCE,
    Completed,
    environment,
    free_port,
    in_shell,
    run,
    serving_at,
    started,
)

if sys.platform == "win32":
    pytest.skip("it has other files", allow_module_level=True)

# Values

LONG = 100_000
WRONG = [
    *("", "  ", "x y", "-1", "nan", "-inf", "1e400", "infinity", "1\n2", "\n", "7\n", " 7", "7 "),
    *("a\x1b[31mb", "\u0667", "\uff17", "1_0", "+7", "0x10", "\udcff", "\u202e7", "x" * LONG),
]
NUMBERS = {
    "serve": (
        *("--port", "--listen", "--unix-mode", "--framing", "--idle-timeout", "--max-lifetime"),
        *("--proxy-protocol", "--max-connections", "--when-full", "--handshake-timeout"),
        *("--send-timeout", "--drain-delay", "--grace", "--log-level", "--log-format"),
    ),
    "client": (
        *("--port", "--framing", "--send-proxy", "--timeout", "--retry-for", "--every", "--count"),
    ),
    "demo": ("--clients",),
}


def wrong_usage(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what is said to be wrong, in the one line after the usage; nothing else is printed."""
    with pytest.raises(SystemExit) as end:
        parse(arguments)
    out, err = capsys.readouterr()
    usage, message, nothing = err.split("\n")
    assert (end.value.code, out, nothing) == (2, "", "")
    assert usage.startswith("usage: ")
    assert message.isprintable()
    assert len(message) < 1200
    _, error, wrong = message.partition(" error: ")
    assert error
    return wrong


@pytest.mark.parametrize(
    ("command", "option"), [(command, each) for command in NUMBERS for each in NUMBERS[command]]
)
def test_wrong_values(
    command: str, option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names the option and the value, and is short even if the value is not."""
    monkeypatch.setattr(sys, "argv", ["greeter"])
    needed = {"--unix-mode": ["--listen=unix:s"], "--count": ["--every=1"]}.get(option, [])
    for value in WRONG:
        said = wrong_usage(capsys, command, *needed, f"{option}={value}")
        assert option in said
        assert repr(value)[-50:] in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--host", "*"], "--host must not be '*'"),
        (["client", "--host", "*:7"], "--host must not be '*'"),
        (["client", "--host", "fd:3"], "--host must be HOST, HOST:PORT, [IPV6]:PORT or unix:PATH"),
        (["client", "--host", "h:99999"], "the port in --host must be a whole number from 1 to"),
        (["--foo"], "unrecognized arguments: --foo"),
        (["--foo", "serve"], "--foo (the options of a command come after it)"),
        (["x" * LONG], "COMMAND must be serve, client, demo, replay, not 'xxx"),
        (["client", "--" + "x" * LONG], "unrecognized arguments: --xxx"),
        (["client", "--", "x" * LONG], "NAME"),
    ],
    ids=str,
)
def test_other_wrong_usage(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in wrong_usage(capsys, *arguments)


@pytest.mark.parametrize("command", ["serve", "client"])
@pytest.mark.parametrize("value", ["60\n00", "x" * LONG, "\u0667", " "])
def test_wrong_port_in_the_environment(
    command: str, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREETER_PORT", value)
    assert wrong_usage(capsys, command).startswith("GREETER_PORT must be a whole number from ")


@pytest.mark.parametrize("command", ["serve", "client"])
@pytest.mark.parametrize("host", ["127.0.0.1\n", "  ", "a..b", "x" * 300, "a\x1bb", "-x"])
def test_wrong_host_in_the_environment(command: str, host: str) -> None:
    """It is what cannot be resolved, and is quoted so that it does not break the line."""
    done = run(*f"{command} --port 6000".split(), env=environment(GREETER_HOST=host))
    assert done.returncode == (1 if command == "serve" else 4)
    assert_one_line(done)


def assert_one_line(done: Completed) -> str:
    line, nothing = done.stderr.decode().split("\n")
    assert nothing == ""
    assert line.startswith("greeter: ")
    assert line.isprintable()
    return line


# Files


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with everything that is not the file that was meant."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "garbage").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "garbage").chmod(0o444)
    (tmp_path / "secret").touch(mode=0)
    (tmp_path / "locked").mkdir(mode=0)
    (tmp_path / "dangling").symlink_to("nowhere/at/all")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def unprivileged() -> tuple[str, ...]:
    """Return a command that becomes the one that follows, for whom modes of files count."""
    if os.geteuid():
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("root may read everything")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


READ = {
    "absent": "No such file or directory",
    "folder": "",
    "secret": "Permission denied",
    "locked/file": "Permission denied",
    "dangling": "No such file or directory",
    "loop": "Too many levels of symbolic links",
    "x" * 300: "File name too long",
    "garbage/file": "Not a directory",
    "new\nline": "No such file or directory",
    "empty": "",
    "garbage": "",
}


@pytest.mark.parametrize(
    "arguments",
    [
        "serve --port 0 --tls-cert",
        "serve --port 0 --tls-cert {good} --tls-client-ca",
        "client --tls --ca",
        "client --tls --cert {good} --key",
        "replay",
    ],
)
def test_files_to_read(arguments: str, files: Path) -> None:
    """One sentence says which one is wrong, and how."""
    words = arguments.format(good=Authority(files).issue("localhost")).split()
    command = (*unprivileged(), *COMMAND)
    for name in ["folder", "secret", "garbage"] if "{good}" in arguments else READ:
        done = run(*words, str(files / name), command=command)
        line = assert_one_line(done)
        assert files.name in line
        assert READ[name] in line
        is_damaged = words[0] == "replay" and name in ("empty", "garbage")
        assert done.returncode == (2 if is_damaged else 1)


WRITE = ["folder", "secret", "locked/file", "dangling", "loop", "x" * 300, "garbage/file", "fifo"]


@pytest.mark.parametrize("name", WRITE)
def test_files_to_write(name: str, files: Path) -> None:
    """Nobody reads the FIFO."""
    command = (*unprivileged(), *COMMAND)
    for words in (
        ["serve", "--port", "0", "--record"],
        ["client", "--port", f"{free_port()}", "Ada", "--record"],
    ):
        done = run(*words, str(files / name), command=command)
        assert assert_one_line(done).startswith("greeter: cannot write to ")
        assert done.returncode == 1


def test_a_page_into_a_fifo(files: Path, port: int) -> None:
    recording, fifo = files / "recording", files / "fifo"
    run("client", "--port", f"{port}", "--record", str(recording), "Ada")
    words = ("replay", str(recording), "--page", str(fifo))
    done = run(*words)
    why = "no program has this pipe open to read from it"
    assert assert_one_line(done) == f"greeter: cannot write to {fifo}: {why}"
    with subprocess.Popen(["cat", str(fifo)], stdout=subprocess.PIPE) as reader:
        while run(*words).returncode:  # it may not have opened the FIFO yet
            pass
        assert b"<html" in reader.communicate(timeout=PATIENCE)[0]


# Sockets


@pytest.mark.parametrize("name", ["with space", "new\nline", "小明"])
def test_a_unix_socket_with_any_name(name: str, tmp_path: Path) -> None:
    with serving_at("--listen", f"unix:{tmp_path / name}", "--unix-mode", "600") as server:
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
        done = run("client", "--host", f"unix:{tmp_path / name}", "Ada")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"Hello Ada!\n", b"")
        assert "Counters" in server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract sockets")
def test_an_abstract_socket(tmp_path: Path) -> None:
    name = f"unix:@{tmp_path}"
    with serving_at("--listen", name):
        assert run("client", "--host", name, "Ada").stdout == b"Hello Ada!\n"
        second = run("serve", "--listen", name)
        assert assert_one_line(second).startswith(f"greeter: cannot listen on {name}: Address al")


def test_a_folder_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    command = (*unprivileged(), *COMMAND)
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o300)  # it can be written to
    with serving_at("--listen", f"unix:{folder}/s", command=command):
        assert run("client", "--host", f"unix:{folder}/s", "Ada").stdout == b"Hello Ada!\n"
    folder.chmod(0o500)
    done = run("serve", "--listen", f"unix:{folder}/s", command=command)
    why = "Permission denied (this user must be allowed to make files in the folder)"
    assert assert_one_line(done) == f"greeter: cannot listen on unix:{folder}/s: {why}"
    folder.chmod(0o700)


def test_a_host_that_is_none() -> None:
    """The server and the client say the same."""
    for words, what in [("serve", "listen on"), ("client", "connect to")]:
        line = assert_one_line(run(*words.split(), "--host", "a..b", "--port", "6000"))
        assert line.startswith(f"greeter: cannot {what} a..b:6000: this cannot be the name of a h")


# systemd


@pytest.mark.parametrize("pid", ["1", "one\n", "x" * LONG])
def test_sockets_for_another_process(pid: str) -> None:
    """A wrapper that does not `exec` the server has taken them."""
    with gathered() as log:
        assert activated(3, {"LISTEN_PID": pid, "LISTEN_FDS": "1"}) == []
    (record,) = log.records
    message = record.getMessage()
    assert record.levelname == "WARNING"
    assert message.isprintable()
    assert len(message) < 300
    assert message.endswith("(a wrapper must end with `exec`)")
    assert f"this one is {os.getpid()}" in message


def test_sockets_for_another_process_in_the_log() -> None:
    env = environment(LISTEN_PID="1", LISTEN_FDS="1")
    with started(*COMMAND, "serve", "--port", "0", env=env) as process:
        assert process.stderr
        assert process.stderr.readline().startswith(b"The sockets that were passed are for process")
        assert process.stderr.readline().startswith(b"Waiting for connection on ")


def test_more_sockets_than_there_are() -> None:
    script = 'exec env LISTEN_PID=$$ LISTEN_FDS=3 "$@"'
    done = run("serve", command=in_shell(script))
    line = assert_one_line(done)
    assert line.startswith("greeter: descriptor 3 of 3 (LISTEN_FDS) must be a socket: ")
    assert done.returncode == 1


# Exceptions


def test_exceptions_are_short() -> None:
    names = ["x" * 1000] * 60_000
    failed = ConversationFailed("the connection was lost", EndReason.CONNECTION_LOST, names)
    assert len(repr(failed)) < 200
    connection: Any = ClientConnection(now=0)
    for send, wrong in [
        (connection.send_name, b"x" * 10_000_000),
        (connection.send_name, b"\n" * 10_000_000),
        (connection.send_name, "x" * 10_000_000),
        (connection.send_names, b"x" * 10_000_000),
        (connection.receive_data, "x" * 10_000_000),
    ]:
        with pytest.raises(LocalProtocolError) as caught:
            send(wrong, 0)
        assert len(repr(caught.value)) < 500
