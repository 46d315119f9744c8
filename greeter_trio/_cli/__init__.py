"""The command line: `greeter serve` and `greeter client`."""

from collections.abc import Sequence

from .client import run_client
from .options import ServeOptions, parse
from .output import flush_output, prepare_output
from .serve import run_server


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    prepare_output()
    try:
        options = parse(argv)
        if isinstance(options, ServeOptions):
            return run_server(options)
        return run_client(options)
    finally:
        flush_output()
