"""What both kinds of asyncio servers share: the end in good order."""

import asyncio
from collections.abc import Collection
from typing import Protocol

from .common import on_stop

TURNS = 4  # of the loop, within which a client that was accepted is one of the live


class Conversation(Protocol):
    """One conversation with a client."""

    closed: asyncio.Future[None]

    def shut_down(self) -> None:
        """End the conversation in good order."""


async def run(server: asyncio.Server, live: Collection[Conversation]) -> None:
    """Serve until a signal comes, and all conversations are over."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    on_stop(lambda: loop.call_soon_threadsafe(stop.set))
    await stop.wait()
    server.close()
    for _ in range(TURNS):
        await asyncio.sleep(0)
    conversations = [*live]
    for each in conversations:
        each.shut_down()
    await asyncio.gather(*(each.closed for each in conversations))
