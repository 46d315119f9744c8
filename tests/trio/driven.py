r"""Plays in virtual time for connections that are driven over a stream.

`LINES | 0 S ASKED | 5 shutdown | 5 S GOODBYE | 5 S EOF | 6 C EOF | 6 is SHUTDOWN`

A play begins with what is driven: a server (`LINES`, `AUTO`) with its options, or a client
(`CLIENT`, `CLIENT:AUTO`) with the names that it is asked for. Each step has a time:

- `S` and `C`: what the server and the client say. What the driven side says is checked at the end,
  chunk by chunk. What its peer says is sent word by word.
- `late` before what the peer says: the event loop stops then, until that time.
- `ask`, `shutdown`, `drain`: inputs from another task.
- `stop`, `run`: cancel the run, and run again. With a `run` the first one is a step, too.
- `is`: the time and the reason of the end, and the names that were not answered.
- `kernel`: at which times it was asked what is in flight. (Its own time means nothing.)

A `slow` peer reads only where the driven side says something, and the stream holds nothing back.
With `looks` words are in flight until the kernel was asked so many times. A `deaf` driver receives
only what it looks for.
"""

from typing import Any, TypeAlias

import pytest
import trio
from trio.testing import (
    MemorySendStream,
    MockClock,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from greeter_core import (
    ClientConfig,
    ClientConnection,
    ClientEvent,
    ConversationEnded,
    EndReason,
    Framing,
    ServerConfig,
    ServerConnection,
    ServerEvent,
)
from greeter_trio._drive import Driver
from greeter_trio._net.stream_transport import StreamTransport, transport_over
from greeter_trio._net.transport import SIZE
from tests.support.connections import LINES
from tests.support.peers import EOF, Peer
from tests.support.transports import Pair
from tests.support.words import ADA, BOB, GOODBYE, PROMPT, TOO_SLOW, WELCOME

ASKED = WELCOME + PROMPT

_WORDS = {"WELCOME": WELCOME, "PROMPT": PROMPT, "ASKED": ASKED, "ADA": ADA, "BOB": BOB}
_WORDS |= {"GOODBYE": GOODBYE, "TOO_SLOW": TOO_SLOW, "EOF": EOF}
_FLAGS = {"slow", "lockstep", "deaf"}


class Server(ServerConnection):
    """A server whose events are kept when they are taken."""

    def __init__(self, config: ServerConfig = LINES, *, now: float) -> None:
        super().__init__(config, now=now)
        self.kept: list[ServerEvent] = []

    def events(self) -> list[ServerEvent]:
        events = super().events()
        self.kept += events
        return events


class Client(ClientConnection):
    """A client whose events are kept when they are taken."""

    def __init__(self, config: ClientConfig, *, now: float) -> None:
        super().__init__(config, now=now)
        self.kept: list[ClientEvent] = []

    def events(self) -> list[ClientEvent]:
        events = super().events()
        self.kept += events
        return events


Connection: TypeAlias = Server | Client


def ending(connection: Connection) -> ConversationEnded:
    """Return the last event that was taken, which says how the conversation ended."""
    last = connection.kept[-1]
    assert isinstance(last, ConversationEnded)
    return last


class Scripted(StreamTransport):
    """A transport whose words are in flight until it was asked so many times about them."""

    def __init__(self, stream: trio.abc.Stream, looks: float = 0) -> None:
        super().__init__(stream)
        self.looks = looks
        self.calls: list[tuple[str, float]] = []

    async def receive_arrived(self) -> bytes | bytearray | None:
        self.calls.append(("arrived", round(trio.current_time(), 6)))
        return await super().receive_arrived()

    def is_in_flight(self) -> bool:
        self.calls.append(("in flight", round(trio.current_time(), 6)))
        self.looks -= 1
        return self.looks >= 0


class Deaf(Scripted):
    """One that only deadlines wake: what has arrived is found by whatever looks for it."""

    is_looking = False

    async def receive(self, size: int = SIZE) -> bytes | bytearray:
        return await super().receive(size) if self.is_looking else await trio.sleep_forever()

    async def receive_arrived(self) -> bytes | bytearray | None:
        self.is_looking = True
        try:
            return await super().receive_arrived()
        finally:
            self.is_looking = False


def client(*names: bytes, framing: Framing = Framing.LINES, leave: bool = True) -> Client:
    """Return a client that was asked for these names, and then for exit."""
    connection = Client(ClientConfig(framing=framing), now=trio.current_time())
    connection.send_names(names, trio.current_time())
    if leave:
        connection.send_exit(trio.current_time())
    return connection


async def put(peer: Peer, data: bytes) -> None:
    """Say something, or end, and return before any other task can have heard it."""
    send_stream = getattr(peer.stream, "send_stream", None)
    if not data and isinstance(send_stream, MemorySendStream):
        send_stream.close()
    elif not data:
        await peer.end()
    elif not transport_over(peer.stream).send_now(data):
        await peer.say(data)


def plays(text: str) -> pytest.MarkDecorator:
    """Run a test with each of these plays, `title: play`; further lines of one are indented."""
    lines = [line for line in text.replace("\n    ", " ").split("\n") if line]
    titles, texts = zip(*(line.split(": ", 1) for line in lines), strict=True)
    return pytest.mark.parametrize("text", texts, ids=titles)


async def perform(
    text: str, clock: MockClock, pair: Pair | None = None, *, wakes: bool = False
) -> None:
    """Perform a play, over a transport of one's own or one that the play describes.

    With `wakes` the handler of events wakes the driver.
    """
    (what, *head), *steps = (part.split() for part in text.split("|"))
    options = {word.split("=")[0]: float(word.split("=")[1]) for word in head if "=" in word}
    flags = _FLAGS.intersection(head)
    names = [word for word in head if "=" not in word and word not in flags]
    looks = options.pop("looks", 0)
    ours, theirs = (lockstep_stream_pair if flags & {"slow", "lockstep"} else memory_stream_pair)()
    transport = (Deaf if "deaf" in flags else Scripted)(ours, looks)
    connection = _connection(what, names, options)
    if pair is None:
        pair = Pair(transport, Peer(theirs), ours.aclose)
    performance = _Performance(connection, pair, clock, is_slow="slow" in flags, wakes=wakes)
    await performance.run(steps)
    asked = [at for call, at in transport.calls if call == "in flight"]
    assert len(asked) < 50
    assert performance.kernel is None or performance.kernel == asked


def _connection(what: str, names: list[str], options: dict[str, Any]) -> Connection:
    framing = Framing.AUTO if what.endswith("AUTO") else Framing.LINES
    if what.startswith("CLIENT"):
        leave = "exit" in names
        words = [name.encode() for name in names if name != "exit"]
        return client(*words, framing=framing, leave=leave)
    return Server(ServerConfig(framing=framing, **options), now=0)


class _Performance:
    def __init__(
        self, connection: Connection, pair: Pair, clock: MockClock, *, is_slow: bool, wakes: bool
    ) -> None:
        self.connection = connection
        self.pair = pair
        self.driver: Driver = Driver(connection, pair.transport)
        if wakes:
            self.driver = Driver(connection, pair.transport, lambda _: self.driver.wake())
        self.clock = clock
        self.is_slow = is_slow
        self.driven = "C" if isinstance(connection, Client) else "S"
        self.expected: list[tuple[float, bytes]] = []
        self.told = 0
        self.end: tuple[float, ConversationEnded] | None = None
        self.over_at = -1.0
        self.kernel: list[float] | None = None

    async def run(self, steps: list[list[str]]) -> None:
        async with trio.open_nursery() as self.nursery:
            if "run" not in [verb for _, verb, *_ in steps]:
                self.nursery.start_soon(self._drive)
            if not self.is_slow:
                self.nursery.start_soon(self.pair.peer.hear_all)
            for at, *step in steps:
                await self._perform(float(at), *step)
        assert self.pair.peer.chunks == self.expected
        assert self.connection.events() == []  # all were taken, whether a handler wants them or not
        assert (self.over_at, ending(self.connection)) == self.end
        if not self.is_slow:
            assert self.driver.received == self.told
            assert self.driver.sent == len(self.pair.peer.heard)

    async def _drive(self) -> None:
        self.driver.wake()  # which does nothing, before and after
        with trio.CancelScope() as self.scope:
            await self.driver.run()
        if self.scope.cancelled_caught:
            return
        self.driver.wake()
        self.driver.shut_down()
        self.over_at = round(trio.current_time(), 6)
        await self.pair.close()

    async def _perform(self, at: float, verb: str, *words: str) -> None:
        if verb == "is":
            unanswered = tuple(word.encode() for word in words[1:])
            self.end = at, ConversationEnded(EndReason[words[0]], unanswered)
        elif verb == "kernel":
            self.kernel = [float(word) for word in words]
        elif verb == "late":
            await wait_all_tasks_blocked()
            if self.is_slow:  # it is said when the event loop goes on
                self.nursery.start_soon(self._say, *words[1:])
            else:
                await self._say(*words[1:])
            self.clock.jump(at - trio.current_time())
        elif verb == self.driven:
            self.expected.append((at, b"".join(map(_bytes, words))))
            await trio.sleep_until(at)
            await (self.pair.peer.hear() if self.is_slow else wait_all_tasks_blocked())
        else:
            await trio.sleep_until(at)
            if not (self.is_slow and verb in ("S", "C")):
                await wait_all_tasks_blocked()
            if verb in ("S", "C"):
                await self._say(*words)
            else:
                self._give(verb, *words)

    async def _say(self, *words: str) -> None:
        for word in words:
            self.told += len(_bytes(word))
            await put(self.pair.peer, _bytes(word))

    def _give(self, what: str, *words: str) -> None:
        now = self.driver.now()
        if what == "run":
            self.nursery.start_soon(self._drive)
        elif what == "stop":
            self.scope.cancel()
        elif what == "drain":
            self.driver.shut_down()
        elif isinstance(self.connection, Client):
            self.connection.send_names([word.encode() for word in words], now)
            self.driver.wake()
        else:
            self.connection.shutdown(now)
            self.driver.wake()


def _bytes(word: str) -> bytes:
    return _WORDS[word] if word in _WORDS else word.encode().decode("unicode_escape").encode()
