"""The command line: `serve`, `client`, `replay` and `demo`."""

import gc
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    from .options import parse  # noqa: PLC0415 - `early` comes before, and a command needs its own
    from .output import prepared_output  # noqa: PLC0415

    with prepared_output():
        command = parse(argv).command()
        # What is imported by now stays, and need not be looked at for garbage again.
        gc.freeze()
        gc.enable()
        return command()
