"""The scripts that Greeter replaces: their client talks to our server, and our client to their server."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cli.helpers import hello, on_terminal, run_client
from tests.cli.originals import OriginalServer, original_conversation

NAMES = ("Ada", "小明", "Grace Hopper")
TAKEN = [b"Ada\n", "小明".encode(), b"Grace Hopper", b"exit"]


# Their client, our server


@pytest.mark.parametrize(
    "names", [(), (b"Ada",), (b"Ada", "小明".encode(), b"Grace Hopper", b"Ada")]
)
def test_original_client(port: int, names: tuple[bytes, ...]) -> None:
    """The original client, for which one `recv` is one word, has its conversation with our server."""
    original_conversation(port, *names)


def test_three_original_clients_at_once(port: int) -> None:
    """Three original clients at the same time each have their own conversation."""
    with ThreadPoolExecutor(3) as pool:
        for talk in [pool.submit(original_conversation, port, b"%d" % i, b"Ada") for i in range(3)]:
            talk.result()


def test_fifty_original_clients_in_a_row(port: int) -> None:
    """Of fifty original clients one after the other not one is left waiting."""
    for i in range(50):
        original_conversation(port, b"Ada %d" % i)


# Our client, their server


@pytest.mark.parametrize("end", ["exit\r", "\x04"], ids=["exit", "Ctrl-D"])
def test_exit_at_once_to_original_server(end: str) -> None:
    """The original server takes the first `exit` for a name, but the person is not asked again."""
    with OriginalServer() as server, on_terminal("client", "--port", str(server.port)) as terminal:
        terminal.answer(end)
        shown = terminal.end(0)
    assert shown.count("Please input your name: ") == 0  # but for the one that was answered
    assert shown.endswith("Goodbye!\n")
    assert server.took == [b"exit\n", b"exit"]


def test_arguments_to_original_server() -> None:
    """NAMEs are greeted by the original server one by one, and each prints as one line, without the LF it swallowed."""
    with OriginalServer() as server:
        done = run_client(server.port, *NAMES)
    assert (done.stdout, done.stderr, done.returncode) == (b"".join(map(hello, NAMES)), b"", 0)
    assert server.took == TAKEN


def test_pipe_to_original_server() -> None:
    """Piped names are greeted by the original server like NAMEs."""
    with OriginalServer() as server:
        done = run_client(server.port, stdin="\n".join(NAMES).encode())
    assert (done.stdout, done.stderr, done.returncode) == (b"".join(map(hello, NAMES)), b"", 0)
    assert server.took == TAKEN


def test_many_names_to_original_server() -> None:
    """Many names reach the original server one by one, none glued to another."""
    names = [b"name %d" % i for i in range(10)]
    with OriginalServer() as server:
        done = run_client(server.port, stdin=b"\n".join(names))
    assert (done.stdout, done.stderr, done.returncode) == (b"".join(map(hello, names)), b"", 0)
    assert server.took == [names[0] + b"\n", *names[1:], b"exit"]


def test_nothing_but_exit_to_original_server() -> None:
    """`exit` as a line is a name to the original server, so it is said again, and nothing is printed."""
    with OriginalServer() as server:
        done = run_client(server.port, "exit")
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)
    assert server.took == [b"exit\n", b"exit"]


def test_raw_framing_to_original_server() -> None:
    """With --framing raw, the original server hears no LF at all."""
    with OriginalServer() as server:
        done = run_client(server.port, "--framing", "raw", "Ada", "Bob")
    assert (done.stdout, done.stderr, done.returncode) == (b"Hello Ada!\nHello Bob!\n", b"", 0)
    assert server.took == [b"Ada", b"Bob", b"exit"]


def test_console_with_original_server() -> None:
    """On a terminal, a conversation with the original server looks like one with ours."""
    with OriginalServer() as server, on_terminal("client", "--port", str(server.port)) as terminal:
        for name in NAMES:
            terminal.answer(f"{name}\r")
            terminal.expect(f"Hello {name}!\r\nWhat's your name?\r\n")
        terminal.answer("exit\r")
        assert terminal.end(0).endswith("\nGoodbye!\n")
    assert server.took == TAKEN
