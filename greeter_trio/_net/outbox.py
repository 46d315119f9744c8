"""Sending in steps, so that a cancellation between two of them loses nothing."""

from collections.abc import Awaitable, Callable

import trio

from .patience import is_late
from .transport import BROKEN, Transport

SEND_TIMEOUT = 30.0  # seconds for each slice, by default
_SLICE = 65536  # bytes


class SendFailed(Exception):
    """Not all could be sent, and no more can be; `why` has a message for people."""

    def __init__(self, why: Exception) -> None:
        super().__init__(str(why))
        self.why = why


class Outbox:
    """Sends over a transport, and keeps what cannot be sent at once.

    When a part was sent and the rest is kept, or was dropped, the peer finds a reset where the
    stream is closed, whoever closes it and why: it must not take a part for the whole.
    """

    __slots__ = ("_resets", "_timeout", "_transport", "_unsent", "sent")

    def __init__(self, transport: Transport, timeout: float) -> None:
        self._transport = transport
        self._timeout = timeout
        self._unsent: bytes | memoryview = b""
        self._resets = False
        self.sent: int = 0
        """How many bytes were sent, as far as is known."""

    @property
    def is_empty(self) -> bool:
        """Whether all that was put here was sent."""
        return not self._unsent

    def put(self, data: bytes) -> bool:
        """Send what can be sent without waiting; return whether that is all. It must be empty.

        Raises what a transport raises that is broken.
        """
        sent = self._transport.send_now(data)
        self.sent += sent
        if sent == len(data):
            return True
        self._unsent = memoryview(data[sent:])  # a copy, so that what was sent is freed
        if sent:
            self._reset_at_close(on=True)
        return False

    def clear(self) -> None:
        """Drop what was not sent."""
        self._unsent = b""

    async def send_all(self) -> None:
        """Send all; raise `SendFailed`, also where the peer takes less than 64 KiB in `timeout`."""
        while self._unsent:
            with trio.move_on_after(self._timeout) as scope:
                await self._send_slice()
            if scope.cancelled_caught and not is_late(scope):
                slow = f"the peer took less than 64 KiB in {self._timeout:g} s"
                raise SendFailed(trio.TooSlowError(slow))

    async def send_while(
        self, receive: Callable[[], Awaitable[None]], is_wanted: Callable[[], bool]
    ) -> None:
        """Send all, without a timeout, and call `receive` again and again at the same time.

        This ends when all is sent, or when `is_wanted()` is false after a call of `receive`; then
        it raises `SendFailed` if something is left. What `receive` raises is raised as it is.
        """
        failures: list[Exception] = []  # to be raised without a group

        async def repeat(step: Callable[[], Awaitable[None]], goes_on: Callable[[], bool]) -> None:
            try:
                while goes_on():
                    await step()
            except Exception as exc:  # noqa: BLE001 - it is raised below
                failures.append(exc)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(repeat, self._send_slice, lambda: bool(self._unsent))
            nursery.start_soon(repeat, receive, is_wanted)
        if failures:  # what `receive` raises goes first
            raise min(failures, key=lambda exc: isinstance(exc, SendFailed))
        if self._unsent and not is_wanted():
            raise SendFailed(trio.BrokenResourceError("a send was given up"))

    async def _send_slice(self) -> None:
        """Send the next 64 KiB, however long that takes."""
        rest = max(len(self._unsent) - _SLICE, 0)
        try:
            while len(self._unsent) > rest:
                sent = await self._transport.send_some(self._unsent[: len(self._unsent) - rest])
                self.sent += sent
                self._unsent = self._unsent[sent:] or b""
        except BROKEN as exc:
            raise SendFailed(exc) from exc
        finally:  # a send that was cancelled may have sent a part, too
            self._reset_at_close(on=bool(self._unsent))

    def _reset_at_close(self, *, on: bool) -> None:
        if on is not self._resets:
            self._resets = on
            self._transport.reset_at_close(on=on)

    async def send_eof(self) -> None:
        """End the sending direction, or close a stream that cannot do that."""
        await self._transport.send_eof(self._timeout)
