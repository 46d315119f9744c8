"""The server that is checked: one that runs already, or one that the kit starts."""

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, Protocol

import attrs
import trio

from greeter_core import ServerConfig

from .configuration import config_json
from .peer import Address, Fault, excerpt, why

DEFAULTS: Final = ServerConfig()
LIMIT: Final = 10.0
"""Seconds that a server may take until it listens, and until it ends."""

_SEND_TIMEOUT = 1.0  # seconds, of servers that the kit starts
_POLL = 0.01  # seconds
_LISTENING = re.compile(rb"listening on (\S+):(\d+)\r?\n")
_os: Any = os  # Windows lacks some of it
_signal: Any = signal


class TargetError(Exception):
    """There is no server to talk to; the message is one sentence that says why."""


class Process:
    """A server that the kit has started, and what the kernel says of it."""

    def __init__(self, popen: trio.Process, errors: Path) -> None:
        self._popen = popen
        self._errors = errors
        self._proc = Path("/proc", str(popen.pid))
        self.told_to_end = False

    @property
    def ended(self) -> str:
        """How it has ended, in words; `""` if it runs."""
        if self._popen.poll() is None:
            return ""
        lines = self._errors.read_text("utf-8", "backslashreplace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        said = f": {ascii(last)[1:-1]}" if last else ""
        return f"the server has ended with status {self._popen.returncode}{said}"

    def shut_down(self) -> None:
        """Tell it to end in good order."""
        self.told_to_end = True
        self._popen.send_signal(_signal.SIGTERM)

    async def stop(self) -> None:
        """Have it stand still."""
        self._popen.send_signal(_signal.SIGSTOP)
        await trio.to_thread.run_sync(_os.waitid, _os.P_PID, self._popen.pid, _os.WSTOPPED)

    def go_on(self) -> None:
        """Have it go on after that."""
        self._popen.send_signal(_signal.SIGCONT)

    async def end_in_order(self) -> None:
        """Tell it to end, if nobody has, and see that it ends well."""
        expected = "that it ends when it gets SIGTERM, with status 0"
        if not self.told_to_end:
            if self.ended:
                raise Fault(expected, self.ended)
            self.shut_down()
        with trio.move_on_after(LIMIT):
            await self._popen.wait()
        if self._popen.returncode != 0:
            raise Fault(expected, self.ended or "nothing in time")

    @property
    def peak_memory(self) -> int | None:
        """Return how many bytes were resident at most, if the kernel tells (Linux)."""
        with contextlib.suppress(OSError):
            lines = (self._proc / "status").read_text().splitlines()
            fields = [line.split() for line in lines if line.startswith("VmHWM:")]
            return int(fields[0][1]) * 1024 if fields else None
        return None

    @property
    def descriptors(self) -> int | None:
        """Return how many descriptors are open, if the kernel tells (Linux)."""
        with contextlib.suppress(OSError):
            return sum(1 for _ in (self._proc / "fd").iterdir())
        return None


@attrs.frozen
class Server:
    """A server that listens."""

    address: Address
    config: ServerConfig
    send_timeout: float | None
    """Its patience with a blocked send, in seconds, if that is known."""
    process: Process | None = None


class Target(Protocol):
    """Where to get a server with a configuration."""

    def obstacle(self, config: ServerConfig | None, *, own_process: bool) -> str:
        """Return why there is none for a check that wants this; `""` if there is one.

        None is for any configuration. With its own process, the check may stop it.
        """

    def serving(self, config: ServerConfig | None) -> AbstractAsyncContextManager[Server]:
        """Have a server, which must have ended well at the end of the block if it was started.

        Raises `TargetError` if there is none.
        """


@attrs.frozen
class Running:
    """A server that runs already."""

    host: str
    port: int
    config: ServerConfig = DEFAULTS
    send_timeout: float | None = None

    def obstacle(self, config: ServerConfig | None, *, own_process: bool) -> str:
        if own_process:
            return "it takes a server that the kit has started (--start)"
        if config not in (None, self.config):
            return "it takes another configuration (--start, --config)"
        return ""

    @contextlib.asynccontextmanager
    async def serving(self, config: ServerConfig | None) -> AsyncIterator[Server]:
        assert not self.obstacle(config, own_process=False)
        yield Server(await self._address(), self.config, self.send_timeout)

    async def _address(self) -> Address:
        """Return the first address of this name that can be connected to."""
        where = f"{self.host}, port {self.port}"
        try:
            found = await trio.socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise TargetError(f"cannot resolve {self.host!r}: {why(exc)}") from None
        error = "there is no address"
        for family, _, _, _, address in found:
            with socket.socket(family) as sock:
                try:
                    with trio.fail_after(LIMIT):
                        await trio.socket.from_stdlib_socket(sock).connect(address)
                except (OSError, trio.TooSlowError) as exc:
                    error = why(exc)
                else:
                    return family, address
        raise TargetError(f"cannot connect to {where}: {error}")


@attrs.frozen
class Started:
    """A command that runs a server with the configuration that it is told."""

    command: Sequence[str]

    def obstacle(self, config: ServerConfig | None, *, own_process: bool) -> str:  # noqa: ARG002
        if own_process and sys.platform == "win32":
            return "it takes signals, which Windows does not have"
        return ""

    @contextlib.asynccontextmanager
    async def serving(self, config: ServerConfig | None) -> AsyncIterator[Server]:
        config = config or DEFAULTS
        options = ["--port", "0", "--config", config_json(config)]
        options += ["--send-timeout", f"{_SEND_TIMEOUT:g}"]
        with contextlib.ExitStack() as stack:
            # Files, because a server would wait for somebody who reads a pipe.
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            output, errors = folder / "stdout", folder / "stderr"
            try:
                popen = await trio.lowlevel.open_process(
                    [*self.command, *options],
                    stdin=subprocess.DEVNULL,
                    stdout=stack.enter_context(output.open("wb")),
                    stderr=stack.enter_context(errors.open("wb")),
                )
            except OSError as exc:
                raise TargetError(f"cannot start {shlex.join(self.command)}: {why(exc)}") from None
            process = Process(popen, errors)
            try:
                address = await _address(output, process)
                yield Server(address, config, _SEND_TIMEOUT, process)
            finally:
                popen.kill()  # does nothing to one that has ended
                with trio.CancelScope(shield=True):
                    await popen.wait()


async def _address(output: Path, process: Process) -> Address:
    """Wait for the line that says where the server listens."""
    line = b""
    with trio.move_on_after(LIMIT):
        while not line.endswith(b"\n"):
            if process.ended:
                raise TargetError(process.ended)
            await trio.sleep(_POLL)
            line = b"".join(output.read_bytes().splitlines(keepends=True)[:1])
    if not (match := _LISTENING.fullmatch(line)):
        printed = f"printed {excerpt(line)}" if line else f"printed no line in {LIMIT:g} s"
        raise TargetError(f"the server {printed}, and not 'listening on ADDRESS:PORT'")
    host = match[1].decode().strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return family, (host, int(match[2]))
