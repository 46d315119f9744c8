"""Asyncio streams; with an argument, on the event loop of uvloop."""

import asyncio
import contextlib
import importlib
import sys

from tests.benchmarks.servers import BACKLOG, CHUNK_SIZE, HOST, IDLE_TIMEOUT, OPENING, answer


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    reply, tail, over = OPENING, b"", False
    with contextlib.suppress(OSError, TimeoutError), contextlib.closing(writer):
        while True:
            writer.write(reply)  # the transport has TCP_NODELAY set
            if over:
                writer.write_eof()
            async with asyncio.timeout(IDLE_TIMEOUT):
                await writer.drain()
                data = await reader.read(CHUNK_SIZE)
            if not data:
                break
            reply, tail, over = (b"", b"", True) if over else answer(tail + data)


async def serve() -> None:
    server = await asyncio.start_server(converse, HOST, 0, backlog=BACKLOG)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    new_loop = importlib.import_module("uvloop").new_event_loop if sys.argv[1:] else None
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve())
