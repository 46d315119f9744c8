"""Signals, in a Trio program."""

import contextlib
import math
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import attrs
import trio

from . import output
from .early import end_by_signal

_signal: Any = signal  # Windows has no alarms

_PATIENCE = 1.0  # seconds, after a signal

Act = Callable[[int], object]
"""What is done with a signal that has this number."""


@attrs.define
class _State:
    has_come: bool = False


_state = _State()


class _Alarm:
    """Ends the process by a signal that came, if it is not cleared in time (not on Windows)."""

    def set(self, number: int) -> None:
        if hasattr(_signal, "setitimer"):
            _signal.signal(_signal.SIGALRM, lambda *_: end_by_signal(number))
            _signal.setitimer(_signal.ITIMER_REAL, _PATIENCE)

    def clear(self) -> None:
        if hasattr(_signal, "setitimer"):
            _signal.setitimer(_signal.ITIMER_REAL, 0)


def patience() -> float:
    """Return for how long to wait at the end for a reader that does not read.

    For ever, as any tool waits for `less`; but not if a signal has come.
    """
    return _PATIENCE if _state.has_come else math.inf


def available(*names: str) -> list[signal.Signals]:
    """Return the signals with these names that this platform has."""
    return [signal.Signals[name] for name in names if hasattr(signal, name)]


@contextlib.contextmanager
def handled(
    numbers: Sequence[signal.Signals],
    act: Act,
    second: Act | None = None,
    *,
    ends: bool = False,
    is_urgent: bool = False,
) -> Iterator[None]:
    """Within the block, have `act` called in the event loop with each of these signals that comes.

    With `second`, it is called with the first one only; from then on `second` is called, at once,
    even where the event loop hangs. A signal that `is_urgent` ends the process if the event loop
    does not get to `act` within a second. SIGHUP is left alone if the parent has had it ignored, as
    `nohup` does. If these signals are the program's end (`ends`), a blocked write to standard
    output or error is given up, because the event loop waits for it.
    """
    token = trio.lowlevel.current_trio_token()
    alarm = _Alarm() if is_urgent else None
    has_come = False

    def take(number: int, _: FrameType | None) -> None:
        nonlocal has_come
        if second and has_come:
            second(number)
        has_come = True
        if alarm:
            alarm.set(number)
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(act_in_time, number)
        if ends:
            _state.has_come = True
            output.give_up_writing()

    def act_in_time(number: int) -> None:
        if alarm:
            alarm.clear()
        act(number)

    before = {
        number: handler
        for number in numbers
        if (handler := signal.getsignal(number)) is not signal.SIG_IGN or number.name != "SIGHUP"
    }
    for number in before:
        signal.signal(number, take)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if alarm:  # last: a signal that comes meanwhile would set it again
            alarm.clear()


async def until_signal(
    numbers: Sequence[signal.Signals], work: Callable[[], Awaitable[int]]
) -> int:
    """Do this work, and return its status; at a signal N, cancel it and return 128 + N.

    The signal ends the process if the event loop does not get to it, because something else is
    waited for, such as the other side of a FIFO that is to be opened.
    """
    status = 0

    def interrupt(number: int) -> None:
        nonlocal status
        status = status or 128 + number
        scope.cancel()

    with trio.CancelScope() as scope, handled(numbers, interrupt, ends=True, is_urgent=True):
        return await work()
    return status
