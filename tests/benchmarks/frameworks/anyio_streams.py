"""A handler under anyio; with an argument, on Trio instead of asyncio."""

import sys

import anyio
import anyio.abc

from tests.benchmarks.servers import BACKLOG, CHUNK_SIZE, HOST, IDLE_TIMEOUT, OPENING, answer


async def converse(stream: anyio.abc.SocketStream) -> None:
    reply, tail, over = OPENING, b"", False
    async with stream:
        while True:
            data = b""
            try:
                with anyio.move_on_after(IDLE_TIMEOUT):
                    if reply:
                        await stream.send(reply)  # it has TCP_NODELAY set
                    if over:
                        await stream.send_eof()
                    data = await stream.receive(CHUNK_SIZE)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return
            if not data:
                return
            reply, tail, over = (b"", b"", True) if over else answer(tail + data)


async def serve() -> None:
    listener = await anyio.create_tcp_listener(local_host=HOST, local_port=0, backlog=BACKLOG)
    await listener.serve(converse)


if __name__ == "__main__":
    anyio.run(serve, backend="trio" if sys.argv[1:] else "asyncio")
