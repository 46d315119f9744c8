"""Text for people: bytes from the network, paths, addresses, errors, numbers, lists."""

import errno
import os
import socket

import pytest

from greeter_trio._net.text import (
    format_address,
    listed,
    pluralized,
    printable,
    shown_path,
    strerror,
)

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
DANGEROUS = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *BIDI, "\u2028", "\u2029"]


@pytest.mark.parametrize("char", DANGEROUS)
def test_each_dangerous_character_is_escaped(char: str) -> None:
    r"""Control characters, bidirectional controls and line separators become \xHH or \uHHHH."""
    escape = f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"
    assert printable(f"a{char}b{char}".encode()) == f"a{escape}b{escape}"


def test_all_other_characters_are_shown() -> None:
    """Names in any script stay readable: marks, joiners, variation selectors, emoji, spaces."""
    every = map(chr, [*range(0x3100), *range(0xE000, 0x10100), *range(0x1F300, 0x1FB00)])
    others = "".join(sorted({*every} - {*DANGEROUS}))
    for text in ("", "Zoë", 'it\'s "quoted" \\ here', others):
        assert printable(text.encode()) == text


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\xff", "\ufffd"),
        (b"a\xc3(b", "a\ufffd(b"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),  # a surrogate
        (b"\x9b2J", "\ufffd2J"),  # a bare C1 byte
        ("é".encode("latin-1") + b"\x1b[2J", "\ufffd\\x1b[2J"),
    ],
)
def test_what_is_not_utf8_is_replaced(data: bytes, shown: str) -> None:
    assert printable(data) == shown


@pytest.mark.parametrize("path", ["cert.pem", "/a b/it's 小明.pem", r"C:\tls\cert.pem"])
def test_most_paths_are_shown_as_they_are(path: str) -> None:
    assert shown_path(path) == path


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("", "''"),
        ("a\nb: ok", r"'a\nb: ok'"),
        ("a\x1b[31m", r"'a\x1b[31m'"),
        ("a\u202eb", r"'a\u202eb'"),
        ("a\udcff", r"'a\udcff'"),  # not UTF-8, as os.fsdecode returns it
    ],
)
def test_a_path_does_not_break_a_message(path: str, shown: str) -> None:
    assert shown_path(path) == shown


@pytest.mark.parametrize(
    ("sockname", "shown"),
    [
        (("127.0.0.1", 6000), "127.0.0.1:6000"),
        (("::1", 6000, 0, 0), "[::1]:6000"),
        (("fe80::1%eth0", 1, 0, 2), "[fe80::1%eth0]:1"),
        (("::ffff:192.0.2.1", 6000, 0, 0), "192.0.2.1:6000"),
        (("::ffff:1", 6000, 0, 0), "[::ffff:1]:6000"),  # it is not mapped
        (("localhost", 0), "localhost:0"),
        ("/run/greeter", "/run/greeter"),
        ("", "unnamed"),
        ("/tmp/a\nConnection from \x1b[31m", r"/tmp/a\x0aConnection from \x1b[31m"),
        (b"\0a\xff", r"b'\x00a\xff'"),
    ],
)
def test_addresses(sockname: object, shown: str) -> None:
    assert format_address(sockname) == shown


def test_errors_that_only_python_knows_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "errorTab", {10061: "Connection refused."}, raising=False)
    assert strerror(10061) == "Connection refused"
    assert strerror(errno.ENOENT) == os.strerror(errno.ENOENT)


def test_only_one_is_singular() -> None:
    numbers = (0, 1, 2, 1_000_000)
    shown = [pluralized(number, "name") for number in numbers]
    assert shown == ["0 names", "1 name", "2 names", "1000000 names"]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ("", "no name"),
        ("a", "a"),
        ("a b", "a and b"),
        ("a b c d e", "a, b, c, d and e"),
        ("a b c d e f g h", "a, b, c, d, e and 3 more"),
        ("a" * 253 + " " + "b" * 254, "a" * 253 + " and " + "b" * 250 + "..."),
    ],
)
def test_lists_of_names(names: str, shown: str) -> None:
    assert listed(names.split()) == shown
