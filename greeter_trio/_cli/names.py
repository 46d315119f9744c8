"""What a name may be, and what the lines of a file are that is read for names."""

import codecs

from greeter_core import ClientConnection, LocalProtocolError

_MARKS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


def problem_with(name: bytes) -> str:
    """Return why this is no name, or nothing if it is one; the core knows."""
    try:
        ClientConnection(now=0.0).send_name(name, now=0.0)
    except LocalProtocolError as exc:
        return str(exc)
    return ""


def without_mark(start: bytes) -> bytes:
    """Return the start of a file without the byte order mark of UTF-8, which Windows puts there."""
    return start.removeprefix(codecs.BOM_UTF8)


def doubt_about(start: bytes) -> str:
    """Return what the start of a file seems to be, if that is not text in UTF-8, or nothing.

    Its names are bytes, and are sent as they are; but a person hardly means that.
    """
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    if b"\0" in start:
        return "UTF-16, or no text at all"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # its end may be within a character
    except UnicodeDecodeError:
        return "in another encoding than UTF-8"
    return ""
