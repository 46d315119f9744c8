"""Other programs: the scripts that Greeter replaces, as client and server, `nc` and `telnet`."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.commands import run_client_here
from tests.support.originals import original_conversation, original_server
from tests.support.processes import HOST, PATIENCE, Output, run, scripted, started
from tests.support.words import GOODBYE, PROMPT, WELCOME, hello

if sys.platform == "win32":
    pytest.skip("these tests use signals and terminals", allow_module_level=True)

from tests.support.terminals import on_terminal

NAMES = ("Ada", "小明", "Grace Hopper")
TAKEN = [b"Ada\n", "小明".encode(), b"Grace Hopper", b"exit"]


@pytest.mark.parametrize("names", [(), ("Ada",), (*NAMES, "Ada")], ids=len)
def test_original_client(port: int, names: tuple[str, ...]) -> None:
    """The original client, for which one `recv` is one message, has its conversation."""
    original_conversation(port, *[name.encode() for name in names])


def test_many_original_clients(port: int) -> None:
    """Of three at once, and ten in a row, not one is left waiting."""
    with ThreadPoolExecutor(3) as pool:
        talks = [pool.submit(original_conversation, port, b"%d" % i, b"Ada") for i in range(30)]
        for talk in talks:
            talk.result()


MANY = [f"name {number}" for number in range(10)]


@pytest.mark.parametrize(
    ("arguments", "names", "took"),
    [
        (NAMES, (), TAKEN),
        ((), MANY, [b"name 0\n", *[name.encode() for name in MANY[1:]], b"exit"]),
        (("exit",), (), [b"exit\n", b"exit"]),
        (("--framing", "raw", *NAMES), (), [b"Ada", *TAKEN[1:]]),
    ],
    ids=["arguments", "input", "exit", "raw"],
)
async def test_original_server(
    arguments: tuple[str, ...], names: tuple[str, ...], took: list[bytes]
) -> None:
    """Names are sent one by one, none glued to another, and printed without the LF it swallowed.

    To this server the first line is a name with its LF, and so is `exit`, which is said again.
    """
    heard: list[bytes] = []
    with scripted(original_server(heard)) as port:
        stdin = "\n".join(names).encode()
        done = await run_client_here("--port", f"{port}", *arguments, stdin=stdin)
    assert (done.stderr, done.returncode) == (b"", 0)
    assert done.stdout == b"".join(map(hello, names or [a for a in arguments if a in NAMES]))
    assert heard == took


@pytest.mark.parametrize(
    ("names", "end", "took"),
    [
        (NAMES, "exit\r", TAKEN),
        ((), "exit\r", [b"exit\n", b"exit"]),
        ((), "\x04", [b"exit\n", b"exit"]),
    ],
    ids=["names", "exit at once", "Ctrl-D at once"],
)
def test_terminal(names: tuple[str, ...], end: str, took: list[bytes]) -> None:
    """It looks like a conversation with our server.

    The original takes the first `exit` for a name, but the person is not asked again.
    """
    heard: list[bytes] = []
    with (
        scripted(original_server(heard)) as port,
        on_terminal("client", "--port", f"{port}") as terminal,
    ):
        for name in names:
            terminal.answer(f"{name}\r")
            terminal.expect(f"Hello {name}!\r\nWhat's your name?\r\n")
        terminal.answer(end)
        shown = terminal.end(0)
    assert "Please input your name: " not in shown  # but for the one that was answered
    assert shown.endswith("\nGoodbye!\n")
    assert heard == took


# Clients of other kinds


def asked(*names: str) -> bytes:
    """Return what the server says to these names, each of which it has asked for."""
    return WELCOME + b"".join(PROMPT + hello(name) for name in names)


LINES_OF_A_FILE = [f"name {number}" for number in range(20_000)]


@pytest.mark.skipif(not shutil.which("nc"), reason="nc is not installed")
@pytest.mark.parametrize(
    ("option", "names", "heard"),
    [
        ("-4", "Ada\n小明\nexit\n", asked("Ada", "小明") + PROMPT + GOODBYE),
        ("-C", "Ada\n小明\nexit\n", asked("Ada", "小明") + PROMPT + GOODBYE),
        ("-N", "Ada\nBob", asked("Ada", "Bob")),
        ("-N", "\n".join([*LINES_OF_A_FILE, ""]), asked(*LINES_OF_A_FILE) + PROMPT),
    ],
    ids=["LF", "CR LF", "half-close", "a file"],
)
def test_nc(port: int, option: str, names: str, heard: bytes) -> None:
    """All names are greeted, in order, and it ends by itself."""
    if b"OpenBSD" not in run("-h", command=["nc"]).stderr:
        pytest.skip("this nc is not OpenBSD's, and others have other options")
    done = run(option, HOST, f"{port}", stdin=names.encode(), command=["nc"])
    assert (done.stdout, done.stderr, done.returncode) == (heard, b"", 0)


@pytest.mark.skipif(not shutil.which("telnet"), reason="telnet is not installed")
def test_telnet(port: int) -> None:
    with started("telnet", HOST, f"{port}", stdin=subprocess.PIPE) as process:
        assert process.stdin
        screen = Output(process.stdout)
        screen.expect(asked() + PROMPT)
        for name in (b"Ada", b"Grace Hopper"):
            process.stdin.write(name + b"\n")
            screen.expect(hello(name) + PROMPT)
        process.stdin.write(b"exit\n")
        screen.expect(GOODBYE)
        process.wait(PATIENCE)
        screen.join()
