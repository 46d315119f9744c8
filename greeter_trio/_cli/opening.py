"""Opening a conversation: connecting, with retries, until the server says its welcome.

A connection alone proves little: a load balancer without servers accepts it, and closes it at once.
So a server counts as reached when it has said WELCOME. Until then nothing was asked, and it can be
tried again without harm.
"""

import contextlib
import errno
import math
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from greeter_core import ClientConfig, ClientConnection, ClientEvent, EndReason
from greeter_trio import ConversationFailed, Greeter
from greeter_trio._net import advice
from greeter_trio._net.connecting import Connected, ConnectError, Progress, connect
from greeter_trio._net.endpoints import Tcp
from greeter_trio._net.hosts import certified_host
from greeter_trio._net.tls_stream import HandshakeFailed

from .client_options import ClientOptions
from .course import Course, is_for_another_name, remedy_for, tls_error
from .status import ExitStatus, Failure, Stage

if TYPE_CHECKING:
    from greeter_core import Recording
    from greeter_trio._net.proxy import HeaderEncoder

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0  # seconds between attempts
_LOOK = 2.0  # seconds for another look at a certificate
_SHORTEST = 0.1  # seconds that the last attempt has

_ADVICE = dict.fromkeys(
    (advice.UNKNOWN_HOST, errno.EADDRNOTAVAIL, errno.EHOSTUNREACH, errno.ENETUNREACH),
    "check --host or GREETER_HOST",
)


@attrs.define
class Measurements:
    """What was found out about a server, None where it was not; times are in milliseconds."""

    peer: str | None = None
    """Its address."""
    tls: str | None = None
    """The version of TLS that it speaks."""
    connect_ms: float | None = None
    """How long connecting took: resolving its name, TCP, PROXY header, TLS as far as it came."""
    first_byte_ms: float | None = None
    """How long it then took to say anything."""


@attrs.frozen
class Conversation:
    """A conversation in which the server has said its welcome."""

    greeter: Greeter
    measurements: Measurements
    _course: Course

    def failure(self, exc: ConversationFailed, *, has_asked_exit: bool) -> Failure:
        """Return what to tell of this failure."""
        return self._course.failure(exc, has_heard=True, has_asked_exit=has_asked_exit)


class NoConversation(Exception):
    """No server has said its welcome. The message is for people."""

    def __init__(
        self,
        failure: Failure,
        measurements: Measurements | None = None,
        *,
        final: bool = False,
        attempts: int = 1,
    ) -> None:
        after = f" (after {attempts} attempts)" if attempts > 1 else ""
        self.failure = attrs.evolve(failure, message=f"{failure.message}{after}")
        super().__init__(self.failure.message)
        self.measurements = measurements or Measurements()
        self.final = final
        """Whether another attempt could only fail again."""


OnFailure = Callable[[int, Failure], object]
"""Called with the number of an attempt that has failed and will be made again."""


@contextlib.asynccontextmanager
async def open_conversation(
    options: ClientOptions,
    handle_events: Callable[[Sequence[ClientEvent]], object],
    recording: "Recording | None" = None,
    on_failure: OnFailure = lambda *_: None,
) -> AsyncIterator[Conversation]:
    """Connect until the server says its welcome; at the end of the block, close the connection.

    With `options.retry_for` that is all over when so many seconds are, to within a tenth. A
    `recording` gets the conversation of each attempt. Raises `NoConversation`: the last failure
    that was not only cut short by that time.
    """
    opener = Opener(options)
    give_up_at = trio.current_time() + options.retry_for if options.retry_for else math.inf
    attempt, pause = 1, _FIRST_PAUSE
    failed: NoConversation | None = None
    while True:
        limit = max(give_up_at, trio.current_time() + _SHORTEST)
        async with contextlib.AsyncExitStack() as stack:
            try:
                found = await stack.enter_async_context(
                    opener.open(handle_events, recording, limit=limit)
                )
            except NoConversation as exc:
                is_cut = failed is not None and trio.current_time() >= limit
                failed = failed if failed and is_cut else exc
                is_over = not options.retry_for or trio.current_time() >= give_up_at
                if exc.final or is_over:
                    raise NoConversation(
                        failed.failure, failed.measurements, attempts=attempt
                    ) from exc
            else:
                yield found
                return
        on_failure(attempt, failed.failure)
        attempt += 1
        await trio.sleep_until(min(trio.current_time() + pause, give_up_at))
        pause = min(2 * pause, _LONGEST_PAUSE)


class Opener:
    """Opens conversations with one server, again and again; its host is resolved each time."""

    def __init__(self, options: ClientOptions) -> None:
        """Read the files of TLS. Raises `NoConversation`."""
        self._options = options
        self._context = _tls_context(options)
        self._encode_header = _header_encoder(options.send_proxy)
        self._names: str | None = None  # what is told of a certificate that is for other names

    @contextlib.asynccontextmanager
    async def open(
        self,
        handle_events: Callable[[Sequence[ClientEvent]], object],
        recording: "Recording | None" = None,
        *,
        limit: float = math.inf,
    ) -> AsyncIterator[Conversation]:
        """Connect, and wait for the welcome, until the time `limit` at most."""
        options, start = self._options, trio.current_time()
        connected, measurements = await self._connect(start, limit)
        course = Course(options)

        def note(events: Sequence[ClientEvent]) -> None:
            course.note(events)
            handle_events(events)

        async with connected.stream:
            with _greeter(connected, start, options.config, note, recording) as greeter:
                await _wait_welcomed(greeter, course, measurements, limit)
                yield Conversation(greeter, measurements, course)

    async def _connect(self, start: float, limit: float) -> tuple[Connected, Measurements]:
        options, progress = self._options, Progress()
        timeout = min(options.config.reply_timeout, limit - start)
        try:
            connected = await connect(
                options.endpoint,
                ssl_context=self._context,
                encode_header=self._encode_header,
                timeout=timeout,
                family=options.family,
                progress=progress,
            )
        except (HandshakeFailed, ConnectError, TimeoutError) as exc:
            measurements = Measurements(progress.peer)
            if progress.connected_at is not None:
                measurements.connect_ms = milliseconds(progress.connected_at - start)
            failure, final = self._failure(exc, Stage(progress.stage.value))
            if is_for_another_name(tls_error(exc)):
                if self._names is None:  # a watch needs to look once
                    self._names = await self._certified_names(limit)
                failure = attrs.evolve(failure, message=f"{failure.message}{self._names}")
            raise NoConversation(failure, measurements, final=final) from exc
        measurements = Measurements(connected.peer, connected.tls, milliseconds_since(start))
        return connected, measurements

    async def _certified_names(self, limit: float) -> str:
        """Return for which names the server's certificate is, or nothing if that takes too long."""
        from greeter_trio._net.text import listed  # noqa: PLC0415 - it is rare
        from greeter_trio._net.tls_stream import names_of  # noqa: PLC0415

        endpoint, context = self._options.endpoint, self._context
        if not (isinstance(endpoint, Tcp) and endpoint.host and context):
            return ""
        names: tuple[str, ...] = ()
        with (
            trio.move_on_at(min(limit, trio.current_time() + _LOOK)),
            contextlib.suppress(ConnectError, HandshakeFailed, TimeoutError),
        ):
            connected = await connect(
                endpoint,
                encode_header=self._encode_header,
                timeout=_LOOK,
                family=self._options.family,
            )
            names = await names_of(connected.stream, context, certified_host(endpoint.host))
        return f"; it is for {listed(names)}" if names else ""

    def _failure(self, exc: Exception, stage: Stage) -> tuple[Failure, bool]:
        """Return what to tell of a failure to connect, and whether it is final."""
        match exc:
            case HandshakeFailed():
                where = f"cannot connect to {self._options.endpoint} with TLS"
                failure = Failure(f"{where}: {exc}{remedy_for(exc)}", ExitStatus.TLS, stage)
                return failure, not isinstance(exc.__cause__, trio.BrokenResourceError)
            case ConnectError():
                message = exc.with_advice(_ADVICE)
                return Failure(message, ExitStatus.CANNOT_CONNECT, stage), exc.no_such_name
            case _:
                return Failure(str(exc), ExitStatus.TIMED_OUT, stage), False


@contextlib.contextmanager
def _greeter(
    connected: Connected,
    since: float,
    config: ClientConfig,
    handle_events: Callable[[Sequence[ClientEvent]], object],
    recording: "Recording | None",
) -> Iterator[Greeter]:
    """Yield the client's side of a conversation, which is recorded if that is wanted."""
    stream, now = connected.stream, trio.current_time()
    if recording is None:
        yield Greeter(stream, ClientConnection(config, now=now), handle_events)
        return
    from greeter_trio._net.observed_transport import ObservedTransport  # noqa: PLC0415 - it is rare
    from greeter_trio._net.stream_transport import socket_under, transport_over  # noqa: PLC0415

    recorder = recording.client(config, now=now, peer=connected.peer)
    observe = partial(recorder.observe, end="client")
    observe("connect", since)
    transport = ObservedTransport(transport_over(stream), observe, socket_under(stream))
    with contextlib.closing(transport):
        greeter = Greeter(transport, recorder, handle_events)
        transport.now = greeter.now
        yield greeter


async def _wait_welcomed(
    greeter: Greeter, course: Course, measurements: Measurements, limit: float
) -> None:
    start = trio.current_time()
    try:
        with trio.move_on_at(limit) as scope:
            await greeter.wait_welcomed()
    except ConversationFailed as exc:
        has_heard = greeter.first_byte_at is not None
        failure = course.failure(exc, has_heard=has_heard)
        final = exc.reason is EndReason.VIOLATION or tls_error(exc) is not None
        raise NoConversation(failure, measurements, final=final) from exc
    finally:
        if greeter.first_byte_at is not None:
            measurements.first_byte_ms = milliseconds(greeter.first_byte_at - start)
    if scope.cancelled_caught:
        silent = ConversationFailed("the server did not answer in time", EndReason.TIMED_OUT)
        failure = course.failure(silent, has_heard=greeter.first_byte_at is not None)
        raise NoConversation(failure, measurements)


def _tls_context(options: ClientOptions) -> ssl.SSLContext | None:
    if options.tls is None:
        return None
    from greeter_trio._net.tls_contexts import TLSError, client_context  # noqa: PLC0415 - it is rare

    try:
        return client_context(options.tls.ca, options.tls.cert, options.tls.key)
    except TLSError as exc:
        raise NoConversation(Failure(str(exc)), final=True) from exc


def _header_encoder(version: str | None) -> "HeaderEncoder | None":
    if version is None:
        return None
    from greeter_trio._net import proxy  # noqa: PLC0415 - most clients send none

    return {"v1": proxy.encode_v1, "v2": proxy.encode_v2}[version]


def milliseconds(seconds: float) -> float:
    """Return this duration as it is shown."""
    return round(seconds * 1000, 3)


def milliseconds_since(start: float) -> float:
    """Return how long ago that was, on Trio's clock."""
    return milliseconds(trio.current_time() - start)
