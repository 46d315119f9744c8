"""Standard output and standard error, which may be closed, full, slow, or left by their reader."""

import contextlib
import errno
import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from typing import Any, NoReturn, TextIO

import attrs

from .early import end_by_signal

_select: Any = select  # Windows has no poll


@attrs.define
class _State:
    """What signal handlers look at."""

    is_writing: bool = False
    is_given_up: bool = False


_state = _State()


def wait_until(descriptor: int, *, writable: bool) -> None:
    """Wait until a descriptor that is non-blocking can be written, or read."""
    poll = _select.poll()
    poll.register(descriptor, _select.POLLOUT if writable else _select.POLLIN)
    poll.poll()


class _Patient(io.FileIO):
    """A descriptor that takes all that it is given, also one that is non-blocking.

    Other processes share that flag, so it is left as it is.
    """

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer
        rest = memoryview(data).cast("B")
        _state.is_writing = True
        try:
            while rest:
                if _state.is_given_up:  # an error that `io` does not take for an interruption
                    raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
                sent = super().write(rest)
                if sent is None:  # it would block
                    wait_until(self.fileno(), writable=True)
                else:
                    rest = rest[sent:]
        finally:
            _state.is_writing = False
        return len(data)


def give_up_writing() -> None:
    """For signals that end the program: where a write blocks, let it and all later ones fail."""
    if _state.is_writing:
        _state.is_given_up = True
        raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))


@contextlib.contextmanager
def prepared_output() -> Iterator[None]:
    """Within the block, have both streams write all they are given, and flush them at the end.

    Characters that the encoding lacks become escapes.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _prepared(sys.stdout), _prepared(sys.stderr)
    try:
        yield
    finally:
        _flush(sys.stdout, sys.stderr)
        sys.stdout, sys.stderr = before


def _prepared(stream: Any) -> Any:  # noqa: ANN401 - a text stream, or None
    if stream is None or not isinstance(stream, io.TextIOWrapper):
        return stream  # it is None where the descriptor is closed
    stream.reconfigure(errors="backslashreplace")
    if not hasattr(_select, "poll"):
        return stream  # Windows has no descriptors that do not block
    try:
        raw = _Patient(stream.fileno(), "w", closefd=False)
    except OSError:
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        # Python's own streams are written through, instead, with PYTHONUNBUFFERED.
        line_buffering=stream.line_buffering or stream.write_through,
    )


def print_error(message: str) -> None:
    """Print a message to standard error, if there is one."""
    if sys.stderr is not None:  # `print` would take None for standard output
        with contextlib.suppress(OSError):
            print(f"greeter: {message}", file=sys.stderr, flush=True)


def wants_colour(descriptor: int) -> bool:
    """Return whether text there may be coloured: a terminal, and `NO_COLOR` is not set."""
    with contextlib.suppress(OSError):
        if os.isatty(descriptor):
            return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return False


def reader_has_gone(descriptor: int) -> bool:
    """Return whether this is a pipe that nobody will read any more (POLLERR in poll(2))."""
    if not hasattr(_select, "poll"):
        return False
    poll = _select.poll()
    poll.register(descriptor, 0)
    return any(events & _select.POLLERR for _, events in poll.poll(0))


def end_without_reader() -> NoReturn:
    """End the process without a word, as SIGPIPE does: the reader of its output has gone."""
    if hasattr(signal, "SIGPIPE"):
        end_by_signal(signal.SIGPIPE)
    os._exit(1)


def _flush(*streams: TextIO | None) -> None:
    """Write out what these streams still hold; drop what cannot be written.

    Otherwise Python tries once more at exit, complains, and exits with a status of its own.
    """
    for stream in streams:
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            assert stream  # noqa: S101 - it was flushed
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
