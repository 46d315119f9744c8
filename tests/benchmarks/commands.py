"""How the servers are started."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from .process import Command
from .wire import HOST

_GREETER = ["-m", "greeter_trio", "serve", "--host", HOST, "--port", "0", "--log-level", "warning"]
_FRAMEWORKS = "tests.benchmarks.frameworks"

SERVERS: Final[Mapping[str, Command]] = {
    "epoll": Command(["-m", "tests.benchmarks.servers"]),
    "greeter": Command(_GREETER),
    "asyncio": Command(["-m", f"{_FRAMEWORKS}.asyncio_protocol"]),
    "streams": Command(["-m", f"{_FRAMEWORKS}.asyncio_streams"]),
    "trio": Command(["-m", f"{_FRAMEWORKS}.plain_trio"]),
    "uvloop": Command(["-m", f"{_FRAMEWORKS}.uvloop_protocol"]),
    "twisted": Command(["-m", f"{_FRAMEWORKS}.twisted_protocol"]),
    "gevent": Command(["-m", f"{_FRAMEWORKS}.gevent_streams"]),
}
"""All servers. The first is the base of the ratios."""

OPTIONAL: Final = ("uvloop", "twisted", "gevent")
"""The servers that need a package of the same name, which may not be installed."""

_PRINT_ORIGINS = """\
import greeter_core, greeter_trio
print(greeter_core.__file__, greeter_trio.__file__, sep="\\n")
"""


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
        msg = f"not a directory: {directory}"
        raise WrongCheckoutError(msg)
    command = Command(_GREETER, directory)
    done = subprocess.run(
        [sys.executable, "-c", _PRINT_ORIGINS],
        cwd=directory,
        env=command.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    files = [Path(line) for line in done.stdout.splitlines()]
    if done.returncode or not all(file.is_relative_to(directory) for file in files):
        msg = f"Python does not import Greeter from {directory}: {done.stdout or done.stderr}"
        raise WrongCheckoutError(msg)
    return command
