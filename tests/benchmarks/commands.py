"""The servers that are measured, and how they are started."""

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from tests.support.accounting import Command
from tests.support.crowds import HOST

_GREETER = ["-m", "greeter_trio", "serve", "--host", HOST, "--port", "0", "--log-level", "warning"]


RECORDING: Final = Path(tempfile.gettempdir()) / "greeter-benchmark.jsonl"
"""What the server records that is measured with `--record`."""


@attrs.frozen
class Server:
    """One row of the results."""

    command: Command
    packages: tuple[str, ...] = ()
    """What has to be installed."""

    @property
    def missing(self) -> list[str]:
        """The packages that are not."""
        return [name for name in self.packages if not importlib.util.find_spec(name)]


def _peer(module: str, *arguments: str, needs: tuple[str, ...] = ()) -> Server:
    """Return a server written as the framework's users write one."""
    return Server(Command(["-m", f"tests.benchmarks.frameworks.{module}", *arguments]), needs)


def _adapter(module: str, *arguments: str, needs: tuple[str, ...] = ()) -> Server:
    """Return an adapter of `greeter_core`."""
    return Server(Command(["-m", f"tests.frameworks.{module}", *arguments]), needs)


FLOOR: Final = Server(Command(["-m", "tests.benchmarks.servers"]))
"""The base of all ratios."""

PEERS: Final[Mapping[str, Server]] = {
    "threads": _peer("threads"),
    "socketserver": _peer("socket_server"),
    "asyncio protocol": _peer("asyncio_protocol"),
    "asyncio streams": _peer("asyncio_streams"),
    "uvloop protocol": _peer("asyncio_protocol", "uvloop", needs=("uvloop",)),
    "uvloop streams": _peer("asyncio_streams", "uvloop", needs=("uvloop",)),
    "Twisted": _peer("twisted_protocol", needs=("twisted",)),
    "gevent": _peer("gevent_streams", needs=("gevent",)),
    "Trio": _peer("plain_trio"),
    "anyio": _peer("anyio_streams", needs=("anyio",)),
    "anyio on Trio": _peer("anyio_streams", "trio", needs=("anyio",)),
}
"""Naive servers, of the frameworks that people would pick instead."""

ON_CORE: Final[Mapping[str, Server]] = {
    "threads": _adapter("threads"),
    "socketserver": _adapter("socket_server"),
    "asyncio protocol": _adapter("asyncio_protocol"),
    "asyncio streams": _adapter("asyncio_streams"),
    "uvloop protocol": _adapter("asyncio_protocol", "--loop", "uvloop", needs=("uvloop",)),
    "Twisted": _adapter("twisted_protocol", needs=("twisted",)),
    "gevent": _adapter("gevent_sockets", needs=("gevent",)),
    "anyio": _adapter("anyio_sockets", needs=("anyio",)),
    "anyio on Trio": _adapter("anyio_sockets", "--backend", "trio", needs=("anyio",)),
    "selectors": _adapter("selectors_loop"),
}
"""The same frameworks, with the protocol of `greeter_core`."""

GREETER: Final = "greeter"
SERVERS: Final[Mapping[str, Server]] = {
    GREETER: Server(Command(_GREETER)),
    **PEERS,
    **{f"{name} + core": server for name, server in ON_CORE.items()},
    "greeter --record": Server(Command([*_GREETER, "--record", str(RECORDING)])),
}


class WrongCheckoutError(Exception):
    """A directory from which Python does not import Greeter."""


def checkout(directory: Path) -> Server:
    """Return the Greeter in another directory.

    Another copy may be installed, in editable mode or not. So this makes sure that Python, started
    in the same way, imports both packages from that directory.
    """
    directory = directory.resolve()
    if not directory.is_dir():
        raise WrongCheckoutError(f"not a directory: {directory}")
    command, program = Command(_GREETER, directory), "import greeter_core as c, greeter_trio as t"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; print(c.__file__, t.__file__, sep='\\n')"],
        cwd=directory,
        env=command.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    files = [Path(line) for line in done.stdout.splitlines()]
    if done.returncode or not all(file.is_relative_to(directory) for file in files):
        raise WrongCheckoutError(
            f"Python does not import Greeter from {directory}: {done.stdout or done.stderr}"
        )
    return Server(command)
