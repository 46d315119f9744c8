"""What both kinds of anyio servers share: the end in good order."""

import signal
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol

import anyio


class Conversation(Protocol):
    """One conversation with a client."""

    def shut_down(self) -> None:
        """End the conversation in good order."""


async def run(live: Collection[Conversation], accept: Callable[[Any], Awaitable[None]]) -> None:
    """Serve until a signal comes, and all conversations are over.

    `accept` gets the task group for the conversations.
    """
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as conversations:
            async with anyio.create_task_group() as accepting:
                accepting.start_soon(accept, conversations)
                await anext(signals)
                accepting.cancel_scope.cancel()
            # The end of that block takes longer than the tasks last started take to begin.
            for each in live:
                each.shut_down()
