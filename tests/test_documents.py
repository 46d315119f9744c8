"""What README.md, OPERATING.md and PROTOCOL.md show is what happens."""

import doctest
import json
import os
import re
import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest

from greeter_core import EndReason
from greeter_trio._cli import client_options, serve_options, show_options
from greeter_trio._cli.status import ExitStatus, Stage
from tests.support.documents import OPERATING, ROOT, code_blocks, prose, table

pty = pytest.importorskip("pty", reason="these tests use terminals and a shell")


README = ROOT / "README.md"
FOLDERS = ("greeter_core", "greeter_trio", "tests")
SECONDS = 20.0  # patience with a process
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
)


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Yield path ("" for the page itself) and anchor ("" for none) of each relative link."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


def anchors(page: Path) -> set[str]:
    """Return the anchors of the page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path) -> Iterator[tuple[str, str, str]]:
    """Yield each command of the page's sessions, what is typed at prompts, and what is shown."""
    for session in code_blocks("console", page):
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", session, re.MULTILINE):
            typed = re.findall(r"^Please input your name: (.*\n)", shown, re.MULTILINE)
            yield command, "".join(typed), shown


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `greeter` is this checkout's, installed or not."""
    script = tmp_path / "greeter"
    call = f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m greeter_trio "$@"'
    script.write_text(f"#!/bin/sh\n{call}\n")
    script.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "LANG": "C.UTF-8", "TERM": "dumb"}


@contextmanager
def serving(environment: dict[str, str], *options: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a server that the environment's `greeter client` connects to."""
    command = ["greeter", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stderr
            environment["GREETER_PORT"] = re.findall(r"\d+", server.stderr.readline())[-1]
            yield server
        finally:
            server.terminate()


def log_of(environment: dict[str, str], *options: str) -> str:
    """Return what a server logs, after its first line, of a client that has two names greeted."""
    with serving(environment, *options) as server:
        subprocess.run(["greeter", "client", "Ada", "小明"], env=environment, check=True)
        server.terminate()
        assert server.stderr
        return server.stderr.read()


def run_on_terminal(command: str, typed: str, environment: dict[str, str]) -> str:
    """Return what a terminal shows of a command if these lines are typed, one at each prompt."""
    master, slave = pty.openpty()
    lines = iter(typed.splitlines(keepends=True))
    shown = b""
    streams = {"stdin": slave, "stdout": slave, "stderr": slave}
    with subprocess.Popen(
        command, shell=True, env=environment, start_new_session=True, **streams
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


@pytest.mark.parametrize("page", [README, OPERATING], ids=lambda page: page.name)
def test_sessions(page: Path, environment: dict[str, str]) -> None:
    """Every session is literal, except for ports and milliseconds."""
    changing = re.compile(r"\d+\.\d+|(?<=127\.0\.0\.1:)\d+")
    with serving(environment):
        for command, typed, expected in commands(page):
            shown = run_on_terminal(command, typed, environment)
            assert changing.sub("N", shown) == changing.sub("N", expected)


def test_log(environment: dict[str, str]) -> None:
    """The log shown is what the server writes, except for ports, seconds and sums."""
    log, counters = code_blocks("text", OPERATING)
    first, _, opened_and_closed = log.partition("\n")
    assert first == "Waiting for connection on 127.0.0.1:6000"
    changing = re.compile(r"in [\d.]+ s|:\d+|(?<=_total )\d+|(?<=} )\d+")
    expected = opened_and_closed + "Shutting down: 0 conversations\n" + counters
    assert changing.sub("N", log_of(environment)) == changing.sub("N", expected)


def test_json_log(environment: dict[str, str]) -> None:
    (shown,) = [json.loads(block) for block in code_blocks("json", OPERATING) if "closed" in block]
    lines = map(json.loads, log_of(environment, "--log-format", "json").splitlines())
    (written,) = [line for line in lines if line.get("event") == "closed"]
    assert list(shown) == list(written)
    changing = dict.fromkeys(("time", "message", "peer", "seconds"))
    assert shown | changing == written | changing


def test_json_of_the_client(environment: dict[str, str]) -> None:
    """The objects have exactly these fields."""
    (shown,) = [
        block.splitlines() for block in code_blocks("json", OPERATING) if "greeting" in block
    ]
    with serving(environment):
        script = "greeter client --json Ada; greeter client --port 1 --json Bob"
        written = subprocess.run(
            script, shell=True, stdout=subprocess.PIPE, env=environment, check=False
        ).stdout
    objects = [json.loads(line) for line in written.splitlines()]
    assert [list(json.loads(line)) for line in shown] == [list(each) for each in objects]
    assert json.loads(shown[0])["greeting"] == objects[0]["greeting"]
    fields = {field.strip("`") for field, _ in table("field", OPERATING)}
    assert fields == {field for field in objects[0] if field.endswith("_ms")}


def test_core_without_io() -> None:
    (block,) = code_blocks("pycon", README)
    snippet = doctest.DocTestParser().get_doctest(block, {}, "README.md", str(README), 0)
    assert doctest.DocTestRunner().run(snippet) == (0, len(snippet.examples))
    assert len(snippet.examples) > 7


def test_trio_program() -> None:
    (program,) = code_blocks("python", README)
    command = [sys.executable, "-X", "utf8", "-c", program]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", cwd=ROOT, check=True)
    assert done.stdout.splitlines() == ["Hello Ada!", "Hello Grace!", "Hello Zoë!"]


@pytest.mark.parametrize("command", ["client", "serve", "replay", "demo"])
def test_tables_of_options(command: str) -> None:
    """Each option is there in its order, with its argument or its choices, and its default."""
    build = {
        "serve": serve_options._parser,
        "client": client_options._parser,
        "replay": show_options._replay_parser,
        "demo": show_options._demo_parser,
    }[command]
    expected = []
    for action in build(everything=True)._actions:
        if action.dest in ("help", "help_all"):
            continue
        values = (str(action.metavar or "") or action.dest.upper()).replace("|", "\\|")
        words = [*action.option_strings[-1:], *([] if action.nargs == 0 else [values])]
        default = re.search(r"\(default: (.*?)\)", (action.help or "") % vars(action))
        if action.default not in (None, False):
            shown = (
                f"{action.default:g}" if isinstance(action.default, float) else str(action.default)
            )
            assert default
            assert default[1] == shown
        expected.append([f"`{' '.join(map(str, words))}`", f"`{default[1]}`" if default else ""])
    assert [row[:2] for row in table(f"option of `{command}`", OPERATING)] == expected


def test_table_of_exit_statuses() -> None:
    rows = table("exit status", OPERATING)
    assert [int(status) for status, _, _ in rows] == sorted(ExitStatus)
    for status, code, _ in rows:
        assert code in ("", f"`{ExitStatus(int(status)).code}`")


def test_table_of_stages() -> None:
    assert [stage.strip("`") for stage, _ in table("`stage`", OPERATING)] == [
        stage.value for stage in Stage
    ]


def test_table_of_reasons() -> None:
    """They are the protocol's, and three of conversations that the protocol did not end."""
    of_clients = {EndReason.TIMED_OUT, EndReason.VIOLATION}
    told = {reason.strip("`") for reason, _ in table("`reason`", OPERATING)}
    assert told - {"handshake", "cut", "bug"} == {
        each.name.lower() for each in set(EndReason) - of_clients
    }


@pytest.mark.parametrize(
    ("language", "file"),
    [("haproxy", "haproxy.cfg"), ("nginx", "nginx.conf"), ("yaml", "blackbox.yml")],
)
def test_recipes(language: str, file: str) -> None:
    """What is shown of a configuration stands in it, in this order."""
    lines = (ROOT / "tests" / "recipes" / file).read_text("utf-8").splitlines()
    stripped = iter(line.partition("  #")[0].strip() for line in lines)
    (block,) = code_blocks(language, OPERATING)
    assert all(line.strip() in stripped for line in block.splitlines())


def original_server(sock: socket.socket) -> Iterator[bytes]:
    """Yield what the original server's script takes for names, as far as it matters here."""
    sock.send(b"Welcome!\n")
    while True:
        sock.send(b"What's your name?")
        yield (name := sock.recv(1024))
        sock.send(b"Hello %b!\n" % name)


def test_differences_from_the_original_scripts() -> None:
    """The scripts do what PROTOCOL.md marks as run by the tests."""
    client, sock = socket.socketpair()  # what is sent has arrived
    with client, sock:
        server = original_server(sock)
        client.send(b"Ada")
        client.send(b"Grace")
        assert next(server) == b"AdaGrace"
        assert client.recv(1024) == b"Welcome!\nWhat's your name?"
        client.settimeout(0)
        with pytest.raises(BlockingIOError):  # the script waits here for the PROMPT
            client.recv(1024)
        client.send(b"x" * 1500)
        assert [len(name) for name in islice(server, 2)] == [1024, 476]
        client.shutdown(socket.SHUT_WR)
        assert list(islice(server, 50)) == [b""] * 50
        client.close()
        with pytest.raises(BrokenPipeError):
            deque(server, 0)


def test_nothing_is_left_to_fill_in() -> None:
    for page in PAGES:
        assert not re.search(r"^[A-Z]+$", page.read_text("utf-8"), re.MULTILINE)


def test_links() -> None:
    """Every relative link points at a file, and at a heading of it, that exist."""
    for page in PAGES:
        for path, anchor in links(page):
            target = page.parent / path if path else page
            assert target.exists(), f"{page.name}: {path}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {path}#{anchor}"


def test_commands_are_whole() -> None:
    """The first two commands of README.md start from nothing and are one line each."""
    first, second = code_blocks("sh", README)
    begin = r"python3 -m venv .venv && .venv/bin/pip install -q "
    assert re.fullmatch(begin + r"\S+ && .venv/bin/greeter serve\n", first)
    assert re.fullmatch(begin + r"-e \S+ && .venv/bin/python -m pytest\n", second)
