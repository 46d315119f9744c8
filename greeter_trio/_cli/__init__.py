"""The command line: `python -m greeter_trio serve` and `client`."""

import sys
from collections.abc import Sequence

from greeter_trio._net.text import settle_output

from . import options
from .client import call
from .serve import serve

_COMMANDS = {"serve": serve, "client": call}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it is None where the descriptor is closed
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        arguments = options.parse(argv)
        return int(_COMMANDS[arguments.command](arguments))
    finally:
        settle_output()
