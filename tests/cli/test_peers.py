"""What `nc`, `telnet` and programs that pipeline do, with plain sockets and with the programs themselves."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cli.helpers import (
    ESCAPES,
    GOODBYE,
    HOST,
    PATIENCE,
    PROMPT,
    SCRIPTS,
    WELCOME,
    Output,
    connected,
    environment,
    hello,
    met,
    started,
)


def asked(*names: bytes | str) -> bytes:
    """Return what the server says to these names, each of which it has asked for."""
    return b"".join(PROMPT + hello(name) for name in names)


# Plain sockets


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
def test_lines(port: int, end: bytes) -> None:
    """Lines that end with LF or CR LF are names, and `exit` gets Goodbye! and the end of the connection."""
    with met(port) as peer:
        for name in ("Ada", "Grace Hopper", *SCRIPTS):
            peer.say(name.encode() + end)
            peer.hear(hello(name) + PROMPT)
        peer.say(b"exit" + end)
        assert peer.hear_rest() == GOODBYE


def test_lines_in_pieces(port: int) -> None:
    """Once a peer is known to send lines, a name may come in any number of pieces."""
    with met(port) as peer:
        peer.say(b"Ada\n")
        peer.hear(hello("Ada") + PROMPT)
        for byte in b"Grace Hopper\r\nexit\n":
            peer.say(bytes([byte]))
        assert peer.hear_rest() == hello("Grace Hopper") + PROMPT + GOODBYE


def test_empty_lines(port: int) -> None:
    """To an empty line the server asks again."""
    with met(port) as peer:
        peer.say(b"\n\r\n\n")
        peer.hear(3 * PROMPT)
        peer.say(b"Ada\n\nexit\n")
        assert peer.hear_rest() == hello("Ada") + 2 * PROMPT + GOODBYE


def test_impatient_lines(port: int) -> None:
    """Names that are sent before the server has said a word are answered in order, after its welcome."""
    with connected(port) as peer:
        peer.say(b"Ada\nBob\nexit\nCleo\n")
        assert peer.hear_rest() == WELCOME + asked("Ada", "Bob") + PROMPT + GOODBYE


def test_half_close_ends_the_last_name(port: int) -> None:
    """After `Ada`, LF, `Bob` and a half-close both are greeted, and then the connection ends cleanly."""
    with met(port) as peer:
        peer.say(b"Ada\nBob")
        peer.end()
        assert peer.hear_rest() == hello("Ada") + asked("Bob")


def test_half_close_without_a_name(port: int) -> None:
    """A peer that says nothing at all is welcomed, and its half-close is answered with the end of the connection."""
    with connected(port) as peer:
        peer.hear(WELCOME)
        peer.end()
        assert peer.hear_rest() in (b"", PROMPT)  # it had come already, or is not owed any more


def test_a_name_with_every_byte(port: int) -> None:
    """A name is echoed exactly, whatever its bytes are: only LF is none of them, and CR only right before LF."""
    name = bytes(byte for byte in range(256) if byte != 10) + ESCAPES.encode()
    with met(port) as peer:
        peer.say(name + b"\nexit\n")
        assert peer.hear_rest() == hello(name) + PROMPT + GOODBYE


def test_many_names_and_half_close(port: int) -> None:
    """A hundred thousand names and a half-close: all are answered, in order, and then the connection ends cleanly."""
    names = [b"name %d" % i for i in range(100_000)]
    with met(port) as peer, ThreadPoolExecutor(1) as pool:
        answers = pool.submit(peer.hear_rest)
        peer.say(b"\n".join(names))
        peer.end()
        heard = answers.result()
    assert heard == asked(*names).removeprefix(PROMPT)


# The programs


def nc(port: int, names: bytes, *options: str) -> bytes:
    """Return what `nc` prints when it is given these names, and then the end of its input."""
    if not shutil.which("nc"):
        pytest.skip("nc is not installed")
    command = ["nc", "-h"]
    if (
        b"OpenBSD"
        not in subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False).stderr
    ):
        pytest.skip("this nc is not OpenBSD's, and others have other options")
    command = ["nc", *options, HOST, str(port)]
    done = subprocess.run(
        command, input=names, capture_output=True, env=environment(), timeout=PATIENCE, check=False
    )
    assert (done.stderr, done.returncode) == (b"", 0)
    return done.stdout


@pytest.mark.parametrize("options", [(), ("-C",)], ids=["LF", "CRLF"])
def test_nc(port: int, options: tuple[str, ...]) -> None:
    """`nc` with lines and `exit` ends by itself."""
    heard = nc(port, "Ada\n小明\nexit\n".encode(), *options)
    assert heard == WELCOME + asked("Ada", "小明") + PROMPT + GOODBYE


def test_nc_half_close(port: int) -> None:
    r"""`printf 'Ada\nBob' | nc -N` has both greeted, and ends by itself."""
    assert nc(port, b"Ada\nBob", "-N") == WELCOME + asked("Ada", "Bob")


def test_nc_with_a_file_of_names(port: int) -> None:
    """`nc -N` has a whole file of names greeted, in order."""
    names = [b"name %d" % i for i in range(20_000)]
    assert nc(port, b"\n".join(names) + b"\n", "-N") == WELCOME + asked(*names) + PROMPT


def test_telnet(port: int) -> None:
    """`telnet` has a conversation, line by line, and sees the connection closed after Goodbye!."""
    if not shutil.which("telnet"):
        pytest.skip("telnet is not installed")
    with started("telnet", HOST, str(port), stdin=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        screen = Output(process.stdout.fileno())
        screen.expect(WELCOME + PROMPT)
        for name in (b"Ada", b"Grace Hopper"):
            process.stdin.write(name + b"\n")
            screen.expect(hello(name) + PROMPT)
        process.stdin.write(b"exit\n")
        screen.expect(GOODBYE)
        process.wait(PATIENCE)
        screen.join()
