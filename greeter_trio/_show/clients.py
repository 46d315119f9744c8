"""The clients of the demonstration. They have no core: each is a program of a few lines."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias

import trio

from greeter_trio._net.observed_transport import ObservedTransport
from greeter_trio._net.stream_transport import transport_over

from .beside import Beside

_PROMPT = b"What's your name?"
_THINKING = 0.15  # seconds, before a client says something


class Client:
    """A connection to the server, of which each call is observed."""

    def __init__(self, transport: ObservedTransport, port: int) -> None:
        self.port = port
        """Its own."""
        self._transport = transport

    async def receive(self) -> bytes:
        """Return what one call brings; nothing is the end of the stream."""
        return bytes(await self._transport.receive())

    async def hear_prompt(self) -> None:
        """Read until the server asks for a name."""
        heard = b""
        while not heard.endswith(_PROMPT):
            heard += await self._transport.receive()

    async def hear_the_rest(self) -> None:
        """Read until the server has ended its stream."""
        while await self._transport.receive():
            pass

    async def say(self, words: bytes) -> None:
        """Think, and then send this."""
        await trio.sleep(_THINKING)
        await self._transport.send_some(words)


@contextlib.asynccontextmanager
async def connected(server: tuple[str, int], beside: Beside) -> AsyncIterator[Client]:
    """Yield a client that has connected to the server, and close the connection."""
    with trio.socket.socket() as sock:
        await sock.bind((server[0], 0))  # so that its port is known before its first segment
        port: int = sock.getsockname()[1]
        observe = partial(beside.observe, port, end="client")
        observe("connect", trio.current_time())
        await sock.connect(server)
        stream = trio.SocketStream(sock)
        with contextlib.closing(
            ObservedTransport(transport_over(stream), observe, sock)
        ) as transport:
            yield Client(transport, port)


Script: TypeAlias = Callable[[Client, Sequence[bytes]], Awaitable[None]]


async def converse_in_lines(client: Client, names: Sequence[bytes]) -> None:
    """Say each name as a line, when asked; like a person with `nc`."""
    for name in [*names, b"exit"]:
        await client.hear_prompt()
        await client.say(name + b"\n")
    await client.hear_the_rest()


async def converse_as_the_original(client: Client, names: Sequence[bytes]) -> None:
    """Take what each call brings for one message, as the tutorial's script does."""
    await client.receive()  # the welcome
    for name in [*names, b"exit"]:
        await client.receive()  # the question
        await client.say(name)
        await client.receive()  # the answer


async def converse_at_once(client: Client, names: Sequence[bytes]) -> None:
    """Say everything together, when asked for the first name."""
    await client.hear_prompt()
    await client.say(b"\n".join([*names, b"exit", b""]))
    await client.hear_the_rest()
