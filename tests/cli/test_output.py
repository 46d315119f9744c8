"""Standard streams that are closed, full, or left by their reader."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from greeter_trio._cli.output import print_error
from tests.support.processes import COMMAND, PATIENCE, free_port, in_shell, run, started


def test_print_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where standard error is closed or broken a message is lost, and nothing is raised."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(text)

    print_error("the server is away")
    for nowhere in (None, Broken()):
        monkeypatch.setattr(sys, "stderr", nowhere)
        print_error("is anybody there?")
    monkeypatch.undo()
    assert capsys.readouterr() == ("", "greeter: the server is away\n")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such shell")
@pytest.mark.parametrize(
    ("redirection", "arguments", "status", "out", "err"),
    [
        (">&-", "client Ada", 1, "", "greeter: standard output is closed: there is nowhere to "),
        (">&- 2>&-", "client Ada", 1, "", ""),
        ("2>&-", "client --port {port} Ada", 4, "", ""),
        ("<&-", "client --port {port} Ada", 4, "", "greeter: cannot connect to 127.0.0.1:"),
        ("<&-", "client --help", 0, "usage: ", ""),
    ],
)
def test_closed_streams(redirection: str, arguments: str, status: int, out: str, err: str) -> None:
    words = arguments.format(port=free_port()).split()
    done = run(*words, command=in_shell(f'exec "$@" {redirection}'))
    assert done.returncode == status
    for said, expected in ((done.stdout.decode(), out), (done.stderr.decode(), err)):
        assert said.startswith(expected) if expected else said == ""


@pytest.mark.parametrize(
    ("arguments", "stdout", "status"),
    [
        ("client --help", True, -13),
        ("--version", True, -13),
        ("client --port x", False, 2),
        ("client --host a..b", False, 4),
    ],
)
def test_reader_has_left(arguments: str, *, stdout: bool, status: int) -> None:
    """A pipe without a reader makes no noise, and does not change the exit status."""
    reader, writer = os.pipe()
    os.close(reader)
    out, err = (writer, subprocess.PIPE) if stdout else (subprocess.PIPE, writer)
    with started(*COMMAND, *arguments.split(), stdout=out, stderr=err) as process:
        os.close(writer)
        assert process.wait(PATIENCE) == status
        assert all(each.read() == b"" for each in (process.stdout, process.stderr) if each)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", ["--help", "--version", "client --help", "serve --help-all"])
def test_help_on_a_full_disk(arguments: str) -> None:
    done = run(*arguments.split(), command=in_shell('exec "$@" > /dev/full'))
    message = b"greeter: cannot write to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, message)
