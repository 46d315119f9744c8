"""The command line: `serve`, `client`, `replay` and `demo`."""

import gc
import sys
from collections.abc import Sequence

TYPE_CHECKING = False  # type checkers take it for true
if TYPE_CHECKING:
    from .options import Options


def _parsed(argv: Sequence[str] | None) -> "Options":
    from .options import parse  # noqa: PLC0415 - likewise

    try:
        return parse(argv)
    except SystemExit:
        if sys.stdout is not None:
            sys.stdout.flush()  # so that it is known whether the help could be written
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    # `early` comes before these imports, and a command needs its own.
    from .output import end_without_reader, prepared_output, print_error  # noqa: PLC0415

    with prepared_output():
        try:
            command = _parsed(argv).command()
        except BrokenPipeError:
            end_without_reader()
        except OSError as exc:  # of --help or --version
            print_error(f"cannot write to standard output: {exc.strerror}")
            return 1
        # What is imported by now stays, and need not be looked at for garbage again.
        gc.freeze()
        gc.enable()
        return command()
