"""A demonstration for learners: a server and its clients over loopback TCP, in three scenes.

Everything happens in one nursery: two servers, the clients, and a task that reads the segments. A
client that fails ends the demonstration; when the last scene is over, the rest is cancelled.
"""

import time
from collections.abc import Callable, Collection, Sequence
from itertools import cycle
from typing import Protocol

import trio

from greeter_core import Framing, Recording, ServerConfig, TranscriptItem
from greeter_trio._net.endpoints import Tcp
from greeter_trio._net.listeners import Listener, ListenError, open_listeners
from greeter_trio._net.proc_net import tcp_state
from greeter_trio._server import serve
from greeter_trio._service.sessions import Sessions
from greeter_trio._service.settings import Settings

from .beside import Beside
from .clients import (
    Script,
    connected,
    converse_as_the_original,
    converse_at_once,
    converse_in_lines,
)
from .segments import Capture, Segment

_HOST, _PORT = "127.0.0.1", 6000
_HANGING = 1.0  # seconds to wait for a client that waits in vain
_TICK = 0.05  # seconds between two looks at what can be drawn
_SETTLING = 0.1  # seconds after which all segments of what has happened are captured
_NAMES = ["Alice", "Bob", "小明", "Grace", "Zoë", "Edsger", "Barbara"]


class Say(Protocol):
    """Called before a scene, with a line to show, and whether TCP is to be shown in it."""

    def __call__(self, line: str, *, shows_tcp: bool = True) -> object: ...


class Demo:
    """The scenes, with all that they need.

    `take` gets the items of a transcript, and `say` the sentences between the scenes. Without a
    `capture`, segments are made up by the rules of TCP.
    """

    def __init__(
        self,
        take: Callable[[TranscriptItem], object],
        say: Say,
        capture: Capture | None,
        clients: int,
    ) -> None:
        self._say = say
        self._capture = capture
        self._clients = clients
        self._began = trio.current_time()
        self._beside = Beside(take, began=self._began, explains=capture is None)
        self._recording = Recording(self._beside.take, now=self._began)
        self.segments: list[Segment] = []
        """Those that were captured."""

    def now(self) -> float:
        """Return how long the recording has lasted, in seconds."""
        return trio.current_time() - self._began

    async def run(self) -> None:
        """Play all scenes. Raises `ListenError` if there is no port to listen on."""
        listening = [await _listen(), await _listen()]
        async with trio.open_nursery() as nursery:
            greeter = self._serve(nursery, listening[0], ServerConfig())
            hasty = self._serve(nursery, listening[1], ServerConfig(framing=Framing.LINES))
            nursery.start_soon(_tick)
            if self._capture:
                nursery.start_soon(self._read_segments, self._capture, (greeter, hasty))
            await self._one_client(greeter)
            await self._many_clients(greeter)
            await self._original_client(hasty, greeter)
            nursery.cancel_scope.cancel()

    # The scenes

    async def _one_client(self, server: tuple[str, int]) -> None:
        self._say("1. One client. Watch TCP: three segments to connect, and who closes first.")
        await self._converse(server, converse_in_lines, ["Alice", "Bob", ""])

    async def _many_clients(self, server: tuple[str, int]) -> None:
        count = "Three" if self._clients == 3 else str(self._clients)
        self._say(
            f"2. {count} at once. Watch one server answer each in the way that it speaks.",
            shows_tcp=False,
        )
        scripts = cycle([converse_in_lines, converse_as_the_original, converse_at_once])
        async with trio.open_nursery() as nursery:
            for name, script, _ in zip(cycle(_NAMES), scripts, range(self._clients), strict=False):
                nursery.start_soon(self._converse, server, script, [name])
                await trio.sleep(0.01)

    async def _original_client(self, hasty: tuple[str, int], greeter: tuple[str, int]) -> None:
        self._say("3. The original client, and a server that sends two words in one segment.")
        async with connected(hasty, self._beside) as client:
            with trio.move_on_after(_HANGING):
                await converse_as_the_original(client, [b"Alice"])
            why = "It waits for a question that it already has, and would wait forever."
            self._beside.observe(client.port, "note", trio.current_time(), text=why)
        await self._settle(hasty, client.port)
        self._say("   The same client and Greeter: now each word comes in a segment of its own.")
        await self._converse(greeter, converse_as_the_original, ["Alice"])

    # What they are made of

    def _serve(
        self, nursery: trio.Nursery, listeners: list[Listener], config: ServerConfig
    ) -> tuple[str, int]:
        """Start a server; return its address."""
        settings = Settings(config=config, recording=self._recording)
        nursery.start_soon(serve, listeners, Sessions(settings), trio.Event())
        host, port = listeners[0].socket.getsockname()
        return host, port

    async def _converse(
        self, server: tuple[str, int], script: Script, names: Sequence[str]
    ) -> None:
        async with connected(server, self._beside) as client:
            await script(client, [name.encode() for name in names])
        await self._settle(server, client.port)

    async def _settle(self, server: tuple[str, int], port: int) -> None:
        """Wait until all segments of a conversation are there, and look who is in TIME_WAIT."""
        await trio.sleep(_SETTLING)
        client = (_HOST, port)
        for end, local, remote in (("client", client, server), ("server", server, client)):
            state = tcp_state(local, remote)
            if state:  # nobody else is told of TIME_WAIT: the program has closed its socket
                self._beside.observe(port, "tcp", trio.current_time(), end=end, state=state)

    async def _read_segments(self, capture: Capture, servers: Collection[tuple[str, int]]) -> None:
        offset = _offset_from_time_of_day()  # with which the kernel stamps segments
        while True:
            await trio.lowlevel.wait_readable(capture.fileno())
            for segment in capture.read():
                comes_from_server = segment.source in servers
                if not comes_from_server and segment.destination not in servers:
                    continue  # it belongs to other programs
                self.segments.append(segment)
                _, port = segment.destination if comes_from_server else segment.source
                self._beside.observe(
                    port,
                    "segment",
                    segment.time_ns / 1e9 + offset,
                    **{"from": "server" if comes_from_server else "client"},
                    flags=list(segment.flags),
                    seq=segment.seq,
                    **({"ack": segment.ack} if "ACK" in segment.flags else {}),
                    length=len(segment.payload),
                    window=segment.window,
                )


def _offset_from_time_of_day() -> float:
    """Return what is to be added to the time of day to get Trio's time."""

    def sample() -> tuple[float, float]:
        before, now, after = trio.current_time(), time.time(), trio.current_time()
        return after - before, (before + after) / 2 - now

    _, offset = min(sample() for _ in range(10))  # the one that was interrupted least
    return offset


async def _tick() -> None:
    """Wake the event loop now and then, so that what is held back is drawn."""
    while True:  # noqa: ASYNC110 - there is nothing to wait for but time
        await trio.sleep(_TICK)


async def _listen() -> list[Listener]:
    """Listen on the usual port, or on a free one where that is taken."""
    try:
        return await open_listeners([Tcp(_HOST, _PORT)])
    except ListenError:
        return await open_listeners([Tcp(_HOST, 0)])
