"""What the README shows is what happens."""

import doctest
import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from greeter_trio._cli import main
from greeter_trio._failures import ExitStatus
from tests.readme import README, ROOT, code_blocks

pty = pytest.importorskip("pty", reason="these tests use terminals and a shell")

SECONDS = 20.0  # patience with a process


@contextmanager
def greeter(*options: str) -> Iterator[tuple[dict[str, str], "subprocess.Popen[str]"]]:
    """Yield an environment whose `python -m greeter_trio client` finds a server, and that server."""
    command = [sys.executable, "-m", "greeter_trio", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            assert server.stderr
            port = re.findall(r"\d+", server.stderr.readline())[-1]
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
    log, counters = [block for block in code_blocks("text") if "Waiting" in block or "Counters" in block]
    with greeter() as (env, server):
        for names in ("Ada 小明", "Grace Zoë"):
            subprocess.run(f"python -m greeter_trio client {names}", shell=True, env=env, cwd=ROOT, check=True)
        server.terminate()
        assert server.stderr
        written = server.stderr.read()
    expected = log.partition("\n")[2] + "Shutting down: 0 conversations\n" + counters
    ignored = re.compile(r"in [\d.]+ s|:\d+")
    assert ignored.sub("", written) == ignored.sub("", expected)


def test_json_log() -> None:
    """A line of the JSON log that the README shows has the fields that the server writes, and no other."""
    (shown,) = [block for block in code_blocks("json") if "closed" in block]
    with greeter("--log-format", "json") as (env, server):
        subprocess.run("python -m greeter_trio client Ada 小明", shell=True, env=env, cwd=ROOT, check=True)
        server.terminate()
        assert server.stderr
        (written,) = [line for line in server.stderr if '"event": "closed"' in line]
    changing = {"time", "message", "peer", "seconds"}
    assert list(json.loads(shown)) == list(json.loads(written))
    assert {key: value for key, value in json.loads(shown).items() if key not in changing} == {
        key: value for key, value in json.loads(written).items() if key not in changing
    }


def test_json_of_the_client() -> None:
    """The objects that the README shows have the fields that the client writes, and no other."""
    (shown,) = [block.splitlines() for block in code_blocks("json") if "greeting" in block]
    with greeter() as (env, _):
        done = subprocess.run(
            "python -m greeter_trio client --json Ada; GREETER_PORT=1 python -m greeter_trio client --json Bob",
            shell=True, stdout=subprocess.PIPE, encoding="utf-8", env=env, cwd=ROOT, check=False,
        )  # fmt: skip
    written = done.stdout.splitlines()
    assert [list(json.loads(line)) for line in shown] == [list(json.loads(line)) for line in written]
    assert json.loads(written[0])["greeting"] == json.loads(shown[0])["greeting"]


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


@pytest.mark.parametrize("command", ["client", "serve"])
def test_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The tables of options have all of them, and their defaults."""
    text = README.read_text("utf-8").replace(r"\|", "/")
    table = text.partition(f"| option of `{command}` |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.split("|")][1:4] for row in table.splitlines()[2:]]
    told = {
        option: default.strip("`")
        for options, defaults, _ in rows
        for option, default in zip(
            re.findall("--[a-z-]+", options.partition("`NAME")[0]), defaults.split(", ") * 2, strict=False
        )
    }
    with pytest.raises(SystemExit):
        main([command, "--help"])
    helped = capsys.readouterr().out
    usage = helped.partition("\n\n")[0]
    assert set(told) == set(re.findall(r"--[a-z][\w-]*", usage))
    for option, default in told.items():
        if default not in ("", "the system's"):
            explained = re.search(rf"^  {option}.*(?:\n {{10,}}.*)*", helped, re.MULTILINE)
            assert explained
            if "default" in explained[0]:
                assert re.search(rf"\(default:\s+{re.escape(default)}\)", explained[0])


def test_exit_statuses() -> None:
    """The table of exit statuses has all of them."""
    table = README.read_text("utf-8").partition("| exit status |")[2].partition("\n\n")[0]
    assert set(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE))) == set(ExitStatus)


def test_nothing_is_left_to_fill_in() -> None:
    """No line is a placeholder."""
    assert not re.search(r"^[A-Z]+$", README.read_text("utf-8"), re.MULTILINE)
