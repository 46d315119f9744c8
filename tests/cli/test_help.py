"""`--help`, `--version`, and what happens without a command."""

import functools
import os
import re

import pytest

from greeter_core import __version__
from greeter_trio._failures import ExitStatus
from tests.cli.helpers import COMMAND, PATIENCE, environment, in_shell, run, started

COMMANDS = pytest.mark.parametrize("command", ["serve", "client"])
ALL = pytest.mark.parametrize(
    "arguments", [(), ("serve",), ("client",)], ids=["program", "serve", "client"]
)


@functools.cache
def helped(*arguments: str) -> str:
    """Return what --help prints, which must be all that happens."""
    done = run(*arguments, "--help")
    assert (done.stderr, done.returncode) == (b"", 0)
    return done.stdout.decode()


@ALL
def test_help(arguments: tuple[str, ...]) -> None:
    """--help of the program and of each command goes to standard output, in 80 columns; exit status 0."""
    lines = helped(*arguments).splitlines()
    assert lines[0].startswith(" ".join(["usage: python -m greeter_trio", *arguments]))
    assert max(map(len, lines)) <= 80


def test_help_leads_to_the_commands() -> None:
    """--help of the program names the commands, and says where the examples are."""
    text = helped()
    assert re.search(r"^ +serve ", text, re.MULTILINE)
    assert re.search(r"^ +client ", text, re.MULTILINE)
    assert "COMMAND --help" in text
    assert "examples" in text


@COMMANDS
def test_help_ends_with_examples(command: str) -> None:
    """--help of each command ends with examples, each of which is a command line of that command."""
    *_, examples = helped(command).partition("\nexamples:\n")
    assert len(examples.splitlines()) >= 3
    for line in examples.splitlines():
        assert line.startswith(f"  python -m greeter_trio {command} ")


@COMMANDS
def test_help_has_the_exit_statuses(command: str) -> None:
    """--help of each command lists exactly the exit statuses that the program has."""
    statuses = helped(command).partition("\nexit status:\n")[2].partition("\n\n")[0]
    assert set(map(int, re.findall(r"^  (\d+) ", statuses, re.MULTILINE))) == set(ExitStatus)


@COMMANDS
def test_help_has_the_environment(command: str) -> None:
    """--help of each command names the environment variables."""
    assert {"GREETER_HOST", "GREETER_PORT"} <= set(helped(command).replace(",", " ").split())


def test_help_has_the_signals() -> None:
    """--help of `serve` says what it does at each signal that it knows."""
    signals = helped("serve").partition("\nsignals:\n")[2].partition("\n\n")[0]
    known = {"SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGBREAK"}
    assert set(re.findall(r"\bSIG[A-Z0-9]+\b", signals)) == known


@COMMANDS
def test_help_has_all_options(command: str) -> None:
    """--help of each command says what each of its options is for, and the defaults of those that have one."""
    text = helped(command)
    usage, _, rest = text.partition("\n\n")
    options = set(re.findall(r"--[a-z-]+", usage)) - {"--help"}
    assert len(options) > 5
    for option in options:
        assert re.search(rf"^  {option}\b.*(\n {{10,}}|  +)\S", rest, re.MULTILINE), option
    for words in re.findall(r"^  --\S+ SECONDS\s+([^-]+)", rest, re.MULTILINE):
        assert "(default: " in words


@COMMANDS
def test_help_without_standard_input(command: str) -> None:
    """--help needs no standard input."""
    done = run(command, "--help", command=in_shell('exec "$@" <&-'))
    assert done.stdout.startswith(b"usage: ")
    assert (done.stderr, done.returncode) == (b"", 0)


def test_help_is_not_disturbed_by_the_environment() -> None:
    """--help works with variables that are wrong."""
    done = run("client", "--help", env=environment(GREETER_PORT="http"))
    assert (done.stderr, done.returncode) == (b"", 0)


def test_version() -> None:
    """--version prints name and version, and nothing else."""
    done = run("--version")
    assert (done.stdout.decode(), done.stderr, done.returncode) == (
        f"greeter {__version__}\n",
        b"",
        0,
    )


@pytest.mark.parametrize("arguments", [(), ("greet",)])
def test_no_command(arguments: tuple[str, ...]) -> None:
    """Without a command, or with one that is none, usage goes to standard error; exit status 2."""
    done = run(*arguments)
    assert (done.stdout, done.returncode) == (b"", 2)
    usage, *_, last = done.stderr.decode().splitlines()
    assert usage.startswith("usage: python -m greeter_trio ")
    assert "COMMAND" in last


def test_help_that_nobody_reads() -> None:
    """`--help | true` makes no noise, whether the reader has left already or not."""
    reader, writer = os.pipe()
    os.close(reader)
    with (
        os.fdopen(writer, "wb") as nobody,
        started(*COMMAND, "client", "--help", stdout=nobody) as process,
    ):
        assert process.wait(PATIENCE) in (0, 1)
        assert process.stderr
        assert process.stderr.read() == b""


def test_usage_that_nobody_reads() -> None:
    """Wrong usage is status 2, even where nobody can be told what was wrong."""
    reader, writer = os.pipe()
    os.close(reader)
    with (
        os.fdopen(writer, "wb") as nobody,
        started(*COMMAND, "client", "--port", "x", stderr=nobody) as process,
    ):
        assert process.wait(PATIENCE) == 2
