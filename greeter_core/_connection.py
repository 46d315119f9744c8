"""What both roles share: the contract with the caller, time in order, and an end reported once."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Generic, TypeVar

from ._config import Framing
from ._errors import LocalProtocolError
from ._events import ConversationEnded, EndReason
from ._states import END_REASONS, Input, StateT, Transitions
from ._timers import Timer, Timers

EventT = TypeVar("EventT")


class Connection(ABC, Generic[StateT, EventT]):
    """One side of one conversation, without any I/O; `ServerConnection` or `ClientConnection`.

    The caller brings *inputs*: what happened, and when. `now` is in seconds on any monotonic
    clock, always the same one; a time earlier than one already given counts as that one.

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

    reads_while_sending: ClassVar[bool]
    """Whether to read on while a send is blocked: a client must, a server must not."""

    def __init__(
        self, state: StateT, transitions: Transitions[StateT], linger: float, now: float
    ) -> None:
        self._state = state
        self._transitions = transitions
        self._linger = linger
        self._now = _checked(now)  # the time of the present call
        self._timers = Timers()
        self._peer_eof = False
        self._output: list[bytes] = []
        self._eof_owed = False
        self._events: list[EventT | ConversationEnded] = []
        self._reason: EndReason  # set when closing begins

    # Inputs: what happened, and when.

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Take one arrival: what one read returned, not empty. Then fire what is due (T3)."""
        if type(data) is not bytes:  # to ask first saves 5 % of a name that comes alone
            data = _as_bytes(data)
        if not data:
            raise LocalProtocolError(
                "data must not be empty; when the peer's stream has ended, call receive_eof"
            )
        if self._peer_eof:
            raise LocalProtocolError("data cannot come after receive_eof")
        self._set_time(now)
        if self._state.is_open:
            self._data_received(data)
        if self._timers.deadline <= self._now:  # to ask first saves 2 % of a name that comes alone
            self._fire_timers()

    def receive_eof(self, now: float) -> None:
        """Take the end of the peer's stream, which ends the conversation; repeated, do nothing."""
        self._set_time(now)
        if not self._state.is_ended:
            self._peer_eof = True
            self._eof_received()

    def handle_timeout(self, now: float) -> None:
        """Fire what is due. Early and repeated calls do nothing."""
        self._set_time(now)
        self._fire_timers()

    def data_in_flight(self, now: float) -> None:
        """Put off a PROMPT that is owed: the peer has not acknowledged all that was sent (S2.7).

        For everything else this is `handle_timeout`.
        """
        self.handle_timeout(now)

    def shutdown(self, now: float) -> None:
        """Fire what is due; then end the conversation in good order. Repeated calls do nothing."""
        self.handle_timeout(now)
        if self._state.is_open:
            self._shut_down()

    def connection_lost(self) -> None:
        """Report that a read or a write failed: nothing more can be sent (E5).

        Repeated calls do nothing.
        """
        self._output.clear()
        if not self._state.is_ended:
            self._close(Input.LOST)
        self._eof_owed = False

    # Outputs: to be taken after every input.

    def data_to_send(self) -> bytes:
        """Return the bytes to send since the last call; `b""` for none."""
        data = b"".join(self._output)
        self._output.clear()
        return data

    def eof_to_send(self) -> bool:
        """Return True, exactly once, when the stream is to be ended: no bytes wait before that."""
        if self._output or not self._eof_owed:
            return False
        self._eof_owed = False
        return True

    def events(self) -> list[EventT | ConversationEnded]:
        """Return what happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    # Questions: without effect.

    @property
    def deadline(self) -> float:
        """When to call `handle_timeout` next, on the caller's clock; `math.inf` for never."""
        return self._timers.deadline

    def timeout(self, now: float) -> float | None:
        """Return the seconds until `deadline`, never below 0; None for never."""
        seconds = self._timers.deadline - _checked(now)
        return max(0.0, seconds) if seconds < math.inf else None

    @property
    def prompt_owed(self) -> bool:
        """Whether a PROMPT waits for its time: ask the kernel, if possible (`data_in_flight`)."""
        return False

    @property
    def state(self) -> StateT:
        """Where the conversation is; `state.is_open` and `state.is_ended` sum it up."""
        return self._state

    @property
    @abstractmethod
    def framing(self) -> Framing:
        """How names end; AUTO until that is known."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen, and all output is taken (which is not: sent)."""
        # The end of the stream is not handed out before all bytes are.
        return self._state.is_ended and not self._eof_owed

    def __repr__(self) -> str:
        state, framing = self._state.name, self.framing.name
        return f"<{type(self).__name__} {state} framing={framing} deadline={self.deadline}>"

    # What the roles fill in.

    @abstractmethod
    def _data_received(self, data: bytes) -> None:
        """Handle bytes from the peer, at least one; the state is open."""

    @abstractmethod
    def _eof_received(self) -> None:
        """Handle the end of the peer's stream; the state is open or closing."""

    @abstractmethod
    def _shut_down(self) -> None:
        """Say what is left to say, and close; the state is open."""

    @abstractmethod
    def _timer_fired(self, timer: Timer, deadline: float) -> None:
        """Handle a timer other than LINGER, whose deadline may be long over; the state is open."""

    @abstractmethod
    def _unanswered(self) -> tuple[bytes, ...]:
        """Return the names to report with the end of the conversation."""

    # What the roles use.

    def _set_time(self, now: float) -> None:
        if _checked(now) > self._now:
            self._now = now

    def _fire_timers(self) -> None:
        timers = self._timers
        while timers.deadline <= self._now:
            timer, deadline = timers.pop_first()
            if timer is Timer.LINGER:
                self._close(Input.LINGER)
            else:
                self._timer_fired(timer, deadline)

    def _move(self, what: Input) -> None:
        self._state = self._transitions[self._state][what]

    def _close(self, what: Input) -> None:
        """Take a transition to CLOSING or ENDED; the first of them gives the reason (S8.4)."""
        if self._state.is_open:
            self._reason = END_REASONS[what]
            self._eof_owed = True
        self._move(what)
        self._timers.stop_all()
        if self._state.is_ended:
            self._events.append(ConversationEnded(self._reason, self._unanswered()))
        else:
            self._timers.start(Timer.LINGER, self._now + self._linger)


# The largest float; an int beyond it could not be added to one.
_LATEST = math.nextafter(math.inf, 0)


def _checked(now: float) -> float:
    if isinstance(now, (float, int)) and -_LATEST <= now <= _LATEST:
        return now
    raise LocalProtocolError(f"now must be a finite number of seconds, not {now!r}")


def _as_bytes(data: object) -> bytes:
    """Return data of another type than bytes as bytes, which cannot be changed afterwards."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise LocalProtocolError(f"data must be bytes, not {type(data).__name__}")
