"""What people get to read (`_text.py`)."""

import errno
import os
import socket
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greeter_trio._net.text import address, complain, counted, printable, strerror

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"", ""),
        (b"Ada", "Ada"),
        (b"Grace Hopper", "Grace Hopper"),
        (b'it\'s "quoted" \\ here', 'it\'s "quoted" \\ here'),
        (b"\x00", "\\x00"),
        (b"\t\n\r", "\\x09\\x0a\\x0d"),
        (b"\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        (b"\x7f", "\\x7f"),
        ("\x80\x9b\x9f".encode(), "\\x80\\x9b\\x9f"),
        ("\u202egnp.exe".encode(), "\\u202egnp.exe"),
        ("\u2066\u2069".encode(), "\\u2066\\u2069"),
        ("\u200e\u061c".encode(), "\\u200e\\u061c"),
        ("one\u2028two\u2029three".encode(), "one\\u2028two\\u2029three"),
        ("one\x85two".encode(), "one\\x85two"),
    ],
)
def test_what_could_make_a_terminal_lie_is_escaped(data: bytes, shown: str) -> None:
    """Control characters, bidirectional controls and line separators become escapes, and all other text stays."""
    assert printable(data) == shown


@pytest.mark.parametrize(
    "char", [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *BIDI, "\u2028", "\u2029"]
)
def test_each_dangerous_character_is_escaped(char: str) -> None:
    """Each of them is escaped in the middle of a name, as a Python string would have it, in two digits or four."""
    escape = f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"
    assert printable(f"a{char}b".encode()) == f"a{escape}b"


@pytest.mark.parametrize(
    "name",
    [
        "Zoë",
        "Zoe\u0308",  # a combining mark
        "李小龍",
        "Ὀδυσσεύς",
        "محمد",
        "शकुन्तला",
        # zero width non-joiner, without which it is misspelt
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "👩\u200d🚀",  # zero width joiner
        "🏳️\u200d🌈",  # variation selector
        "no\u00a0break",
        "soft\u00adhyphen",
        "\ue000",  # private use
    ],
)
def test_names_of_the_world_stay_readable(name: str) -> None:
    """Names in any script, with marks and joiners, and emoji are shown as they are."""
    assert printable(name.encode()) == name


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\xff", "\ufffd"),
        (b"a\xc3(b", "a\ufffd(b"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        (b"\x9b2J", "\ufffd2J"),
        ("é".encode("latin-1") + b"\x1b", "\ufffd\\x1b"),
    ],
)
def test_what_is_not_utf8_is_replaced(data: bytes, shown: str) -> None:
    """Bytes that are no UTF-8 become U+FFFD and raise nothing, a bare C1 byte included."""
    assert printable(data) == shown


@settings(derandomize=True, deadline=None, database=None)
@given(
    st.one_of(
        st.binary(),
        st.text().map(str.encode),
        st.text(st.sampled_from("a\x00\x9b" + BIDI)).map(str.encode),
    )
)
@example(bytes(range(256)))
def test_no_control_character_is_ever_shown(data: bytes) -> None:
    """Whatever the bytes, what is shown has no control character, no bidirectional control and no line separator."""
    shown = printable(data)
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in shown)
    assert not set(BIDI) & set(shown)
    assert shown.splitlines() in ([], [shown])


@settings(derandomize=True, deadline=None, database=None)
@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_harmless_text_is_never_changed(text: str) -> None:
    """Text of visible characters is shown as it is."""
    assert printable(text.encode()) == text


@pytest.mark.parametrize(
    ("sockname", "shown"),
    [
        (("127.0.0.1", 6000), "127.0.0.1:6000"),
        (("::1", 6000, 0, 0), "[::1]:6000"),
        (("fe80::1%eth0", 1, 0, 2), "[fe80::1%eth0]:1"),
        (("::ffff:192.0.2.1", 6000, 0, 0), "192.0.2.1:6000"),
        (("localhost", 0), "localhost:0"),
        ("/run/greeter", "/run/greeter"),
        ("", "unnamed"),
        ("/tmp/a\nConnection from \x1b[31m", r"/tmp/a\x0aConnection from \x1b[31m"),
        (b"\0a\xff", r"b'\x00a\xff'"),
    ],
)
def test_addresses(sockname: object, shown: str) -> None:
    """An address is HOST:PORT, with brackets around an IPv6 host, and a Unix socket's is its path."""
    assert address(sockname) == shown


def test_addresses_of_real_sockets() -> None:
    """What `getsockname` really returns is shown."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert address(sock.getsockname()) == f"127.0.0.1:{sock.getsockname()[1]}"
    if hasattr(socket, "AF_UNIX"):
        with socket.socket(socket.AF_UNIX) as sock:
            assert address(sock.getsockname()) == "unnamed"


def test_what_an_errno_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python itself knows, which it does on Windows, comes before what the system knows."""
    monkeypatch.setattr(socket, "errorTab", {10061: "Connection refused."}, raising=False)
    assert strerror(10061) == "Connection refused"
    assert strerror(errno.ENOENT) == os.strerror(errno.ENOENT)


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 names"), (1, "1 name"), (2, "2 names"), (1_000_000, "1000000 names")],
)
def test_counted(number: int, shown: str) -> None:
    """Only one is singular."""
    assert counted(number, "name") == shown


def test_complain(capsys: pytest.CaptureFixture[str]) -> None:
    """A complaint is one line on standard error, and nothing goes to standard output."""
    complain("the server is away")
    assert capsys.readouterr() == ("", "greeter: the server is away\n")


def test_complain_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where standard error is closed or broken a complaint is lost, and raises nothing."""

    class Broken:
        def write(self, text: str) -> int:
            raise BrokenPipeError(text)

        def flush(self) -> None:
            raise BrokenPipeError

    for nobody in (None, Broken()):
        monkeypatch.setattr("sys.stderr", nobody)
        complain("is anybody there?")
