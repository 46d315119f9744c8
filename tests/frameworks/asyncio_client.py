"""A client with the streams of asyncio: it has names greeted, and says exit.

`python -m tests.frameworks.asyncio_client --port 6000 Ada Grace` prints each name when it is
greeted.
"""

import argparse
import asyncio
import os
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final

from greeter_core import (
    ClientConfig,
    ClientConnection,
    ClientEvent,
    ConversationEnded,
    EndReason,
    Greeted,
)

from .common import READ_SIZE

DEFAULTS: Final = ClientConfig()
AT_A_TIME: Final = 1000  # names that are asked and not greeted yet; asyncio keeps what is unsent
LONGEST_WAIT: Final = 86400.0  # seconds


async def ask(
    reader: StreamReader,
    writer: StreamWriter,
    names: Iterable[bytes],
    config: ClientConfig = DEFAULTS,
) -> AsyncIterator[bytes]:
    """Yield each name when it is greeted; raise OSError if that does not come to its end."""
    loop, names = asyncio.get_running_loop(), iter(names)
    client = ClientConnection(config, now=loop.time())
    batch, room, exit_asked = list[bytes](), AT_A_TIME, False
    while True:
        if client.state.is_open and (data := client.data_to_send()):
            writer.write(data)  # without waiting: a client reads on while a send is blocked
        if client.eof_to_send():
            with suppress(OSError):  # if the connection is broken, the next read says so
                writer.write_eof()
        for name in greeted(client.events()):
            room += 1
            yield name
        if client.finished:
            return
        batch = batch or list(islice(names, room))
        asking = client.state.is_open and bool(batch or (room == AT_A_TIME and not exit_asked))
        # What can be read comes before all other inputs (T3).
        wait = 0.0 if asking else min(client.deadline - loop.time(), LONGEST_WAIT)
        arrived = await receive(reader, wait)
        now = loop.time()
        if arrived:
            client.receive_data(arrived, now)
        elif arrived is not None:
            client.receive_eof(now)
        elif not asking or client.deadline <= now:
            client.handle_timeout(now)  # early, it does nothing; late, it may be the end
        elif batch:
            client.send_names(batch, now)
            room -= len(batch)
            batch = []
        else:
            client.send_exit(now)
            exit_asked = True


def greeted(events: Iterable[ClientEvent]) -> Iterator[bytes]:
    """Yield the names that were greeted; raise ConnectionError if that was not all."""
    for event in events:
        match event:
            case Greeted(name):
                yield name
            case ConversationEnded(reason) if reason is not EndReason.EXIT:
                raise ConnectionError(f"not all names were greeted: {reason.value}")


async def receive(reader: StreamReader, seconds: float) -> bytes | None:
    """Return what one read returns, or None for nothing in time (see `asyncio_streams`)."""
    for wait in (seconds, 0, 0):
        scope = asyncio.timeout(wait)
        try:
            async with scope:
                return await reader.read(READ_SIZE)
        except TimeoutError:
            if not scope.expired():  # it comes from the network
                raise
    return None


async def main(host: str, port: int, names: list[str]) -> None:
    """Print each name when it is greeted."""
    reader, writer = await asyncio.open_connection(host, port, limit=READ_SIZE)
    try:
        async for name in ask(reader, writer, map(os.fsencode, names)):
            sys.stdout.write(f"{os.fsdecode(name)}\n")
    finally:
        writer.transport.abort()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("names", nargs="*")
    try:
        asyncio.run(main(**vars(parser.parse_args())))
    except OSError as exc:
        sys.exit(f"{exc}")
