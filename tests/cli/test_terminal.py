"""`client` on a terminal: a conversation between a person and the server.

Wherever one of these tests sees the client end, `Terminal.end` also sees that the terminal's
settings are what they were before.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.support import words
from tests.support.processes import (
    COMMAND,
    PATIENCE,
    Output,
    Peer,
    environment,
    free_port,
    scripted,
)
from tests.support.words import ADA, GOODBYE, PROMPT, WELCOME, hello

if sys.platform == "win32":
    pytest.skip("these tests use pseudo-terminals", allow_module_level=True)

from tests.support.terminals import ASK, Terminal, on_terminal, started_on_terminal

ENTER, BACKSPACE, LEFT, CTRL_C, CTRL_D, CTRL_U = "\r", "\x7f", "\x1b[D", "\x03", "\x04", "\x15"
OnTerminal: TypeAlias = contextlib.AbstractContextManager[Terminal]


def client(port: int, *options: str, **how: Any) -> OnTerminal:
    """Run the client on a terminal, with a server on this port."""
    return on_terminal("client", "--port", f"{port}", *options, **how)


def conversation(name: bytes) -> Callable[[Peer], object]:
    """As a server: greet this one name, and then the client must say exit."""
    greeting = hello(name) + PROMPT
    return lambda peer: meets(peer, name).say(greeting).hear(b"exit\n").say(GOODBYE)


def meets(peer: Peer, name: bytes) -> Peer:
    return peer.say(WELCOME + PROMPT).hear(name + b"\n")


@pytest.mark.parametrize("more", [{"TERM": "dumb"}, {"PYTHONDEVMODE": "1"}], ids=str)
def test_conversation(port: int, more: dict[str, str]) -> None:
    """A person is welcomed, asked, greeted and asked again, until `exit`; nothing leaks."""
    with client(port, env=environment(**more)) as terminal:
        terminal.expect("Welcome!\r\nWhat's your name?\r\n")
        for name in ("Ada", "Grace Hopper", *words.SCRIPTS):
            terminal.answer(name + ENTER)
            terminal.expect(f"Hello {name}!\r\nWhat's your name?\r\n")
        terminal.answer("exit" + ENTER)
        assert terminal.end(0).endswith("exit\nGoodbye!\n")


def test_lines_that_are_no_names(port: int) -> None:
    """The client asks again, without a word to the server."""
    with client(port) as terminal:
        terminal.answer(ENTER)
        terminal.answer("x" * 1025 + ENTER)
        terminal.expect("greeter: ", "1024 bytes")
        terminal.answer("x" * 1024 + ENTER)
        terminal.expect(hello("x" * 1024).rstrip())
        terminal.answer(CTRL_D)
        assert terminal.end(0) == "\nGoodbye!\n"  # not behind the prompt
    assert terminal.screen.all().count(PROMPT) == 2


def test_line_editing(port: int) -> None:
    pytest.importorskip("readline", reason="without it, lines are edited by the terminal alone")
    with client(port) as terminal:
        terminal.answer(f"Bob{CTRL_U}xAt{BACKSPACE}a{LEFT}d{LEFT}{LEFT}{BACKSPACE}{ENTER}")
        terminal.expect("Hello Ada!\r\n")
        terminal.answer(CTRL_D)
        terminal.end(0)


def test_names_typed_ahead(port: int) -> None:
    """Names that are pasted together are greeted one after the other."""
    with client(port) as terminal:
        terminal.answer("Ada\nBob\nCleo\nexit\n")
        terminal.expect("Hello Ada!", "Hello Bob!", "Hello Cleo!")
        assert terminal.end(0).endswith("Goodbye!\n")


@pytest.mark.parametrize(
    ("more", "name", "shown"),
    [
        ({"PYTHONIOENCODING": "utf-8:strict"}, "小明", "Hello 小明!"),
        ({"PYTHONIOENCODING": "ascii"}, "小明", r"Hello \u5c0f\u660e!"),
        ({"LANG": "C"}, "小明", "Hello "),  # which Python may turn into UTF-8
        ({}, "Ada\u202e\x9b2J", r"Hello Ada\u202e\x9b2J!"),  # no terminal obeys it
    ],
    ids=["UTF-8", "ASCII", "LANG=C", "escapes"],
)
def test_names_are_sent_as_they_are_typed(more: dict[str, str], name: str, shown: str) -> None:
    """What is typed is sent byte for byte, whatever the locale takes it for."""
    with (
        scripted(conversation(name.encode())) as port,
        client(port, env=environment(**more)) as terminal,
    ):
        terminal.answer(name + ENTER)
        terminal.expect(shown)
        terminal.answer(CTRL_D)
        assert terminal.end(0).endswith("Goodbye!\n")


@pytest.mark.parametrize(
    ("typed", "name"), [("", "SIGINT"), ("Ad", "SIGINT"), ("Ad", "SIGTERM"), ("", "SIGHUP")]
)
def test_signals(port: int, typed: str, name: str) -> None:
    """They end it at once, and leave the cursor on a line of its own."""
    with client(port) as terminal:
        terminal.answer(typed)
        terminal.expect(typed)
        if name == "SIGINT":
            terminal.type(CTRL_C)
        else:
            terminal.process.send_signal(signal.Signals[name])
        assert terminal.end(128 + signal.Signals[name]).removeprefix("^C") == "\n"


def test_interrupt_while_the_server_is_silent() -> None:
    with scripted(lambda peer: peer.say(WELCOME).hear_rest()) as port, client(port) as terminal:
        terminal.expect("Welcome!\r\n")
        terminal.type(CTRL_C)
        assert terminal.end(130).removeprefix("^C").strip() == ""


@pytest.mark.parametrize("on_hangup", [signal.SIG_DFL, signal.SIG_IGN], ids=["usual", "nohup"])
def test_terminal_is_gone(port: int, on_hangup: signal.Handlers, tmp_path: Path) -> None:
    """When the terminal is closed the client does not stay behind."""
    before = signal.signal(signal.SIGHUP, on_hangup)
    options = ("client", "--port", f"{port}")
    with (tmp_path / "errors").open("w+b") as errors:
        with started_on_terminal(*options, stderr=errors) as (process, keyboard):
            signal.signal(signal.SIGHUP, before)
            shown = b""
            while ASK not in shown:
                assert select.select([keyboard], [], [], PATIENCE)[0]
                shown += keyboard.read(1024)
            keyboard.close()
            status = process.wait(PATIENCE)
        errors.seek(0)
        assert b"Traceback" not in errors.read()
    assert status in ((1,) if on_hangup is signal.SIG_IGN else (129, 1))


ENDS: dict[str, tuple[Callable[[Peer], object], int, str]] = {
    "shuts down": (lambda peer: peer.say(GOODBYE), 0, "Goodbye!"),
    "closes": (Peer.end, 6, "greeter: the server closed the connection without saying goodbye"),
    "refuses": (
        lambda peer: peer.say(f"Sorry, {words.ESCAPES}.\n".encode()),
        *(8, f"greeter: the server refused: Sorry, {words.ESCAPES_SHOWN}."),
    ),
}


@pytest.mark.parametrize(("act", "status", "said"), ENDS.values(), ids=ENDS)
def test_server_while_the_prompt_waits(
    act: Callable[[Peer], object], status: int, said: str
) -> None:
    """What a server does while a person types is shown at once, on a line of its own."""

    def server(peer: Peer) -> None:
        meets(peer, b"Ada").say(ADA + PROMPT)
        terminal.answer("Bo")
        terminal.expect("Bo")
        act(peer)

    with scripted(server) as port, client(port) as terminal:
        terminal.answer("Ada" + ENTER)
        shown = terminal.end(status)
    assert shown.startswith(f"\n{said}")
    assert shown.count("\n") == 2
    assert "".join(shown.splitlines()).isprintable()


def test_server_that_is_shutting_down() -> None:
    """It says goodbye before a name could be typed, which is no failure."""
    says_all = lambda peer: peer.say(WELCOME + PROMPT + GOODBYE)  # noqa: E731
    with scripted(says_all) as port, client(port) as terminal:
        shown = terminal.end(0)
    leave, *asked = shown.splitlines()[:3]
    assert leave == f"Connected to 127.0.0.1:{port}: exit or Ctrl-D ends it."
    assert asked == ["Welcome!", "What's your name?"]
    assert shown.splitlines()[-1] == "Goodbye!"


def test_server_never_answers() -> None:
    silent = scripted(lambda peer: meets(peer, b"Ada").hear_rest())
    with silent as port, client(port, "--timeout", "0.5") as terminal:
        terminal.answer("Ada" + ENTER)
        assert terminal.end(3).endswith("\ngreeter: the server did not answer in time\n")


def test_no_server(tmp_path: Path) -> None:
    """Messages go to standard error, and not to the screen."""
    with (tmp_path / "errors").open("w+b") as file:
        with client(free_port(), stderr=file) as terminal:
            assert terminal.end(4) == ""
        file.seek(0)
        (line,) = file.read().splitlines()
    assert line.startswith(b"greeter: cannot connect to ")


def test_output_to_a_file(port: int, tmp_path: Path) -> None:
    """With standard output elsewhere the conversation goes there; the person can still type."""
    with (tmp_path / "file").open("w+b") as file:
        with client(port, stdout=file) as terminal:
            terminal.type("Ada\n\nBob\nexit\n")
            terminal.end(0)
        file.seek(0)
        shown = file.read()
    asked = b"What's your name?\n" + ASK
    rest = b"Hello Ada!\n" + asked + ASK + b"Hello Bob!\n" + asked + GOODBYE
    assert shown == WELCOME + asked + rest


def test_bytes_that_are_no_text() -> None:
    """There a line is the terminal's own, and goes to the server byte for byte."""
    server, nowhere = scripted(conversation(b"Zo\xeb")), subprocess.DEVNULL
    with server as port, client(port, stdout=nowhere) as terminal:
        terminal.type(b"Zo\xeb\nexit\n")
        terminal.end(0)


def test_output_to_a_pipe() -> None:
    """There, too, a server that goes is noticed without a key pressed."""
    reader, writer = os.pipe()
    output = Output(reader)

    def server(peer: Peer) -> None:
        peer.say(WELCOME + PROMPT)
        output.expect(ASK)
        peer.say(GOODBYE)

    with scripted(server) as port, client(port, stdout=writer) as terminal:
        os.close(writer)
        assert terminal.end(0).splitlines()[1:] == []  # the first one says how to leave
    os.close(reader)
    assert output.rest() == b"\nGoodbye!\n"


def test_output_breaks(port: int) -> None:
    """A full disk is one line, and a reader that has gone none; with the next line it ends."""
    reader, writer = os.pipe()
    os.close(reader)
    with client(port, stdout=writer) as terminal:
        os.close(writer)
        terminal.expect("ends it.")
        terminal.type("Ada\n")
        assert "greeter: " not in terminal.end(-signal.SIGPIPE)
    if not Path("/dev/full").exists():
        return
    with Path("/dev/full").open("wb") as full, client(port, stdout=full) as terminal:
        terminal.expect("greeter: cannot write to standard output: No space left on device\r\n")
        terminal.type("Ada\n")
        assert "greeter: " not in terminal.end(1)


def test_arguments(port: int) -> None:
    """With NAMEs nothing is asked: the greetings are all that is shown."""
    with client(port, "Ada", "小明") as terminal:
        assert terminal.end(0) == "Hello Ada!\nHello 小明!\n"


def test_json(port: int) -> None:
    """With --json nothing is asked, and each line that is typed is a name."""
    with client(port, "--json") as terminal:
        terminal.type("Ada\n")
        terminal.expect("Ada\r\n", '{"name": "Ada", "greeting": "Hello Ada!", ')
        terminal.type(CTRL_D)
        assert terminal.end(0).endswith("}\n")
    assert b"name?" not in terminal.screen.all()


# Locales


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "en_US.UTF-8"},  # which may not be installed
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0"},
        {"LC_ALL": "de_DE.ISO-8859-1"},
        {"LC_ALL": "C.UTF-8"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=lambda locale: " ".join(f"{name}={value}" for name, value in locale.items()),
)
def test_what_is_typed_slowly_is_sent_as_it_is(locale: dict[str, str]) -> None:
    """Readline gets each byte by itself, and loses none, whatever the locale is."""
    with (
        scripted(conversation("Zoë小明".encode())) as port,
        client(port, env=environment(**locale)) as terminal,
    ):
        terminal.expect(ASK)
        for char in "Zoë小明":
            for byte in char.encode():
                terminal.type(bytes([byte]))
            terminal.expect(char)  # it is shown before the next one is typed
        terminal.type(ENTER)
        terminal.answer(CTRL_D)
        assert terminal.end(0).endswith("Goodbye!\n")


def test_bytes_of_another_encoding_are_sent_as_they_are() -> None:
    with (
        scripted(conversation(b"Zo\xeb")) as port,
        client(port, env=environment(LC_ALL="C")) as terminal,
    ):
        terminal.answer(b"Zo\xeb\r")
        terminal.answer(CTRL_D)
        assert terminal.end(0).endswith("Goodbye!\n")


# Stopped, and continued


def stop(terminal: Terminal) -> None:
    terminal.process.send_signal(signal.SIGSTOP)
    if sys.platform == "linux":
        os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED)


def test_a_prompt_is_drawn_again_when_it_goes_on(port: int) -> None:
    """With what was typed, once, and in readline's mode, whatever the shell has left."""
    if sys.platform != "linux":
        pytest.skip("Python has no waitid on macOS before 3.13")
    with client(port) as terminal:
        terminal.answer("Ad")
        terminal.expect("Ad")
        stop(terminal)
        terminal.reset()  # as a shell does
        terminal.process.send_signal(signal.SIGCONT)
        terminal.expect("\r" + ASK.decode() + "Ad")
        terminal.type("x" + BACKSPACE + "a" + ENTER)
        terminal.expect("Hello Ada!\r\n")
        terminal.answer(CTRL_D)
        shown = terminal.end(0)
    assert "Ad" not in shown
    assert terminal.screen.all().count(ASK) == 3


def test_ctrl_z_without_job_control(port: int) -> None:
    """Nobody could continue it, so it goes on, and nothing has changed."""
    with client(port) as terminal:
        terminal.answer("Ad")
        terminal.expect("Ad")
        terminal.type("\x1a")  # of what was not read yet the terminal forgets all
        terminal.type("a" + ENTER)
        terminal.expect("Hello Ada!\r\n")
        terminal.answer(CTRL_D)
        terminal.end(0)


def test_ctrl_z_and_fg(port: int) -> None:
    """In a shell with job control, which finds the terminal as it was."""
    bash = shutil.which("bash")
    if not bash:
        pytest.skip("there is no bash on PATH")
    call = f"{' '.join(COMMAND)} client --port {port}"
    env = environment(PS1="ready> ")
    with on_terminal(command=(bash, "--norc", "--noediting", "-i"), env=env) as terminal:
        terminal.expect("ready> ")
        for _ in range(2):
            terminal.type(f"{call}\n")
            terminal.answer("Ad")
            terminal.expect("Ad")
            terminal.type("\x1a")
            terminal.expect("Stopped", "ready> ")
            terminal.type("stty -a | grep -c -- ' icanon.* echo '\nfg\n")
            terminal.expect("\r\n1\r\n", "\r" + ASK.decode() + "Ad")
            terminal.type("a" + ENTER)
            terminal.expect("Hello Ada!\r\n")
            terminal.answer(CTRL_D)
            terminal.expect("Goodbye!\r\n", "ready> ")
        terminal.type("exit\n")
        terminal.end(0)


def test_nothing_is_lost_when_it_goes_on_with_a_reader_that_is_slow(port: int) -> None:
    """A signal that is no end does not make a blocked write give up."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(writer, b"x" * 1024)
    os.set_blocking(writer, True)
    with client(port, stdout=writer) as terminal:
        os.close(writer)
        terminal.expect("ends it.")
        terminal.type("Ada\n")
        for _ in range(3):
            stop(terminal)
            terminal.process.send_signal(signal.SIGCONT)
        output = Output(reader)
        output.expect(b"Hello Ada!\n")
        terminal.type("Bob\nexit\n")
        output.expect(b"Hello Bob!\n")
        output.expect(GOODBYE)
        terminal.end(0)
    os.close(reader)
