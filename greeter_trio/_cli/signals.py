"""Signals, in a Trio program."""

import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import FrameType

import trio

from . import output

Act = Callable[[int], object]
"""What is done with a signal that has this number."""


def available(*names: str) -> list[signal.Signals]:
    """Return the signals with these names that this platform has."""
    return [signal.Signals[name] for name in names if hasattr(signal, name)]


@contextlib.contextmanager
def handled(
    numbers: Sequence[signal.Signals], act: Act, second: Act | None = None
) -> Iterator[None]:
    """Within the block, have `act` called in the event loop with each of these signals that comes.

    With `second`, it is called with the first one only; from then on `second` is called, at once,
    even where the event loop hangs. SIGHUP is left alone if the parent has had it ignored, as
    `nohup` does. A blocked write to standard output or error is given up, because the event loop
    waits for it.
    """
    token = trio.lowlevel.current_trio_token()
    has_come = False

    def take(number: int, _: FrameType | None) -> None:
        nonlocal has_come
        if second and has_come:
            second(number)
        has_come = True
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(act, number)
        output.give_up_writing()

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


async def until_signal(
    numbers: Sequence[signal.Signals], work: Callable[[], Awaitable[int]]
) -> int:
    """Do this work, and return its status; at a signal N, cancel it and return 128 + N."""
    status = 0

    def interrupt(number: int) -> None:
        nonlocal status
        status = status or 128 + number
        scope.cancel()

    with trio.CancelScope() as scope, handled(numbers, interrupt):
        return await work()
    return status
