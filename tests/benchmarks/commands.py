"""How the servers are started."""

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from tests.support.accounting import Command
from tests.support.crowds import HOST

_GREETER = ["-m", "greeter_trio", "serve", "--host", HOST, "--port", "0", "--log-level", "warning"]


RECORDING: Final = Path(tempfile.gettempdir()) / "greeter-benchmark.jsonl"
"""What the server records that is measured with `--record`."""


def _framework(module: str, *arguments: str) -> Command:
    return Command(["-m", f"tests.benchmarks.frameworks.{module}", *arguments])


SERVERS: Final[Mapping[str, Command]] = {
    "epoll": Command(["-m", "tests.benchmarks.servers"]),
    "greeter": Command(_GREETER),
    "recorded": Command([*_GREETER, "--record", str(RECORDING)]),
    "asyncio": _framework("asyncio_protocol"),
    "streams": _framework("asyncio_streams"),
    "trio": _framework("plain_trio"),
    "uvloop": _framework("asyncio_protocol", "uvloop"),
    "twisted": _framework("twisted_protocol"),
    "gevent": _framework("gevent_streams"),
}
"""All servers. The first is the base of the ratios."""

OPTIONAL: Final = ("uvloop", "twisted", "gevent")  # they need packages of the same names


class WrongCheckoutError(Exception):
    """A directory from which Python does not import Greeter."""


def not_installed(names: Iterable[str]) -> list[str]:
    """Return those of the servers whose packages cannot be imported."""
    return [name for name in names if name in OPTIONAL and not importlib.util.find_spec(name)]


def checkout(directory: Path) -> Command:
    """Return the command for the Greeter in another directory.

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
    return command
