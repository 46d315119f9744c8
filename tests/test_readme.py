"""What the README shows is what happens."""

import doctest
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import pytest

from greeter_core import ClientConfig, ServerConfig
from greeter_trio._cli import main
from greeter_trio._errors import ExitStatus
from tests.readme import README, ROOT, code_blocks

SECONDS = 20.0  # patience with a process


@contextmanager
def greeter() -> Iterator[tuple[dict[str, str], "subprocess.Popen[str]"]]:
    """Yield an environment whose `python -m greeter_trio client` finds a server, and that server."""
    command = [sys.executable, "-m", "greeter_trio", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            assert server.stderr
            port = server.stderr.readline().strip().rpartition(":")[2]
            python = os.path.dirname(sys.executable)  # noqa: PTH120 - for PATH
            path = f"{python}:{os.environ['PATH']}"
            yield {**os.environ, "GREETER_PORT": port, "PATH": path, "LANG": "C.UTF-8", "TERM": "dumb"}, server
        finally:
            server.terminate()


def run_on_terminal(command: str, typed: str, env: dict[str, str]) -> str:
    """Return what a terminal shows of a command, when someone types each line at the prompt."""
    master, slave = pty.openpty()
    lines = iter(typed.splitlines(keepends=True))
    shown = b""
    with subprocess.Popen(
        command, shell=True, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=ROOT, start_new_session=True
    ) as process:
        os.close(slave)
        try:
            while select.select([master], [], [], SECONDS)[0]:
                try:
                    shown += os.read(master, 4096)
                except OSError:  # the other side is closed
                    break
                if shown.endswith(b"name: "):
                    os.write(master, next(lines).encode())
        finally:
            os.close(master)
            process.kill()
    return shown.decode().replace("\r\n", "\n")


def test_session() -> None:
    """The session at the README's top is literal."""
    (session,) = code_blocks("console")
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", session, flags=re.MULTILINE)
    assert len(commands) == 2
    with greeter() as (env, _):
        for command, expected in commands:
            typed = "".join(re.findall(r"^Please input your name: (.*\n)", expected, flags=re.MULTILINE))
            assert run_on_terminal(command, typed, env) == expected


def test_log() -> None:
    """The log that the README shows is what the server writes of that session, but for ports and seconds."""
    (log,) = [block for block in code_blocks("text") if "Waiting" in block]
    with greeter() as (env, server):
        for names in ("Ada 小明", "Grace Zoë"):
            subprocess.run(f"python -m greeter_trio client {names}", shell=True, env=env, cwd=ROOT, check=True)
        server.terminate()
        assert server.stderr
        written = server.stderr.read()
    expected = log.partition("\n")[2]
    assert re.sub(r"[\d.]+ s$|:\d+", "", written, flags=re.MULTILINE) == re.sub(
        r"[\d.]+ s$|:\d+", "", expected, flags=re.MULTILINE
    )


def test_core_without_io() -> None:
    """The core's snippet gives what it says."""
    parser = doctest.DocTestParser()
    (block,) = code_blocks("pycon")
    snippet = parser.get_doctest(block, {}, "README.md", str(README), 0)
    result = doctest.DocTestRunner().run(snippet)
    assert result.attempted > 10
    assert result.failed == 0


def test_trio_program() -> None:
    """The Trio program greets its three names."""
    (program,) = [block for block in code_blocks("python") if "trio.run(" in block]
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", program], stdout=subprocess.PIPE, encoding="utf-8", cwd=ROOT, check=True
    )
    assert done.stdout.splitlines() == ["Hello Ada!", "Hello Grace!", "Hello Zoë!"]


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    """The table of options has all of them, and their defaults."""
    table = README.read_text("utf-8").replace(r"\|", "/").partition("| option |")[2].partition("\n\n")[0]
    cells = [[cell.strip(" `") for cell in row.split("|")] for row in table.splitlines()[2:]]
    rows = {option.split()[0]: default for _, option, _, default, *_ in cells}
    options = set()
    for command in ("serve", "client"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        options |= set(re.findall(r"(?<![\w-])--[a-z][\w-]*", capsys.readouterr().out.partition("environment:")[0]))
    assert options - {"--help", "--version"} <= set(rows)
    assert rows["--host"] == "127.0.0.1"
    assert rows["--port"] == "6000"
    assert float(rows["--idle-timeout"]) == attrs.asdict(ServerConfig())["idle_timeout"]
    assert float(rows["--timeout"]) == attrs.asdict(ClientConfig())["reply_timeout"]


def test_exit_statuses() -> None:
    """The table of exit statuses has all of them."""
    table = README.read_text("utf-8").partition("| exit status |")[2].partition("\n\n")[0]
    assert set(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE))) == set(ExitStatus)


def test_map() -> None:
    """The map of the modules has all of them, and no other."""
    text = README.read_text("utf-8").partition("## Where things are")[2]
    for package, told in zip(("greeter_core", "greeter_trio"), text.split("`greeter_trio/`"), strict=True):
        modules = {path.stem for path in (ROOT / package).glob("_[a-z]*.py")}
        assert set(re.findall(r"`(_\w+)`", told)) == modules


def test_nothing_is_left_to_fill_in() -> None:
    """No line is a placeholder."""
    assert not re.search(r"^[A-Z]+$", README.read_text("utf-8"), re.MULTILINE)
