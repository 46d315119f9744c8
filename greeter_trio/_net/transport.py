"""A byte stream as the driver sees it: calls that never wait, apart from calls that do."""

from abc import ABC, abstractmethod

import trio

from .tls_words import explain

SIZE = 16384  # bytes to receive at once; a peer that never reads costs a server 17 times as much
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)
"""What a transport raises when the connection is gone."""


class Transport(ABC):
    """One end of a reliable byte stream.

    A connection that breaks raises `trio.BrokenResourceError`, with a message for people; where
    another task closes the stream meanwhile, that may be `trio.ClosedResourceError`.
    """

    __slots__ = ()

    @abstractmethod
    async def receive(self) -> bytes | bytearray:
        """Wait for bytes and return them; `b""` is the end of the stream.

        A call that is cancelled has lost nothing.
        """

    @abstractmethod
    async def receive_arrived(self) -> bytes | bytearray | None:
        """Return bytes that have arrived (about 16 KiB at most), `b""` for the end, or else None.

        This waits for nothing but, perhaps, a few passes of the scheduler.
        """

    @abstractmethod
    def arrived(self) -> int:
        """Return how many bytes have arrived and were not received.

        Where that is not known the number is large enough to cover them.
        """

    @abstractmethod
    def send_now(self, data: bytes | memoryview) -> int:
        """Send what can be sent without waiting; return how many bytes that was."""

    @abstractmethod
    async def send_some(self, data: bytes | memoryview) -> int:
        """Wait until some bytes could be sent, one or more; return how many.

        A call that is cancelled has sent nothing, or the transport is broken from then on.
        """

    @abstractmethod
    async def send_eof(self, timeout: float) -> None:  # noqa: ASYNC109 - the driver decides it
        """End the sending direction; where a stream cannot do that, close it.

        TLS sends close_notify first: a peer that does not read it within `timeout` seconds goes
        without.
        """

    @abstractmethod
    def is_in_flight(self) -> bool:
        """Return whether the peer's kernel has yet to acknowledge data; False where unknown."""

    @abstractmethod
    def reset_at_close(self, *, on: bool) -> None:
        """Have the peer find a reset, and not an end in good order, when the stream is closed.

        What is on its way then is lost. Where there is no TCP below, this does nothing.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what the transport itself holds; its owner closes the stream or socket."""


def broken(exc: Exception) -> trio.BrokenResourceError:
    """Return the exception of a transport for what went wrong below it."""
    words = exc.strerror if isinstance(exc, OSError) else explain(exc)
    return trio.BrokenResourceError(words or type(exc).__name__)
