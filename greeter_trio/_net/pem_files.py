"""PEM files (RFC 7468), each of them read once: any of them may be a pipe."""

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import attrs

from .text import shown_path

_MOST = 2**24  # bytes; what all systems trust together takes less than 2**20


class TLSError(Exception):
    """A certificate or a key cannot be used; the message names the file and says what is wrong."""


@attrs.frozen
class PemFile:
    """What a file holds."""

    name: str
    """Its path, for messages."""
    data: bytes
    path: str | None = None
    """Where OpenSSL can read it too, if it can."""

    @classmethod
    def read(cls, path: str, *, again: bool = False) -> Self:
        """Read a file or a pipe; waiting for what comes through a pipe blocks the event loop.

        With `again`, to load a file once more while the program runs, it does not block: pipes are
        refused. Raises `TLSError`.
        """
        name = shown_path(path)
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116 - for Path, no text is the folder
            if again and stat.S_ISFIFO(mode):
                raise TLSError(f"{name}: it is a pipe, which can be read only once, at the start")
            if stat.S_ISDIR(mode):
                raise TLSError(f"{name}: it is a folder")
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):  # /dev/zero has no end
                raise TLSError(f"{name}: it is neither a file nor a pipe")
            with Path(path).open("rb") as file:
                data = file.read(_MOST + 1)
        except OSError as exc:
            raise TLSError(f"{name}: {exc.strerror}") from exc
        except ValueError as exc:  # such as a null character
            raise TLSError(f"{name}: no file can have this name") from exc
        if not data:
            raise TLSError(f"{name}: it is empty")
        if len(data) > _MOST:
            raise TLSError(f"{name}: it is longer than any PEM file")
        return cls(name, data, path if stat.S_ISREG(mode) else None)

    @contextlib.contextmanager
    def opened(self) -> Iterator[str]:
        """Have a path from which OpenSSL can read it.

        A copy of what came through a pipe is in memory, if the system can do that, and otherwise in
        a temporary file that nobody else may read. Raises `TLSError` if there can be no copy.
        """
        with contextlib.ExitStack() as closing:
            path = self.path
            if path is None:
                try:
                    path = closing.enter_context(_copy(self.data))
                except OSError as exc:
                    why = f"what it holds cannot be copied for OpenSSL: {exc.strerror}"
                    raise TLSError(f"{self.name}: {why}") from exc
            yield path

    def demand(self, label: str, what: str) -> None:
        """Raise `TLSError` if it has no complete block with this label (RFC 7468, 2 and 3)."""
        begun, ended = (
            len(re.findall(rb"-----%b [A-Z0-9 ]*%b-----" % (edge, label.encode()), self.data))
            for edge in (b"BEGIN", b"END")
        )
        if not begun:
            form = _other_form(self.data, label)
            must = f"it must be a PEM file{form and f', not {form}'}"
            raise TLSError(f"{self.name}: there is no {what} in it; {must}")
        if ended < begun:
            raise TLSError(f"{self.name}: it is cut short: a {what} in it has no end")


@contextlib.contextmanager
def _copy(data: bytes) -> Iterator[str]:
    with contextlib.ExitStack() as closing:
        if create := getattr(os, "memfd_create", None):
            file = closing.enter_context(os.fdopen(create("greeter"), "wb"))
            path = f"/proc/self/fd/{file.fileno()}"
            file.write(data)
            file.flush()
        else:
            number, path = tempfile.mkstemp()  # its mode is 0600
            closing.callback(os.unlink, path)
            with os.fdopen(number, "wb") as file:  # Windows removes no file that is open
                file.write(data)
        yield path


def _other_form(data: bytes, label: str) -> str:
    """Return the name of a form that people take for PEM, if it is one."""
    if any(label.encode(form) in data for form in ("utf-16-le", "utf-16-be")):
        return "UTF-16 text"  # which > writes in Windows PowerShell
    if data[:1] == b"0" and not data.isascii():  # a SEQUENCE (X.690, 8.9)
        return "DER or PKCS #12"
    return ""
