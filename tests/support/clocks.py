"""Patience with tests, and cancelling what they run."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import trio
import trio.testing

PATIENCE = 20
"""Real seconds after which a test is given up; it takes milliseconds, but machines may be busy."""

SETTLED = 0.05
"""Real seconds without any I/O after which sockets are quiet, and virtual time may go on."""


@contextlib.contextmanager
def cancelled_at_step(steps: int) -> Iterator[trio.CancelScope]:
    """Cancel the block after a step (up to a checkpoint) of the current task and its children."""
    main, scope = trio.lowlevel.current_task(), trio.CancelScope()

    class Count(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal steps
            nursery = task.parent_nursery
            if task is main or (nursery and nursery.parent_task is main):
                steps -= 1
                if not steps:
                    scope.cancel()

    trio.lowlevel.add_instrument(count := Count())
    try:
        with scope:
            yield scope
    finally:
        trio.lowlevel.remove_instrument(count)


async def cancel_when_blocked(run: Callable[..., Awaitable[object]], *args: Any) -> None:
    """Run something until no task can go on, and cancel it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, *args)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
