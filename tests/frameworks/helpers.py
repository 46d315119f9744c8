"""The adapters of INTEGRATING.md, run as they are printed, over TCP on loopback.

Each server runs in a thread; the client is a plain socket of the test's. Every wait of a test ends
after `PATIENCE`.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, MutableSequence
from contextlib import contextmanager
from typing import Any

from greeter_core import ConversationEnded, EndReason, ServerConfig, ServerEvent
from tests.readme import ROOT, code_blocks

PAGE = ROOT / "greeter_core" / "INTEGRATING.md"
PATIENCE = 20  # seconds

# The words are written out here, not imported: the tests have their own opinion of what is on the
# wire.
WELCOME = b"Welcome!\n"
PROMPT = b"What's your name?"
GOODBYE = b"Goodbye!\n"
TOO_SLOW = b"Sorry, no name came in time.\n"
NO_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


def hello(name: bytes) -> bytes:
    """Return the greeting of one name."""
    return b"Hello " + name + b"!\n"


def dialogue(*names: bytes) -> bytes:
    """Return all that a server says to a client that tells it these names and then exit."""
    return WELCOME + PROMPT + b"".join(hello(name) + PROMPT for name in names) + GOODBYE


def adapter(definition: str) -> dict[str, Any]:
    """Return the namespace of the page's block that has this definition; the caller may change it."""
    (source,) = [block for block in code_blocks("python", PAGE) if definition in block]
    namespace: dict[str, Any] = {"__name__": definition}
    exec(compile(source, str(PAGE), "exec"), namespace)
    return namespace


def receive_all(sock: socket.socket) -> bytes:
    """Return what comes until the end of the stream."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


def leave(sock: socket.socket) -> None:
    """Say exit, and wait for the server's end."""
    sock.sendall(b"exit\n")
    assert receive_all(sock).endswith(GOODBYE)
    sock.shutdown(socket.SHUT_WR)


def reset(sock: socket.socket) -> None:
    """Break a connection at once: the other side gets RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    sock.close()


class Server(ABC):
    """A server of one kind, with one configuration. `events` are those of all its conversations."""

    def __init__(
        self, config: ServerConfig, constants: dict[str, object], send_buffer: int | None
    ) -> None:
        self.config = config
        self.events: MutableSequence[ServerEvent] = []
        self.adapter = adapter(self.definition)
        self.adapter.update(constants)
        self._listener = socket.create_server(("127.0.0.1", 0))
        if send_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self._cleanup = contextlib.ExitStack()

    definition: str

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """Return a client's socket, which is closed at the end."""
        client = self._cleanup.enter_context(socket.socket())
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.settimeout(PATIENCE)
        client.connect(self._listener.getsockname())
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def close(self) -> None:
        """Close all sockets of clients, wait for the end of all conversations, and stop."""
        self._cleanup.close()
        try:
            self.join()
        finally:
            self._stop()
            self._listener.close()

    @abstractmethod
    def _stop(self) -> None:
        """Stop whatever runs."""

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
    """`greet`, one thread a client."""

    definition = "def greet("

    def __init__(self, *args: Any) -> None:  # noqa: ANN401 - they are those of `Server`
        super().__init__(*args)
        self.failures: list[OSError] = []
        self._threads: list[threading.Thread] = []

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """Return a client's socket, whose other end is served."""
        client = super().connect(receive_buffer)
        accepted, _ = self._listener.accept()
        self.serve(accepted)
        return client

    def serve(self, sock: socket.socket) -> None:
        """Serve this socket."""
        thread = threading.Thread(target=self._greet, args=[sock])
        thread.start()
        self._threads.append(thread)

    def _greet(self, sock: socket.socket) -> None:
        with sock:
            try:
                self.adapter["greet"](sock, self.config, self.events.append)
            except OSError as exc:
                self.failures.append(exc)

    def _stop(self) -> None:
        """There is nothing to stop."""

    def join(self) -> None:
        """Wait for the end of all conversations."""
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


class Loop(asyncio.SelectorEventLoop):
    """An event loop that knows its timers."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[asyncio.TimerHandle] = []

    def call_at(self, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:  # type: ignore[override]  # noqa: ANN401 - they are anything
        """Call later."""
        handle = super().call_at(*args, **kwargs)
        self.timers.append(handle)
        return handle


class AsyncioServer(Server):
    """`GreeterProtocol`, in a loop of its own."""

    definition = "class GreeterProtocol("

    def __init__(self, *args: Any, ssl_context: Any = None) -> None:  # noqa: ANN401 - they are those of `Server`
        super().__init__(*args)
        self.protocols: list[Any] = []
        self.mishaps: list[dict[str, Any]] = []
        self.loop = Loop()
        self.loop.set_exception_handler(lambda _, context: self.mishaps.append(context))
        self._changed = threading.Condition()
        self._clients = self._lost = 0
        self.protocol_class = type("Watched", (self.adapter["GreeterProtocol"],), {})
        self.override("connection_lost", self._note)
        self._started = threading.Event()
        self._thread = threading.Thread(
            target=self.loop.run_until_complete, args=[self._serve(ssl_context)]
        )
        self._thread.start()
        assert self._started.wait(PATIENCE)

    def override(self, name: str, method: Callable[..., object]) -> None:
        """Have this function called, with the protocol first, in place of a method of the protocol's."""

        def call(
            *args: object,
        ) -> object:  # a function of a class becomes its method; a bound one would not
            return method(*args)

        setattr(self.protocol_class, name, call)

    def _note(self, protocol: Any, exc: Exception | None) -> None:  # noqa: ANN401 - it is made at run time
        self.adapter["GreeterProtocol"].connection_lost(protocol, exc)
        with self._changed:
            self._lost += 1
            self._changed.notify_all()

    async def _serve(self, ssl_context: Any) -> None:  # noqa: ANN401 - None or an SSLContext
        def protocol() -> Any:  # noqa: ANN401 - it is made at run time
            self.protocols.append(self.protocol_class(self.config, self.events.append))
            return self.protocols[-1]

        self._stopping = asyncio.Event()
        server = await self.loop.create_server(protocol, sock=self._listener, ssl=ssl_context)
        self._started.set()
        await self._stopping.wait()
        server.close()

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """Return a client's socket, whose other end is served."""
        self._clients += 1
        return super().connect(receive_buffer)

    def join(self) -> None:
        """Wait for the end of all conversations."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._lost == self._clients, PATIENCE)

    def _stop(self) -> None:
        now = self.loop.time()
        left = [timer for timer in self.loop.timers if not timer.cancelled() and timer.when() > now]
        self.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(PATIENCE)
        self.loop.close()
        assert self.mishaps == []
        assert left == []


@contextmanager
def serving(
    kind: type[Server],
    config: ServerConfig = ServerConfig(),  # noqa: B008 - it is frozen
    *,
    send_buffer: int | None = None,
    ssl_context: ssl.SSLContext | None = None,
    **constants: object,
) -> Iterator[Any]:
    """Run a server of this kind; constants replace those of the page's code."""
    options = {} if ssl_context is None else {"ssl_context": ssl_context}
    server = kind(config, constants, send_buffer, **options)
    try:
        yield server
    finally:
        server.close()
