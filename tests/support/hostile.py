"""Surroundings that are against the command: streams that are stalled, namespaces, no threads."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from .processes import COMMAND, PATIENCE, Process, connected, started
from .words import GOODBYE

pty = pytest.importorskip("pty", reason="these tests use pseudo-terminals")

Ends: TypeAlias = tuple[int, int]
_os: Any = os  # Windows lacks some of it


def filled(ends: Ends) -> Ends:
    """Write until no byte more is taken; return the ends, of which the second is to be written."""
    _os.set_blocking(ends[1], False)
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(ends[1], b"x" * size)
    _os.set_blocking(ends[1], True)
    return ends


@contextlib.contextmanager
def stalled(open_ends: Callable[[], Ends], *, full: bool = False) -> Iterator[Ends]:
    """Yield a pipe or a terminal whose other end nobody reads, which may be full already."""
    ends = open_ends()
    try:
        yield filled(ends) if full else ends
    finally:
        for end in ends:
            with contextlib.suppress(OSError):
                os.close(end)


@contextlib.contextmanager
def passed_server(
    *options: str, command: tuple[str, ...] = COMMAND, **streams: Any
) -> Iterator[tuple[Process, int]]:
    """Start a server whose log need not be read to find it; yield it with its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=500) as listener:
        fd = listener.fileno()
        listen = ("serve", "--listen", f"fd:{fd}", *options)
        with started(*command, *listen, pass_fds=[fd], **streams) as process:
            yield process, listener.getsockname()[1]


def converse(port: int, *names: bytes) -> None:
    """Have a short conversation, which must come to its end."""
    with connected(port) as peer:
        peer.say(b"".join(name + b"\n" for name in names) + b"exit\n")
        assert peer.hear_rest().endswith(GOODBYE)


def in_namespace(*flags: str) -> tuple[str, ...]:
    """Return a command that enters new namespaces, and becomes the command that follows."""
    command = ("unshare", *flags)
    if not shutil.which("unshare") or subprocess.run([*command, "true"], check=False).returncode:
        pytest.skip("this process may not make such namespaces")
    return command


def without_threads() -> tuple[str, ...]:
    """Return a command that becomes the one that follows, which gets no thread more.

    Each thread would have a stack of 200 GB, which is more than the system promises to anybody.
    """
    command = ("prlimit", "--stack=200000000000:unlimited")
    script = "import threading; threading.Thread(target=int).start()"
    if not shutil.which("prlimit"):
        pytest.skip("there is no prlimit")
    python = subprocess.run(
        [*command, sys.executable, "-c", script], capture_output=True, check=False
    )
    if not python.returncode:
        pytest.skip("a thread can be had here")
    return command


def children(process: Process) -> list[int]:
    """Return the process ids of the children of a process (Linux)."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


def end_of(process: Process) -> tuple[int, bytes, bytes]:
    """Wait for its end; return its status and what it has written to the pipes it had."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out or b"", err or b""
