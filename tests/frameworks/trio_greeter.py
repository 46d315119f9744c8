"""Greeter's own server for Trio."""

import math
import signal
from argparse import Namespace
from typing import Any

import trio

from greeter_trio import Limits, serve_greeter

from .common import announce, parser


async def serve(options: Namespace) -> None:
    """Serve until a signal comes, and all conversations are over."""
    shutdown = trio.Event()
    how: dict[str, Any] = {
        "config": options.config,
        "limits": Limits(send_timeout=options.send_timeout, grace=math.inf),
        "shutdown": shutdown,
    }
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                lambda **status: serve_greeter(options.host, options.port, **how, **status)
            )
            announce(*listeners[0].socket.getsockname())
            await anext(signals)
            shutdown.set()


if __name__ == "__main__":
    trio.run(serve, parser().parse_args())
