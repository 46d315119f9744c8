"""Signals, in a Trio program."""

import signal
from collections.abc import Awaitable, Callable, Sequence

import trio


def available(*names: str) -> list[signal.Signals]:
    """Return the signals with these names that this platform has."""
    return [signal.Signals[name] for name in names if hasattr(signal, name)]


async def at_first_signal(
    numbers: Sequence[signal.Signals],
    act: Callable[[int], None],
    afterwards: signal.Handlers,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call `act` with the first of these signals that comes.

    `afterwards` is what a second one does: end the process (`SIG_DFL`) or nothing (`SIG_IGN`).
    """
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers = [number for number in numbers if number != signal.SIGHUP]  # as nohup wants it
    for each in numbers:
        signal.signal(each, afterwards)  # the receiver puts this back
    with trio.open_signal_receiver(*numbers) as signals:
        task_status.started()
        number = await anext(signals)
    act(number)


async def until_signal(
    numbers: Sequence[signal.Signals], work: Callable[[], Awaitable[int]]
) -> int:
    """Do this work, and return its status; at a signal N, cancel it and return 128 + N."""
    status = 0
    failure: Exception | None = None  # to be raised without a group

    def interrupt(number: int) -> None:
        nonlocal status
        status = 128 + number
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(at_first_signal, numbers, interrupt, signal.SIG_IGN)
        try:
            status = await work()
        except Exception as exc:  # noqa: BLE001 - it is raised below
            failure = exc
        nursery.cancel_scope.cancel()
    if failure:
        raise failure
    return status
