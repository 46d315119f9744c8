"""Files that a command was asked to write: a regular one is replaced, others are written into."""

import contextlib
import io
import os
import secrets
import stat
from pathlib import Path

from greeter_trio._net.text import shown


class OutputError(Exception):
    """A file cannot be written; the message says which one, and why."""

    def __init__(self, name: str, why: OSError) -> None:
        super().__init__(f"cannot write to {shown(name)}: {why.strerror}")


def open_as_it_is(path: str) -> io.FileIO:
    """Open a file to be written; it keeps what it holds until `empty`. Raises OSError."""

    def open_untruncated(name: str, flags: int) -> int:
        return os.open(name, flags & ~os.O_TRUNC, 0o666)

    return io.FileIO(path, "w", opener=open_untruncated)


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


def replace_file(name: str, data: bytes) -> None:
    """Write a whole file: a regular one appears, or is replaced, at once and complete.

    Its mode is what umask leaves of 0666. Raises OSError, and then a regular file is as it was.
    """
    path = Path(name)
    if not is_replaceable(name):
        with path.open("ab") as file:
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
    """Do what `replace_file` does, and raise `OutputError`."""
    try:
        replace_file(name, data)
    except OSError as exc:
        raise OutputError(name, exc) from exc
