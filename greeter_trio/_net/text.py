"""Text for people: bytes from the network made harmless, paths, addresses, errors, numbers."""

import os
import socket
import unicodedata
from collections.abc import Sequence

_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_BREAKS = "\u2028\u2029"


def printable(data: bytes) -> str:
    r"""Return bytes from the network as text that is safe on a terminal and in a log.

    They are decoded as UTF-8, with U+FFFD for what is not UTF-8. Control characters (C0, DEL, C1),
    bidirectional controls (Unicode TR 9) and line separators, any of which could make a terminal
    show something else than what was sent, become escapes such as \x1b.
    """
    text = data.decode("utf-8", "replace")
    if text.isprintable():
        return text
    return "".join(_escaped(char) for char in text)


def shown(text: str) -> str:
    """Return a path or a name that a user gave, quoted if it is empty or could break a line."""
    harmless = text and text == printable(os.fsencode(text)) and text == text.strip()
    return text if harmless else repr(text)


def _escaped(char: str) -> str:
    if unicodedata.category(char) == "Cc" or char in _BIDI or char in _BREAKS:
        return f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"
    return char


def shown_path(path: str) -> str:
    """Return a path for a message of one line: as it is, or as Python quotes it.

    Quoted are control characters, line separators and other characters that are not printable,
    bytes that are not UTF-8, and the empty path.
    """
    return path if path and path.isprintable() else repr(path)


def format_address(sockname: object) -> str:
    """Return what `getsockname` or `getpeername` returned as HOST:PORT, or [HOST]:PORT for IPv6.

    An IPv4 peer of a socket for both families is shown as IPv4, and not as mapped to IPv6
    (RFC 4291, 2.5.5.2). A Unix socket without a path is `unnamed`.
    """
    match sockname:
        case (str(host), int(port), *_):
            if "." in host:
                host = host.removeprefix("::ffff:")
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case _:  # the peer chooses the path of its Unix socket
            return printable(os.fsencode(str(sockname))) or "unnamed"


def strerror(number: int) -> str:
    """Return what an `errno` means; `os.strerror` does not know those of sockets on Windows."""
    known: dict[int, str] = getattr(socket, "errorTab", {})
    return known[number].rstrip(".") if number in known else os.strerror(number)


def pluralized(number: int, noun: str) -> str:
    """Return `1 name`, `2 names`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return `a, b and c`, and at most so many names: `a, b, c, d, e and 3 more`.

    No name is shown longer than the 253 characters that a DNS name can have (RFC 1035, 2.3.4).
    """
    shown = [name if len(name) <= 253 else f"{name[:250]}..." for name in names[:most]]
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    return " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:]))) or "no name"
