"""The client's command in this process, with standard streams that the test holds."""

import io
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from greeter_trio._cli import stdio
from greeter_trio._cli.client import converse
from greeter_trio._cli.client_options import ClientOptions
from greeter_trio._cli.options import parse

from .processes import Completed


async def run_client_here(
    *arguments: str,
    stdin: bytes | OSError = b"",
    read: Callable[[int], object] = lambda _: None,
    write: Callable[[bytes], object] | OSError = lambda _: None,
) -> Completed:
    """Run `client` with these arguments, and return what a process would leave.

    `read` and `write` are called before standard input or output is used, in a thread if time is
    real; an OSError in place of `stdin` or `write` is what using it raises.
    """
    source = io.BytesIO(b"" if isinstance(stdin, OSError) else stdin)
    written = io.BytesIO()

    def read_some(size: int) -> bytes:
        if isinstance(stdin, OSError):
            raise stdin
        read(size)
        return source.read(size)

    def write_some(data: bytes) -> int:
        if isinstance(write, OSError):
            raise write
        write(data)
        return written.write(data[:65536])  # no more than a pipe takes at once

    with pytest.MonkeyPatch.context() as patch:
        if isinstance(trio.lowlevel.current_clock(), MockClock):  # it does not wait for threads
            patch.setattr(trio.to_thread, "run_sync", _run_here)
        patch.setattr(stdio, "read", read_some)
        patch.setattr(stdio, "write", write_some)
        patch.setattr(sys, "stdin", io.StringIO())  # no terminal
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
        patch.setattr(sys, "stderr", said := io.StringIO())
        options = parse(["client", *arguments])
        assert isinstance(options, ClientOptions)
        status = await converse(options)
    return subprocess.CompletedProcess(
        arguments, status, written.getvalue(), said.getvalue().encode()
    )


async def _run_here(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return function(*arguments)


def errors(done: Completed) -> list[str]:
    """Return the lines on standard error, which must all be messages of the command."""
    lines = done.stderr.decode().splitlines()
    assert all(line.startswith("greeter: ") and line.isprintable() for line in lines), lines
    return [line.removeprefix("greeter: ") for line in lines]
