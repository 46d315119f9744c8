"""Standard input and output as bytes, past `sys.stdin` and `sys.stdout`.

A thread that is left behind in one of those keeps its lock forever, and Python takes that at exit.
The console of Windows must be opened as a file of Python's: only then does it take and give UTF-8
(PEP 528).
"""

import os
import sys


def read(size: int) -> bytes:
    """Return what comes next on standard input, up to so many bytes, and nothing at its end."""
    if sys.platform == "win32":
        with open(0, "rb", buffering=0, closefd=False) as file:
            return file.read(size)
    return os.read(0, size)


def write(data: bytes) -> int:
    """Write to standard output, and return how many bytes that took."""
    if sys.platform == "win32":
        with open(1, "wb", buffering=0, closefd=False) as file:
            return file.write(data)
    return os.write(1, data)
