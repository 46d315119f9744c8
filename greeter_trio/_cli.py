"""The command line: `python -m greeter_trio serve` and `client`."""

import sys
from collections.abc import Sequence

from . import _arguments
from ._call import call
from ._serve import serve
from ._text import settle_output

_COMMANDS = {"serve": serve, "client": call}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it is None where the descriptor is closed
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        arguments = _arguments.parse(argv)
        return int(_COMMANDS[arguments.command](arguments))
    finally:
        settle_output()
