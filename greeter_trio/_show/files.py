"""Files that a command was asked to write: a regular one is replaced, others are written into."""

import contextlib
import errno
import io
import os
import secrets
import stat
from pathlib import Path
from typing import Any

from greeter_trio._net.text import shown

_os: Any = os  # Windows lacks some of it


class OutputError(Exception):
    """A file cannot be written; the message says which one, and why."""

    def __init__(self, name: str, why: OSError) -> None:
        super().__init__(f"cannot write to {shown(name)}: {why.strerror}")


def open_as_it_is(path: str) -> io.FileIO:
    """Open a file to be written; it keeps what it holds until `empty`. Raises OSError."""
    file = io.FileIO(path, "w", opener=_open_at_once)
    if file.isatty():
        _os.set_blocking(file.fileno(), False)
    return file


def open_descriptor(descriptor: int) -> io.FileIO:
    """Return a descriptor of this process as a file, which may be closed. Raises OSError.

    A terminal is opened anew, so that it can be non-blocking without being that for the other
    processes that have it open.
    """
    if hasattr(_os, "O_NONBLOCK") and os.isatty(descriptor):
        flags = os.O_WRONLY | _os.O_NONBLOCK | _os.O_NOCTTY
        for find in (_os.ttyname, "/proc/self/fd/{}".format):  # that of a container has no name
            with contextlib.suppress(OSError):
                return io.FileIO(os.open(find(descriptor), flags), "w")
    # As `open` does it, because only that makes the console of Windows take UTF-8 (PEP 528).
    return open(descriptor, "wb", buffering=0, closefd=False)


def _open_at_once(name: str, flags: int) -> int:
    """Open a file to be written, as it is, without waiting for the reader of a FIFO."""
    at_once = getattr(os, "O_NONBLOCK", 0)  # Windows has neither of these
    try:
        how = flags & ~os.O_TRUNC | at_once | getattr(os, "O_NOCTTY", 0)
        descriptor = os.open(name, how, 0o666)
    except OSError as exc:
        if exc.errno == errno.ENXIO and Path(name).is_fifo():
            raise OSError(errno.ENXIO, "no program has this pipe open to read from it") from exc
        raise
    if at_once:  # pragma: no branch - Windows
        _os.set_blocking(descriptor, True)
    return descriptor


def empty(file: io.FileIO) -> None:
    """Drop what a regular file holds."""
    if is_regular(file):
        file.truncate(0)


def is_regular(file: io.FileIO) -> bool:
    """Return whether this is a regular file, and not a pipe, a terminal or a device."""
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def is_replaceable(name: str) -> bool:
    """Return whether a file with this name is regular, is still to be made, or is a folder.

    (A folder is in the way, and then `replace_file` says so.)

    A name such as `/dev/stdout` or `/dev/fd/3` is this process's own descriptor, whatever file that
    is: it is written into.
    """
    path = Path(name)
    is_descriptor = name.startswith(("/dev/fd/", "/dev/std", "/proc/"))
    return not is_descriptor and (path.is_file() or path.is_dir() or not path.exists())


def replace_file(name: str, data: bytes, *, waits: bool = True) -> None:
    """Write a whole file: a regular one appears, or is replaced, at once and complete.

    Its mode is what umask leaves of 0666. With `waits`, the reader of a FIFO may come later. Raises
    OSError, and then a regular file is as it was.
    """
    path = Path(name)
    if not is_replaceable(name):
        with open(name, "ab", opener=None if waits else _open_at_once) as file:
            file.write(data)
        return
    target = path.resolve()  # a symbolic link stays one
    temporary = target.parent / f".{target.name}.{secrets.token_hex(4)}"
    try:
        with temporary.open("xb") as file:
            file.write(data)
        temporary.replace(target)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_file(name: str, data: bytes) -> None:
    """Do what `replace_file` does, and raise `OutputError`; also for a FIFO without a reader."""
    try:
        replace_file(name, data, waits=False)
    except OSError as exc:
        raise OutputError(name, exc) from exc
