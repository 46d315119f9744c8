"""The core serves under asyncio what it serves under Trio."""

import asyncio
from collections.abc import Awaitable, Callable

from greeter_core import ServerConfig
from tests.frameworks.asyncio_adapter import GreeterProtocol

PROMPT = b"What's your name?"


def with_server(
    client: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    config: ServerConfig,
    protocol: type[GreeterProtocol] = GreeterProtocol,
) -> None:
    """Run a client against a server of its own, 20 seconds at the most."""
    mishaps: list[dict[str, object]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: mishaps.append(context))
        server = await loop.create_server(lambda: protocol(config), "127.0.0.1", 0)
        async with server, asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await client(reader, writer)
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())
    assert mishaps == []


def test_lines() -> None:
    """Pipelined lines are answered at once, and exit ends the conversation with a half-close."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"Ada\nGrace\nexit\n")
        said = await reader.read()
        assert said == b"Welcome!\n" + PROMPT + b"Hello Ada!\n" + PROMPT + b"Hello Grace!\n" + PROMPT + b"Goodbye!\n"

    with_server(client, ServerConfig())


def test_original_client() -> None:
    """A client that knows no lines and takes every read for one word finds one word in each."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read(1024) == b"Welcome!\n"
        assert await reader.read(1024) == PROMPT
        for name in (b"Ada", b"Grace"):
            writer.write(name)
            assert await reader.read(1024) == b"Hello " + name + b"!\n"
            assert await reader.read(1024) == PROMPT
        writer.write(b"exit")
        assert await reader.read(1024) == b"Goodbye!\n"

    with_server(client, ServerConfig(pace=0.1))


def test_half_close() -> None:
    """After the end of its stream a client still gets its last answer, and then the end of the server's."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"Ada\nBob")
        writer.write_eof()
        assert (await reader.read()).endswith(b"Hello Bob!\n")

    with_server(client, ServerConfig())


def test_idle() -> None:
    """The core's idle timer ends the conversation of a client that says nothing."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:  # noqa: ARG001 - it is silent
        assert (await reader.read()).endswith(b"Sorry, no name came in time.\n")

    with_server(client, ServerConfig(idle_timeout=0.1, linger=0.1))


def test_peer_that_does_not_read() -> None:
    """While a client does not read, the server takes no more names from it; when it reads, all are answered."""
    names = [b"%d" % number for number in range(600_000)]
    unsent: list[int] = []

    class Watched(GreeterProtocol):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            unsent.append(self._transport.get_write_buffer_size())

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\n".join(names) + b"\nexit\n")
        for _ in range(1000):  # more than enough turns of the loop for the server to read everything, if it would
            await asyncio.sleep(0)
        assert max(unsent) < 17 * 2**18 + 2**17, "one arrival of at most 256 KiB, above the transport's own 64 KiB"
        said = await reader.read()
        assert said == b"Welcome!\n" + b"".join(PROMPT + b"Hello " + name + b"!\n" for name in names) + (
            PROMPT + b"Goodbye!\n"
        )

    with_server(client, ServerConfig(linger=20), Watched)
