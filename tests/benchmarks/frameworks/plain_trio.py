"""A handler under `trio.serve_tcp`."""

import contextlib
from functools import partial

import trio

from tests.benchmarks.servers import BACKLOG, CHUNK_SIZE, HOST, IDLE_TIMEOUT, OPENING, answer


async def converse(stream: trio.SocketStream) -> None:
    """`serve_tcp` closes the stream."""
    reply, tail, over = OPENING, b"", False
    with contextlib.suppress(trio.BrokenResourceError):
        while True:
            data = b""
            with trio.move_on_after(IDLE_TIMEOUT):
                await stream.send_all(reply)  # SocketStream has TCP_NODELAY set
                if over:
                    await stream.send_eof()
                data = await stream.receive_some(CHUNK_SIZE)
            if not data:
                return
            reply, tail, over = (b"", b"", True) if over else answer(tail + data)


if __name__ == "__main__":
    trio.run(partial(trio.serve_tcp, converse, 0, host=HOST, backlog=BACKLOG))
