"""The contract between a connection and its caller, which both roles and the recorder keep."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from ._config import Framing
from ._errors import LocalProtocolError
from ._events import ConversationEnded
from ._states import StateT
from ._validators import checked_time

EventT = TypeVar("EventT")


class Connection(ABC, Generic[StateT, EventT]):
    """One side of one conversation, without any I/O; `ServerConnection` or `ClientConnection`.

    The caller brings *inputs*: what happened, and when. `now` is in seconds on any monotonic
    clock, always the same one; a time earlier than one already given counts as that one.

    * `receive`: what one read returned, or that nothing was there when `deadline` had come; it
      is the next four in one
    * `receive_data`, `receive_eof`: what one read returned
    * `handle_timeout`: `deadline` has come, and nothing could be read
    * `data_in_flight`: instead of that, where `prompt_owed` and the kernel says that the peer has
      not acknowledged all that was sent (optional)
    * `shutdown`: end the conversation in good order
    * `connection_lost`: a read or a write failed

    After *every* input the caller takes the *outputs*: it sends `data_to_send`, then ends its
    stream if `eof_to_send` says so, takes the `events`, and looks at `deadline` again. When the
    connection is `finished` it closes the transport, once all of that has been sent.

    What the peer does wrong is an event, never an exception. What the caller does wrong raises
    `LocalProtocolError` before anything has changed (but E2). PROTOCOL.md specifies all this (T,
    E); INTEGRATING.md tells what else an adapter has to do, with complete ones.
    """

    reads_while_sending: bool
    """Whether to read on while a send is blocked: a client must, a server must not."""

    # Inputs: what happened, and when.

    def receive(
        self,
        data: bytes | bytearray | memoryview | None,
        now: float,
        is_in_flight: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take what one read returned; `b""` is the end of the peer's stream.

        None stands for nothing: the deadline has come, or the caller only thinks so, and there was
        nothing to read without waiting (T3). Then `is_in_flight` is asked, where that matters,
        whether the peer has yet to acknowledge something that was sent (S2.7).
        """
        if data:
            self.receive_data(data, now)
        elif isinstance(data, (bytes, bytearray, memoryview)):
            self.receive_eof(now)
        elif data is not None:
            raise LocalProtocolError(f"data must be bytes or None, not {type(data).__name__}")
        elif self.prompt_owed and self.deadline <= checked_time(now) and is_in_flight():
            self.data_in_flight(now)
        else:
            self.handle_timeout(now)

    @abstractmethod
    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Take one arrival: what one read returned, not empty. Then fire what is due (T3)."""

    @abstractmethod
    def receive_eof(self, now: float) -> None:
        """Take the end of the peer's stream, which ends the conversation; repeated, do nothing."""

    @abstractmethod
    def handle_timeout(self, now: float) -> None:
        """Fire what is due. Early and repeated calls do nothing."""

    @abstractmethod
    def data_in_flight(self, now: float) -> None:
        """Put off a PROMPT that is owed: the peer has not acknowledged all that was sent (S2.7).

        For everything else this is `handle_timeout`.
        """

    @abstractmethod
    def shutdown(self, now: float) -> None:
        """Fire what is due; then end the conversation in good order. Repeated calls do nothing."""

    @abstractmethod
    def connection_lost(self) -> None:
        """Report that a read or a write failed: nothing more can be sent (E5).

        Repeated calls do nothing.
        """

    # Outputs: to be taken after every input.

    @abstractmethod
    def data_to_send(self) -> bytes:
        """Return the bytes to send since the last call; `b""` for none."""

    @abstractmethod
    def eof_to_send(self) -> bool:
        """Return True, exactly once, when the stream is to be ended: no bytes wait before that."""

    @abstractmethod
    def events(self) -> list[EventT | ConversationEnded]:
        """Return what happened since the last call, in order."""

    # Questions: without effect.

    @property
    @abstractmethod
    def deadline(self) -> float:
        """When to call `handle_timeout` next, on the caller's clock; `math.inf` for never."""

    def timeout(self, now: float) -> float | None:
        """Return the seconds until `deadline`, never below 0; None for never."""
        seconds = self.deadline - checked_time(now)
        return max(0.0, seconds) if seconds < math.inf else None

    @property
    @abstractmethod
    def prompt_owed(self) -> bool:
        """Whether a PROMPT waits for its time: ask the kernel, if possible (`data_in_flight`)."""

    @property
    @abstractmethod
    def state(self) -> StateT:
        """Where the conversation is; `state.is_open` and `state.is_ended` sum it up."""

    @property
    @abstractmethod
    def framing(self) -> Framing:
        """How names end, or how they are sent; AUTO until that is known."""

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether nothing more will happen, and all output is taken (which is not: sent)."""

    @property
    @abstractmethod
    def time(self) -> float:
        """The latest time that was given, which is the one that counts (T4)."""

    def __repr__(self) -> str:
        state, framing = self.state.name, self.framing.name
        return f"<{type(self).__name__} {state} framing={framing} deadline={self.deadline}>"
