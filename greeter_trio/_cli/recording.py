"""What --record and --trace write to."""

import contextlib
import errno
import sys
from collections.abc import Callable, Iterator

from greeter_trio._show.files import OutputError
from greeter_trio._show.live import LiveTrace, Output, RecordFile

from .output import wants_colour
from .signals import patience

STDOUT, STDERR = 1, 2
_NAMES = {STDOUT: "standard output", STDERR: "standard error"}


@contextlib.contextmanager
def open_outputs(
    record: str | None, trace: int | None, on_failure: Callable[[str], object]
) -> Iterator[list[Output]]:
    """Yield an output for a file of this name, and one for a trace on this descriptor; close them.

    When one of them fails later, `on_failure` is called with a sentence that says why. Raises
    `OutputError` if one of them cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        outputs: list[Output] = []
        if trace is not None:
            outputs.append(open_trace(trace, on_failure))
        if record is not None:
            outputs.append(RecordFile(record, on_failure))
        for output in outputs:
            stack.push(lambda *_, output=output: output.close(patience()))
        yield outputs


def open_trace(descriptor: int, on_failure: Callable[[str], object]) -> LiveTrace:
    """Return a trace on standard output or standard error. Raises `OutputError`."""
    name = _NAMES[descriptor]
    if (sys.stdout if descriptor == STDOUT else sys.stderr) is None:
        raise OutputError(name, OSError(errno.EBADF, "it is closed"))
    return LiveTrace(descriptor, name, on_failure, colour=wants_colour(descriptor))
