import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import HOST

FOLDER = Path(__file__).parent
PLUGINS = "/usr/lib/nagios/plugins"  # of Debian; they are not on PATH


def found(program: str) -> str | None:
    """Return the path of a program on PATH or among the plugins of Nagios, if it is installed."""
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), PLUGINS)))


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = ", ".join(program for program in programs if not found(program))
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {missing}")


def adapted(name: str, changes: dict[str, str]) -> str:
    """Return a configuration file with changes, each of a text that is in it once."""
    text = (FOLDER / name).read_text("utf-8")
    for old, new in changes.items():
        assert text.count(old) == 1, f"{old!r} should be once in {name}"
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """Listen and say nothing, as a server does that is stuck; yield the port."""
    with socket.create_server((HOST, 0)) as listener:  # the kernel completes connections
        yield listener.getsockname()[1]
