"""The adapters of INTEGRATING.md, run as they are printed, over TCP on loopback.

Each server runs in a thread; the client is a plain socket of the test's.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
import tracemalloc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, MutableSequence
from typing import Any, ClassVar, Self

from greeter_core import ConversationEnded, EndReason, ServerConfig, ServerEvent
from tests.support.documents import INTEGRATING, code_blocks
from tests.support.processes import HOST, PATIENCE, Peer

ORIGINALS = ServerConfig()
"""A server that takes names without terminators, and spaces its words."""


def adapter(definition: str) -> dict[str, Any]:
    """Return the namespace of the page's block with this definition."""
    (source,) = [block for block in code_blocks("python", INTEGRATING) if definition in block]
    namespace: dict[str, Any] = {"__name__": definition}
    exec(compile(source, str(INTEGRATING), "exec"), namespace)
    return namespace


def pair() -> tuple[Peer, socket.socket]:
    """Return the client's and the server's end of a TCP connection."""
    with socket.create_server((HOST, 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return Peer(client), listener.accept()[0]


@contextlib.contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """Check that Python needs no more memory, in bytes, at any time in the block."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit


class Server(ABC):
    """A server of one kind; constants replace those of the page's code."""

    definition: ClassVar[str]

    def __init__(
        self, config: ServerConfig = ORIGINALS, *, send_buffer: int = 0, **constants: object
    ) -> None:
        self.config = config
        self.events: MutableSequence[ServerEvent] = []
        """Those of all conversations."""
        self.adapter = adapter(self.definition)
        self.adapter.update(constants)
        self._listener = socket.create_server((HOST, 0))
        if send_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self._clients = contextlib.ExitStack()
        self._stopping = contextlib.ExitStack()
        """What to call in the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._clients.close()
        with self._listener, self._stopping:
            self.join()

    def connect(self, receive_buffer: int = 0) -> Peer:
        """Return a client, which is served, and is closed at the end."""
        client = self._clients.enter_context(Peer(socket.socket()))
        if receive_buffer:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.socket.connect(self._listener.getsockname())
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    @abstractmethod
    def join(self) -> None:
        """Wait for the end of all conversations."""

    def ending(self) -> EndReason:
        """Wait for the end of all conversations, and return how the last one ended."""
        self.join()
        last = self.events[-1]
        assert isinstance(last, ConversationEnded)
        return last.reason


class BlockingServer(Server):
    """`greet`, with one thread for each client."""

    definition = "def greet("

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.failures: list[OSError] = []
        self._threads: list[threading.Thread] = []

    def connect(self, receive_buffer: int = 0) -> Peer:
        client = super().connect(receive_buffer)
        self.serve(self._listener.accept()[0])
        return client

    def serve(self, sock: socket.socket) -> None:
        self._threads.append(threading.Thread(target=self._greet, args=[sock], daemon=True))
        self._threads[-1].start()

    def _greet(self, sock: socket.socket) -> None:
        with sock:
            try:
                self.adapter["greet"](sock, self.config, self.events.append)
            except OSError as exc:
                self.failures.append(exc)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


class AsyncioServer(Server):
    """`GreeterProtocol`, in a loop of its own."""

    definition = "class GreeterProtocol("

    def __init__(self, *args: Any, tls: ssl.SSLContext | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.protocol_class = self.adapter["GreeterProtocol"]
        self.protocols: list[Any] = []
        self.mishaps: list[dict[str, Any]] = []
        self.loop: Any = asyncio.SelectorEventLoop()
        self.loop.set_exception_handler(lambda _, context: self.mishaps.append(context))
        self._changed = threading.Condition()
        self._connected = self._lost = 0
        self.after("connection_lost", self._note_loss)
        self._started = threading.Event()
        run = self.loop.run_until_complete
        self._thread = threading.Thread(target=run, args=[self._serve(tls)], daemon=True)
        self._thread.start()
        assert self._started.wait(PATIENCE)
        self._stopping.callback(self._stop)

    def after(self, name: str, act: Callable[[Any], object]) -> None:
        """Have this called with the protocol, each time after a method of the protocol's."""
        method = getattr(self.protocol_class, name)

        def call(protocol: Any, argument: Any) -> None:
            method(protocol, argument)
            act(protocol)

        setattr(self.protocol_class, name, call)

    def _note_loss(self, _: object) -> None:
        with self._changed:
            self._lost += 1
            self._changed.notify_all()

    async def _serve(self, tls: ssl.SSLContext | None) -> None:
        def protocol() -> Any:
            self.protocols.append(self.protocol_class(self.config, self.events.append))
            return self.protocols[-1]

        self._over = asyncio.Event()
        server = await self.loop.create_server(protocol, sock=self._listener, ssl=tls)
        self._started.set()
        await self._over.wait()
        server.close()

    def connect(self, receive_buffer: int = 0) -> Peer:
        self._connected += 1
        return super().connect(receive_buffer)

    def join(self) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._lost == self._connected, PATIENCE)

    def _stop(self) -> None:
        left = [timer for timer in self.loop._scheduled if not timer.cancelled()]
        self.loop.call_soon_threadsafe(self._over.set)
        self._thread.join(PATIENCE)
        self.loop.close()
        assert self.mishaps == []
        assert left == []
