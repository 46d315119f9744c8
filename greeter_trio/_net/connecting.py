"""From an address to a conversation: TCP or a Unix socket, a PROXY header, TLS, and the server's welcome.

A connection alone proves little: a load balancer without servers accepts it, and closes it at once.
So a call counts as answered when the server has said WELCOME. Until then nothing was asked, and it
can be tried again without harm.
"""

import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import trio

from greeter_core import ClientConfig, ClientConnection, ClientEvent, EndReason, Welcomed
from greeter_trio._drive import Driver
from greeter_trio._failures import Ending, ExitStatus

from .patience import is_late
from .text import address, strerror
from .tls import HandshakeFailed, TLSStream

_UNIX = "unix:"

_ADVICE = {
    errno.EADDRNOTAVAIL: "check --host or GREETER_HOST",
    errno.ECONNREFUSED: "is the server running, and on this port?",
    errno.EHOSTUNREACH: "check --host or GREETER_HOST",
    errno.ENETUNREACH: "check --host or GREETER_HOST",
}
_ADVICE_UNIX = {
    errno.ECONNREFUSED: "is the server running?",
    errno.ENOENT: "is the server running, and at this path?",
}


# Connecting


@attrs.frozen
class Target:
    """Where a server is, and what it wants to have before the conversation."""

    host: str
    """A name, an IP address, or `unix:` and the path of a Unix socket."""
    port: int = 0
    """Its TCP port; a Unix socket has none."""
    ssl_context: ssl.SSLContext | None = None
    """For TLS."""
    encode_header: Callable[[Any, Any], bytes] | None = None
    """For a PROXY header: makes one of the addresses of both ends, as `getsockname` returns them."""

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket."""
        return self.host.startswith(_UNIX)

    def __str__(self) -> str:
        return self.host if self.is_unix else f"{self.host} port {self.port}"


@attrs.frozen
class Link:
    """A connection that stands, over which nothing was said yet."""

    stream: trio.SocketStream | TLSStream
    peer: str | None
    """The server's address, such as `127.0.0.1:6000`; None if the connection has broken already."""
    tls: str | None
    """The version of TLS, such as `TLSv1.3`, if it is spoken."""


async def connect(target: Target) -> Link:
    """Connect to a server; how long that may take is up to the caller.

    If the host has several addresses they are tried one after the other, and a second one when the
    first has not answered within 250 ms (RFC 8305; `trio.open_tcp_stream` does it). The PROXY
    header goes before TLS. Raises OSError if nothing can be connected to,
    `trio.BrokenResourceError` if the connection breaks before the header is sent, and
    `HandshakeFailed`.
    """
    transport = await _open(target)
    try:
        peer = target.host if target.is_unix else None
        with contextlib.suppress(OSError):  # a connection that was reset has no peer any more
            peer = peer or address(transport.socket.getpeername())
        if target.encode_header:
            ends = transport.socket.getsockname(), transport.socket.getpeername()
            await transport.send_all(target.encode_header(*ends))
        if not target.ssl_context:
            return Link(transport, peer, None)
        name = (
            None if target.is_unix else target.host.removesuffix(".")
        )  # a final dot is for resolvers (RFC 6066, 3)
        stream = TLSStream(transport, target.ssl_context, server_side=False, server_hostname=name)
        await stream.do_handshake()
    except BaseException:
        transport.socket.close()
        raise
    return Link(stream, peer, stream.version)


async def connect_within(target: Target, patience: float) -> Link:
    """Connect to a server within `patience` seconds, and raise `trio.TooSlowError` otherwise.

    A process that notices that time late was stopped, and tries once more. Raises what `connect`
    raises, too.
    """
    while True:
        with trio.move_on_after(patience) as scope:
            return await connect(target)
        if not is_late(scope):
            raise trio.TooSlowError


async def _open(target: Target) -> trio.SocketStream:
    if target.is_unix:
        if not hasattr(socket, "AF_UNIX"):
            msg = "Unix sockets are not available on this platform"
            raise OSError(msg)
        return await trio.open_unix_socket(target.host.removeprefix(_UNIX))
    try:
        return await trio.open_tcp_stream(target.host, target.port)
    except UnicodeError as exc:  # IDNA has labels of 1 to 63 characters (RFC 5890, 2.3.1)
        msg = "this cannot be the name of a host"
        raise socket.gaierror(socket.EAI_NONAME, msg) from exc


# Calling


@attrs.define
class Facts:
    """What was found out about a server, None where it was not; times are in milliseconds."""

    peer: str | None = None
    """Its address."""
    tls: str | None = None
    """The version of TLS that it speaks."""
    connect_ms: float | None = None
    """How long connecting took: resolving its name, TCP, PROXY header, TLS."""
    first_byte_ms: float | None = None
    """How long it then took to say anything."""


class NoConversation(Exception):
    """No server has welcomed the client. The message is for people."""

    def __init__(
        self, message: str, status: ExitStatus, facts: Facts, *, hopeless: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        """The exit status of a client that gives up now."""
        self.facts = facts
        """What is known nevertheless."""
        self.hopeless = hopeless
        """Whether it would be in vain to try again."""
        self.attempts = 1
        """How often it was tried."""

    def __str__(self) -> str:
        return (
            f"{self.args[0]}, after {self.attempts} attempts"
            if self.attempts > 1
            else str(self.args[0])
        )


class Call:
    """A conversation from its first word on."""

    def __init__(self, link: Link, config: ClientConfig, connect_ms: float) -> None:
        self.connection = ClientConnection(config, now=trio.current_time())
        self.driver = Driver(self.connection, link.stream, self._handle)
        self.ending = Ending()
        """How it ended, when it has."""
        self.facts = Facts(link.peer, link.tls, connect_ms)
        self._connected = trio.current_time()
        self._welcomed = False
        self._events: list[ClientEvent] = []
        self._pass_on: Callable[[ClientEvent], object] = self._events.append

    def listen(self, handle_event: Callable[[ClientEvent], object]) -> None:
        """Have each event handled that comes, and first those that have come."""
        self._pass_on = handle_event
        for event in self._events:
            handle_event(event)

    async def wait_for_welcome(self) -> None:
        """Wait until the server has welcomed the client. Raises `NoConversation`."""
        await self.driver.run(self._is_answered)
        if self._welcomed:
            return
        message = self.ending.message
        if not (
            self.facts.tls or self.driver.received
        ):  # a server that waits for either says nothing
            message += " (does it want TLS or a PROXY header? try --tls or --send-proxy)"
        hopeless = self.ending.reason is EndReason.VIOLATION  # no greeter becomes one
        raise NoConversation(message, self.ending.status, self.facts, hopeless=hopeless)

    def _is_answered(self) -> bool:
        """Return whether the server has said its welcome; the driver asks that after each arrival."""
        self._note_first_byte()
        return self._welcomed

    def _note_first_byte(self) -> None:
        if self.driver.received and self.facts.first_byte_ms is None:
            self.facts.first_byte_ms = milliseconds_since(self._connected)

    def _handle(self, event: ClientEvent) -> None:
        self._note_first_byte()
        self.ending.note(event, self.driver.failure)
        if isinstance(event, Welcomed):
            self._welcomed = True
        self._pass_on(event)


@contextlib.asynccontextmanager
async def welcomed(target: Target, config: ClientConfig) -> AsyncIterator[Call]:
    """Call a server, and wait for its welcome; at the end of the block, hang up.

    Connecting may take `config.reply_timeout` seconds, and so may the welcome. Raises
    `NoConversation`. It is hopeless where something has answered, and would answer the same again:
    what is no greeter, what speaks no TLS or has a certificate that is not accepted. A host whose
    name is not known may get to be known.
    """
    start = trio.current_time()
    try:
        link = await connect_within(target, config.reply_timeout)
    except trio.TooSlowError as exc:
        msg = f"cannot connect to {target}: no answer within {config.reply_timeout:g} s"
        raise NoConversation(msg, ExitStatus.TIMED_OUT, Facts()) from exc
    except HandshakeFailed as exc:
        hopeless = not isinstance(exc.__cause__, trio.BrokenResourceError)
        msg = f"cannot connect to {target} with TLS: {exc}"
        raise NoConversation(msg, ExitStatus.FAILED, Facts(), hopeless=hopeless) from exc
    except (OSError, trio.BrokenResourceError) as exc:
        hopeless = isinstance(exc.__cause__, UnicodeError)
        msg = f"cannot connect to {target}: {_explain(exc, _ADVICE_UNIX if target.is_unix else _ADVICE)}"
        raise NoConversation(msg, ExitStatus.FAILED, Facts(), hopeless=hopeless) from exc
    async with link.stream:
        call = Call(link, config, milliseconds_since(start))
        await call.wait_for_welcome()
        yield call


def milliseconds_since(start: float) -> float:
    """Return how long ago that was, on Trio's clock."""
    return round((trio.current_time() - start) * 1000, 3)


def _explain(exc: Exception, advice: dict[int, str]) -> str:
    """Return what went wrong with an address, and what to do about it."""
    cause = exc if isinstance(exc, socket.gaierror) else exc.__cause__ or exc
    causes = (
        cause.exceptions if isinstance(cause, BaseExceptionGroup) else (cause,)
    )  # one for each address
    lines = []
    for each in causes:
        if isinstance(each, socket.gaierror):
            text, what_to_do = each.strerror or str(each), "check --host or GREETER_HOST"
        else:
            number = getattr(each, "errno", None) or 0
            text, what_to_do = strerror(number) if number else str(each), advice.get(number, "")
        lines.append(f"{text} ({what_to_do})" if what_to_do else text)
    return "; ".join(dict.fromkeys(lines))
