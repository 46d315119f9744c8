"""Opening a conversation: connecting, with retries, until the server says its welcome.

A connection alone proves little: a load balancer without servers accepts it, and closes it at once.
So a server counts as reached when it has said WELCOME. Until then nothing was asked, and it can be
tried again without harm.
"""

import contextlib
import errno
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import attrs
import trio

from greeter_core import (
    ClientConfig,
    ClientConnection,
    ClientEvent,
    EndReason,
    Recording,
)
from greeter_trio import ConversationFailed, Greeter
from greeter_trio._net import advice
from greeter_trio._net.connecting import Connected, ConnectError, connect
from greeter_trio._net.observed_transport import ObservedTransport
from greeter_trio._net.stream_transport import socket_under, transport_over
from greeter_trio._net.tls_contexts import TLSError, client_context
from greeter_trio._net.tls_stream import HandshakeFailed
from greeter_trio._net.tls_words import Remedy, remedy

from .options import ClientOptions
from .status import ExitStatus, status_of

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0  # seconds between attempts

_ADVICE = dict.fromkeys(
    (advice.UNKNOWN_HOST, errno.EADDRNOTAVAIL, errno.EHOSTUNREACH, errno.ENETUNREACH),
    "check --host or GREETER_HOST",
)
_REMEDIES = {Remedy.TRUST_CA: " (--ca)", Remedy.SHOW_CERTIFICATE: " (--cert, --key)", None: ""}


@attrs.define
class Measurements:
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
    """No server has said its welcome. The message is for people."""

    def __init__(
        self,
        message: str,
        status: ExitStatus,
        measurements: Measurements | None = None,
        *,
        final: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        """The exit status of a client that gives up now."""
        self.measurements = measurements or Measurements()
        self.final = final
        """Whether another attempt could only fail again."""
        self.attempts = 1

    def __str__(self) -> str:
        attempts = f" (after {self.attempts} attempts)" if self.attempts > 1 else ""
        return f"{self.args[0]}{attempts}"


@contextlib.asynccontextmanager
async def open_conversation(
    options: ClientOptions,
    handle_event: Callable[[ClientEvent], object],
    recording: Recording | None = None,
) -> AsyncIterator[tuple[Greeter, Measurements]]:
    """Connect until the server says its welcome; at the end of the block, close the connection.

    The last attempt begins when `options.retry_for` seconds are over, if none is going on then.
    A `recording` gets the conversation of each attempt. Raises `NoConversation`, that of the last
    attempt.
    """
    context = _tls_context(options)
    give_up_at = trio.current_time() + options.retry_for
    attempt, pause = 0, _FIRST_PAUSE
    while True:
        attempt += 1
        async with contextlib.AsyncExitStack() as stack:
            try:
                found = await stack.enter_async_context(
                    _open_once(options, context, handle_event, recording)
                )
            except NoConversation as exc:
                exc.attempts = attempt
                if exc.final or trio.current_time() >= give_up_at:
                    raise
            else:
                yield found
                return
        await trio.sleep_until(min(trio.current_time() + pause, give_up_at))
        pause = min(2 * pause, _LONGEST_PAUSE)


@contextlib.asynccontextmanager
async def _open_once(
    options: ClientOptions,
    context: ssl.SSLContext | None,
    handle_event: Callable[[ClientEvent], object],
    recording: Recording | None,
) -> AsyncIterator[tuple[Greeter, Measurements]]:
    start = trio.current_time()
    connected = await _connect(options, context)
    connect_ms = milliseconds_since(start)
    measurements = Measurements(connected.peer, connected.tls, connect_ms)
    async with connected.stream:
        with _greeter(connected, start, options.config, handle_event, recording) as greeter:
            await _wait_welcomed(greeter, measurements)
            yield greeter, measurements


@contextlib.contextmanager
def _greeter(
    connected: Connected,
    since: float,
    config: ClientConfig,
    handle_event: Callable[[ClientEvent], object],
    recording: Recording | None,
) -> Iterator[Greeter]:
    """Yield the client's side of a conversation, which is recorded if that is wanted."""
    stream, now = connected.stream, trio.current_time()
    if recording is None:
        yield Greeter(stream, ClientConnection(config, now=now), handle_event)
        return
    recorder = recording.client(config, now=now, peer=connected.peer)
    observe = partial(recorder.observe, end="client")
    observe("connect", since)
    transport = ObservedTransport(transport_over(stream), observe, socket_under(stream))
    with contextlib.closing(transport):
        greeter = Greeter(transport, recorder, handle_event)
        transport.now = greeter.now
        yield greeter


async def _wait_welcomed(greeter: Greeter, measurements: Measurements) -> None:
    start = trio.current_time()
    try:
        await greeter.wait_welcomed()
    except ConversationFailed as exc:
        message = f"{exc}{_remedy_for(exc)}"
        if greeter.first_byte_at is None and not measurements.tls:
            # A server that waits for either says nothing.
            message += " (does it want TLS or a PROXY header? try --tls or --send-proxy)"
        final = exc.reason is EndReason.VIOLATION or _tls_error(exc) is not None
        raise NoConversation(message, status_of(exc.reason), measurements, final=final) from exc
    finally:
        if greeter.first_byte_at is not None:
            measurements.first_byte_ms = round((greeter.first_byte_at - start) * 1000, 3)


async def _connect(options: ClientOptions, context: ssl.SSLContext | None) -> Connected:
    endpoint = options.endpoint
    try:
        return await connect(
            endpoint,
            ssl_context=context,
            encode_header=options.encode_header,
            timeout=options.config.reply_timeout,
        )
    except HandshakeFailed as exc:
        final = not isinstance(exc.__cause__, trio.BrokenResourceError)
        message = f"cannot connect to {endpoint} with TLS: {exc}{_remedy_for(exc)}"
        raise NoConversation(message, ExitStatus.FAILED, final=final) from exc
    except ConnectError as exc:
        message = exc.with_advice(_ADVICE)
        raise NoConversation(message, ExitStatus.FAILED, final=exc.no_such_name) from exc
    except TimeoutError as exc:
        raise NoConversation(str(exc), ExitStatus.TIMED_OUT) from exc


def _tls_context(options: ClientOptions) -> ssl.SSLContext | None:
    if options.tls is None:
        return None
    try:
        return client_context(options.tls.ca, options.tls.cert, options.tls.key)
    except TLSError as exc:
        raise NoConversation(str(exc), ExitStatus.FAILED) from exc


def _remedy_for(exc: BaseException) -> str:
    """Return the options that would help, if an error of TLS is known to be mended by them."""
    error = _tls_error(exc)
    return _REMEDIES[remedy(error)] if error else ""


def _tls_error(exc: BaseException | None) -> ssl.SSLError | None:
    """Return the error of TLS from which the exception comes, if it does."""
    while exc is not None and not isinstance(exc, ssl.SSLError):
        exc = exc.__cause__
    return exc


def milliseconds_since(start: float) -> float:
    """Return how long ago that was, on Trio's clock."""
    return round((trio.current_time() - start) * 1000, 3)
