"""Signals, in a Trio program."""

import signal
from collections.abc import Callable, Sequence

import trio


async def at_first_signal(
    numbers: Sequence[signal.Signals],
    act: Callable[[int], None],
    afterwards: signal.Handlers,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Act at the first of these signals. What a second one does is up to `afterwards`: end the process, or nothing."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup wants it
        numbers = [number for number in numbers if number != signal.SIGHUP]
    for each in numbers:
        signal.signal(each, afterwards)  # the receiver puts this back
    with trio.open_signal_receiver(*numbers) as signals:
        task_status.started()
        number = await anext(signals)
    act(number)
