"""Standard output and standard error, which may be closed, full, or left by their reader."""

import contextlib
import os
import signal
import sys


def prepare_output() -> None:
    """Have characters that the encoding lacks written as escapes, not raised."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it is None where the descriptor is closed
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def print_error(message: str) -> None:
    """Print a message to standard error, if there is one."""
    if sys.stderr is not None:  # `print` would take None for standard output
        with contextlib.suppress(OSError):
            print(f"greeter: {message}", file=sys.stderr, flush=True)


def end_without_reader() -> None:
    """Have the process end without a word when the reader of its output has gone."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def flush_output() -> None:
    """Write out what standard output and error still hold; drop what cannot be written.

    Otherwise Python tries once more at exit, complains, and exits with a status of its own.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
