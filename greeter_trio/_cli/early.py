"""What comes first in a process: a way to end by signals, before much is imported."""

# Python has these already: `signal` and `typing` take ten milliseconds, in which Ctrl-C is still a
# traceback.
import _signal as signal  # type: ignore[import-not-found]
import gc
import os

TYPE_CHECKING = False  # type checkers take it for true
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn


def end_by_signal(number: int, _: "FrameType | None" = None) -> "NoReturn":
    """End this process as a signal with this number does; the exit status is 128 + it in a shell.

    The kernel spares process 1 (of a container), where a signal has no effect that has no handler.
    """
    if hasattr(signal, "SIGKILL"):  # elsewhere the status would say nothing of the signal
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(128 + number)


def prepare() -> None:
    """Have signals end the process from now on, and imports take no time for garbage.

    Otherwise Ctrl-C raises KeyboardInterrupt, wherever that may be. `main` enables the garbage
    collector, which takes a twentieth of the time that a probe does. A standard stream that is
    closed remains so for Python, but no other file gets its descriptor.
    """
    gc.disable()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest descriptor that is free
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if os.getpid() == 1:
        for number in signal.valid_signals() & {1, 2, 3, 15}:  # SIGHUP, SIGINT, SIGQUIT, SIGTERM
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, end_by_signal)
