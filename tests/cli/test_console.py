"""`client` on a terminal: a conversation between a person and the server.

Wherever one of these tests sees the client end, it also sees that the terminal's settings are what
they were before.
"""

import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from tests.cli.helpers import (
    ASK,
    ESCAPES,
    ESCAPES_SHOWN,
    GOODBYE,
    LESS_THAN_DEFAULT,
    PATIENCE,
    PROMPT,
    SCRIPTS,
    WELCOME,
    Output,
    Peer,
    Terminal,
    environment,
    free_port,
    hello,
    on_terminal,
    scripted,
    serving,
    started_on_terminal,
)

if sys.platform == "win32":
    pytest.skip("these tests use pseudo-terminals", allow_module_level=True)

ENTER, BACKSPACE, LEFT, CTRL_C, CTRL_D, CTRL_U = "\r", "\x7f", "\x1b[D", "\x03", "\x04", "\x15"


def console(
    port: int, *options: str, env: dict[str, str] | None = None
) -> AbstractContextManager[Terminal]:
    """Run the client on a terminal, with a server on this port."""
    return on_terminal("client", "--port", str(port), *options, env=env)


# The conversation


def test_conversation(port: int) -> None:
    """A person is welcomed, asked, greeted and asked again, until `exit`; exit status 0."""
    with console(port) as terminal:
        terminal.expect("Welcome!\r\nWhat's your name?\r\n")
        for name in ("Ada", "Grace Hopper", *SCRIPTS):
            terminal.answer(name + ENTER)
            terminal.expect(f"Hello {name}!\r\nWhat's your name?\r\n")
        terminal.answer("exit" + ENTER)
        assert terminal.end(0).endswith("exit\nGoodbye!\n")


def test_raw_framing(port: int) -> None:
    """With --framing raw the conversation looks the same."""
    with console(port, "--framing", "raw") as terminal:
        for name in ("Ada", "Bob"):
            terminal.answer(name + ENTER)
            terminal.expect(f"Hello {name}!\r\nWhat's your name?\r\n")
        terminal.answer("exit" + ENTER)
        assert terminal.end(0).endswith("Goodbye!\n")


def test_empty_line_asks_again(port: int) -> None:
    """To an empty line the client asks again, without a word to the server."""
    with console(port) as terminal:
        terminal.answer(ENTER)
        terminal.answer(ENTER)
        terminal.answer("Ada" + ENTER)
        terminal.expect("Hello Ada!")
        terminal.answer("exit" + ENTER)
        terminal.end(0)
    assert terminal.screen.all().count(PROMPT) == 2


def test_end_of_input(port: int) -> None:
    """Ctrl-D says exit, and the cursor does not stay behind the prompt; exit status 0."""
    with console(port) as terminal:
        terminal.answer("Ada" + ENTER)
        terminal.answer(CTRL_D)
        assert terminal.end(0) == "\nGoodbye!\n"


def test_line_editing(port: int) -> None:
    """A name can be edited before it is sent: with backspace and Ctrl-U, and in the middle."""
    pytest.importorskip("readline", reason="without it, lines are edited by the terminal alone")
    with console(port) as terminal:
        for keys in (
            "Adx" + BACKSPACE + "a",
            "Bob" + CTRL_U + "Ada",
            "Aa" + LEFT + "d",
            "xAda" + 3 * LEFT + BACKSPACE,
        ):
            terminal.answer(keys + ENTER)
            terminal.expect("Hello Ada!\r\n")
        terminal.answer(CTRL_D)
        terminal.end(0)


def test_names_typed_ahead(port: int) -> None:
    """Names that are pasted together, or typed before they are asked for, are greeted one after the other."""
    with console(port) as terminal:
        terminal.answer("Ada\nBob\nCleo\nexit\n")
        terminal.expect("Hello Ada!", "Hello Bob!", "Hello Cleo!")
        assert terminal.end(0).endswith("Goodbye!\n")


def test_name_that_is_too_long(port: int) -> None:
    """A name that is too long is told so, and the client asks again."""
    with console(port) as terminal:
        terminal.answer("x" * 1025 + ENTER)
        terminal.expect("greeter: ", "1024 bytes")
        terminal.answer("x" * 1024 + ENTER)
        terminal.expect(hello("x" * 1024).rstrip())
        terminal.answer(CTRL_D)
        terminal.end(0)


@pytest.mark.parametrize(
    "more",
    [{"PYTHONIOENCODING": "utf-8:strict"}, {"PYTHONIOENCODING": "ascii"}, {"LANG": "C"}],
    ids=["UTF-8", "ASCII", "LANG=C"],
)
def test_name_that_the_locale_does_not_know(more: dict[str, str]) -> None:
    """What is typed is sent byte for byte, whatever the locale takes it for."""
    name = "小明".encode()
    with (
        scripted(lambda peer: greet_one(peer, name)) as port,
        console(port, env=environment(**more)) as terminal,
    ):
        terminal.answer(name + b"\r")
        terminal.answer(CTRL_D)
        assert terminal.end(0).endswith("Goodbye!\n")


def greet_one(peer: Peer, name: bytes) -> None:
    """Greet a client that has one name."""
    peer.say(WELCOME + PROMPT)
    peer.hear(name + b"\n")
    peer.say(hello(name) + PROMPT)
    peer.hear(b"exit\n")
    peer.say(GOODBYE)


def test_terminal_without_abilities(port: int) -> None:
    """A terminal that can do nothing is good enough."""
    with console(port, env=environment(TERM="dumb")) as terminal:
        terminal.answer("Ada" + ENTER)
        terminal.expect("Hello Ada!")
        terminal.answer(CTRL_D)
        terminal.end(0)


def test_nothing_leaks(port: int) -> None:
    """In Python's development mode, which reports what is not closed, a conversation looks the same."""
    with console(port, env=environment(PYTHONDEVMODE="1")) as terminal:
        terminal.answer("Ada" + ENTER)
        terminal.answer("exit" + ENTER)
        assert terminal.end(0).endswith("exit\nGoodbye!\n")
    assert b"Warning" not in terminal.screen.all()


# Its end


@pytest.mark.parametrize("typed", ["", "Ad"], ids=["nothing", "something"])
def test_interrupt(port: int, typed: str) -> None:
    """Ctrl-C ends it at once, whatever has been typed, and leaves the cursor on a line of its own; status 130."""
    with console(port) as terminal:
        terminal.answer(typed)
        terminal.expect(typed)
        terminal.type(CTRL_C)
        assert terminal.end(130).removeprefix("^C") == "\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal(port: int, number: int, status: int) -> None:
    """A signal that would end any program ends this one, too, but only when the terminal is in order."""
    with console(port) as terminal:
        terminal.expect(ASK)
        terminal.process.send_signal(number)
        assert terminal.end(status) == "\n"


def test_interrupt_while_the_server_is_silent() -> None:
    """Ctrl-C ends it also while it waits for the server; status 130."""

    def server(peer: Peer) -> None:
        peer.say(WELCOME)
        peer.hear_rest()

    with scripted(server) as port, console(port) as terminal:
        terminal.expect("Welcome!\r\n")
        terminal.type(CTRL_C)
        assert terminal.end(130).removeprefix("^C").strip() == ""


def test_terminal_is_gone(port: int) -> None:
    """When the terminal is closed the client does not stay behind."""
    with started_on_terminal("client", "--port", str(port)) as (process, keyboard):
        shown = b""
        while ASK not in shown:
            assert select.select([keyboard], [], [], PATIENCE)[0]
            shown += keyboard.read(1024)
        keyboard.close()
        assert process.wait(PATIENCE) in (129, 1, 0)


# The server


def test_server_shuts_down() -> None:
    """A person who is being asked sees at once, without pressing a key, that the server says Goodbye!; status 0."""
    with serving() as server, console(server.port) as terminal:
        terminal.answer("Ad")
        terminal.expect("Ad")
        server.process.terminate()
        assert terminal.end(0) == "\nGoodbye!\n"
        assert server.process.wait(PATIENCE) == 0


def test_server_is_killed() -> None:
    """A person who is being asked sees at once, without pressing a key, that the server is gone; status 1."""
    with serving() as server, console(server.port) as terminal:
        terminal.expect(ASK)
        server.process.kill()
        shown = terminal.end(1)
    assert shown.startswith("\ngreeter: the ")
    assert "server" in shown
    assert shown.count("\n") == 2


BAD_SERVERS = {
    "closes": (Peer.end, 1, "the server closed the connection without saying goodbye"),
    "resets": (Peer.reset, 1, "the connection to the server was lost"),
    "talks HTTP": (
        lambda peer: peer.say(b"HTTP/1.1 408 Request Timeout\r\n"),
        1,
        "HTTP/1.1 408 Request Timeout",
    ),
    "refuses": (
        lambda peer: peer.say(b"Sorry, no name came in time.\n"),
        1,
        "Sorry, no name came in time.",
    ),
    "says escapes": (lambda peer: peer.say(ESCAPES.encode()), 1, ESCAPES_SHOWN),
    "refuses with escapes": (
        lambda peer: peer.say(f"Sorry, {ESCAPES}.\n".encode()),
        1,
        ESCAPES_SHOWN,
    ),
}


@pytest.mark.parametrize(("act", "status", "said"), BAD_SERVERS.values(), ids=BAD_SERVERS)
def test_server_while_the_prompt_waits(
    act: Callable[[Peer], object], status: int, said: str
) -> None:
    """Whatever a server does while a person is being asked is reported at once, without a key pressed, on one line."""

    def server(peer: Peer) -> None:
        peer.say(WELCOME + PROMPT)
        peer.hear(b"Ada\n")
        peer.say(hello("Ada") + PROMPT)
        asked.wait(PATIENCE)
        act(peer)

    asked = threading.Event()
    with scripted(server) as port, console(port) as terminal:
        terminal.answer("Ada" + ENTER)
        terminal.expect("Hello Ada!", ASK)
        asked.set()
        shown = terminal.end(status)
    assert shown.startswith("\ngreeter: ")
    assert said in shown
    assert shown.count("\n") == 2
    assert "".join(shown.splitlines()).isprintable()


def test_server_never_answers() -> None:
    """A server that does not answer within --timeout is reported; status 3."""

    def server(peer: Peer) -> None:
        peer.say(WELCOME + PROMPT)
        peer.hear_rest()

    with scripted(server) as port, console(port, "--timeout", "1") as terminal:
        terminal.answer("Ada" + ENTER)
        terminal.process.wait(LESS_THAN_DEFAULT)
        assert terminal.end(3).endswith("greeter: the server did not answer in time\n")


def test_no_server() -> None:
    """On a terminal, too, a server that is not there is one line, and status 1."""
    with console(free_port()) as terminal:
        shown = terminal.end(1)
    assert shown.startswith("greeter: cannot connect to ")
    assert shown.count("\n") == 1


def test_greeting_with_terminal_escapes() -> None:
    """A greeting with terminal escapes, whoever typed them, is shown so that no terminal obeys it."""
    name = "Ada\u202e\x9b2J".encode()  # a terminal's own keys are characters, too, but others
    with scripted(lambda peer: greet_one(peer, name)) as port, console(port) as terminal:
        terminal.answer(name + b"\r")
        terminal.expect(r"Hello Ada\u202e\x9b2J!")
        terminal.answer(CTRL_D)
        terminal.end(0)


# Streams that are no terminal


def test_output_to_a_file(port: int, tmp_path: Path) -> None:
    """With standard output elsewhere the conversation goes there, and the person can still type."""
    with (
        (tmp_path / "conversation").open("wb") as file,
        on_terminal("client", "--port", str(port), stdout=file) as terminal,
    ):
        terminal.type("Ada\n\nBob\nexit\n")
        terminal.end(0)
    ask, asked = ASK.decode(), "What's your name?\n" + ASK.decode()
    assert (tmp_path / "conversation").read_text() == (
        f"Welcome!\n{asked}Hello Ada!\n{asked}{ask}Hello Bob!\n{asked}Goodbye!\n"
    )


def test_output_to_a_pipe() -> None:
    """With standard output elsewhere a server that goes is noticed, too, without a key pressed."""
    reader, writer = os.pipe()
    with (
        os.fdopen(reader, "rb", buffering=0) as pipe,
        os.fdopen(writer, "wb") as out,
        serving() as server,
    ):
        with on_terminal("client", "--port", str(server.port), stdout=out) as terminal:
            out.close()
            output = Output(pipe.fileno())
            output.expect(ASK)
            server.process.terminate()
            assert terminal.end(0) == ""
            assert output.rest() == b"\nGoodbye!\n"
        assert server.process.wait(PATIENCE) == 0


def test_output_breaks(port: int) -> None:
    """Standard output that cannot be written is one line, and in the end status 1, as it is without a terminal."""
    reader, writer = os.pipe()
    os.close(reader)
    with (
        os.fdopen(writer, "wb") as out,
        on_terminal("client", "--port", str(port), stdout=out) as terminal,
    ):
        terminal.expect("greeter: cannot write to standard output: Broken pipe\r\n")
        with suppress(OSError):  # it may have ended
            terminal.type("exit\n")
        assert "greeter: " not in terminal.end(1)


def test_bytes_that_are_no_text() -> None:
    """With standard output elsewhere the line is the terminal's own, and goes to the server byte for byte."""
    name = b"Zo\xeb"
    with (
        Path(os.devnull).open("wb") as nowhere,
        scripted(lambda peer: greet_one(peer, name)) as port,
        on_terminal("client", "--port", str(port), stdout=nowhere) as terminal,
    ):
        terminal.type(name + b"\nexit\n")
        terminal.end(0)


def test_complaints_to_a_file(tmp_path: Path) -> None:
    """With standard error elsewhere complaints go there, and not to the screen."""
    with (
        (tmp_path / "complaints").open("wb") as file,
        scripted(Peer.end) as port,
        on_terminal("client", "--port", str(port), stderr=file) as terminal,
    ):
        assert terminal.end(1).strip() == ""
    assert (
        (tmp_path / "complaints")
        .read_bytes()
        .startswith(b"greeter: the server closed the connection")
    )


def test_arguments_on_a_terminal(port: int) -> None:
    """With NAMEs nobody is asked anything on a terminal either: the greetings are all that is shown."""
    with console(port, "Ada", "小明") as terminal:
        assert terminal.end(0) == "Hello Ada!\nHello 小明!\n"
