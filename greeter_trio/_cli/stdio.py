"""Standard input and output as bytes, past `sys.stdin` and `sys.stdout`.

A thread that is left behind in one of those keeps its lock forever, and Python takes that at exit.
The console of Windows must be opened as a file of Python's: only then does it take and give UTF-8
(PEP 528). A descriptor may be non-blocking, as another process has left it: then it is waited for.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import TypeVar

import trio

from .output import wait_until

_Result = TypeVar("_Result")


def read(size: int) -> bytes:
    """Return what comes next on standard input, up to so many bytes, and nothing at its end."""
    if sys.platform == "win32":
        with open(0, "rb", buffering=0, closefd=False) as file:
            return file.read(size)
    while True:
        try:
            return os.read(0, size)
        except BlockingIOError:
            wait_until(0, writable=False)


def write(data: bytes) -> int:
    """Write to standard output, and return how many bytes that took."""
    if sys.platform == "win32":
        with open(1, "wb", buffering=0, closefd=False) as file:
            return file.write(data)
    while True:
        try:
            return os.write(1, data)
        except BlockingIOError:
            wait_until(1, writable=True)


def write_all(data: bytes) -> None:
    """Write all of it to standard output."""
    while data:
        data = data[write(data) :]


async def read_in_thread(size: int) -> bytes:
    """Do what `read` does; meanwhile other tasks run."""
    try:
        return await trio.to_thread.run_sync(read, size, abandon_on_cancel=True)
    except RuntimeError:  # the system allows no thread more
        with contextlib.suppress(OSError):  # a regular file need not be waited for
            await trio.lowlevel.wait_readable(0)
        return read(size)


async def in_thread(function: Callable[[bytes], _Result], data: bytes) -> _Result:
    """Call it in a thread, or here where the system allows no thread more."""
    try:
        return await trio.to_thread.run_sync(function, data, abandon_on_cancel=True)
    except RuntimeError:
        return function(data)
