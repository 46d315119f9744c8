"""What both roles have in common: time in order, outputs to be taken, and an end that is reported once."""

import math
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from ._errors import LocalProtocolError
from ._events import ConversationEnded, EndReason
from ._states import Input, StateT, Transitions
from ._timers import Timer, Timers

EventT = TypeVar("EventT")


class Connection(ABC, Generic[StateT, EventT]):
    """One side of one conversation, without any I/O.

    Give it what happened, and when: `now` is in seconds on any monotonic clock, always the same one. After each such
    call take what there is to send, first `data_to_send` and then `eof_to_send`, and the `events`; and see to it
    that `handle_timeout` is called at `deadline`. When it is `finished`, close the transport. An I/O framework needs
    to know nothing else.

    A call that is wrong raises `LocalProtocolError` and changes nothing. Nothing that the peer does raises.
    """

    def __init__(self, state: StateT, transitions: Transitions[StateT], linger: float, now: float) -> None:
        self._state = state
        self._transitions = transitions
        self._linger = linger
        self._now = _checked(now)
        self._timers = Timers()
        self._peer_eof = False
        self._output: list[bytes] = []
        self._eof_owed = False
        self._events: list[EventT | ConversationEnded] = []
        self._reason: EndReason  # set when closing begins

    # Inputs: what happened, and when.

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Take bytes from the peer: what one read returned, not empty. The end of its stream has a call of its own."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            msg = f"data must be bytes, not {type(data).__name__}"
            raise LocalProtocolError(msg)
        if not data:
            msg = "data must not be empty; when the peer's stream has ended, call receive_eof"
            raise LocalProtocolError(msg)
        if self._peer_eof:
            msg = "data cannot come after receive_eof"
            raise LocalProtocolError(msg)
        self._advance(now)
        if self._state.is_open:
            self._data_received(bytes(data))

    def receive_eof(self, now: float) -> None:
        """Take note that the peer's stream has ended. Repeated calls do nothing."""
        self._advance(now)
        if not (self._peer_eof or self._state.is_ended):
            self._peer_eof = True
            self._eof_received()

    def handle_timeout(self, now: float) -> None:
        """Let the time pass. Early, repeated and additional calls do nothing."""
        self._advance(now)

    def shutdown(self, now: float) -> None:
        """End the conversation in good order from this side. Repeated calls do nothing."""
        self._advance(now)
        if self._state.is_open:
            self._shut_down()

    def connection_lost(self) -> None:
        """Take note that a read or a write failed: nothing can be sent any more. Repeated calls do nothing."""
        self._output.clear()
        if not self._state.is_ended:
            self._close(Input.LOST, EndReason.CONNECTION_LOST, self._now)
        self._eof_owed = False

    # Outputs: to be taken after every input.

    def data_to_send(self) -> bytes:
        """Return the bytes to send since the last call; b"" for none."""
        data = b"".join(self._output)
        self._output.clear()
        return data

    def eof_to_send(self) -> bool:
        """Return True, exactly once, when the end of the stream is to be sent and no bytes wait before it."""
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
        """When to call `handle_timeout` next; `math.inf` for never."""
        return self._timers.deadline

    @property
    def state(self) -> StateT:
        """Where the conversation is."""
        return self._state

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen, and all output is taken: close the transport."""
        return self._state.is_ended and not self._output and not self._eof_owed

    # The machinery.

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
    def _timer_fired(self, timer: Timer, when: float) -> None:
        """Handle a timer other than LINGER as of `when`, its deadline; the state is open."""

    def _unanswered(self) -> tuple[bytes, ...]:
        return ()

    def _advance(self, now: float) -> None:
        """Fire what is due at `now`."""
        self._now = max(self._now, _checked(now))
        while self._timers.deadline <= self._now:
            timer, when = self._timers.pop_first()
            if timer is Timer.LINGER:
                self._close(Input.LINGER, self._reason, when)
            else:
                self._timer_fired(timer, when)

    def _move(self, what: Input) -> None:
        self._state = self._transitions[self._state][what]

    def _close(self, what: Input, reason: EndReason, when: float) -> None:
        """Take a transition that leads to CLOSING or to ENDED. The first reason is the one that counts."""
        if self._state.is_open:
            self._reason = reason
            self._eof_owed = True
        self._move(what)
        self._timers.stop_all()
        if self._state.is_ended:
            self._events.append(ConversationEnded(self._reason, self._unanswered()))
        else:
            self._timers.start(Timer.LINGER, when + self._linger)


def _checked(now: float) -> float:
    if isinstance(now, (float, int)) and -math.inf < now < math.inf:
        return now
    msg = f"now must be a finite number of seconds, not {now!r}"
    raise LocalProtocolError(msg)
