"""What the two state machines share: the states' table, time in order, an end reported once."""

from abc import abstractmethod
from typing import Generic

from ._connection import Connection, EventT
from ._errors import LocalProtocolError
from ._events import ConversationEnded, EndReason
from ._states import END_REASONS, Input, StateT, Transitions
from ._timers import Timer, Timers
from ._validators import checked_time


class Machine(Connection[StateT, EventT], Generic[StateT, EventT]):
    """A connection that follows a table of transitions; `Connection` documents its public names."""

    def __init__(
        self, state: StateT, transitions: Transitions[StateT], linger: float, now: float
    ) -> None:
        self._state = state
        self._transitions = transitions
        self._linger = linger
        self._now = checked_time(now)  # the time of the present call
        self._timers = Timers()
        self._peer_eof = False
        self._output: list[bytes] = []
        self._eof_owed = False
        self._events: list[EventT | ConversationEnded] = []
        self._reason: EndReason  # set when closing begins

    # Inputs: what happened, and when.

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> None:
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
        self._set_time(now)
        if not self._state.is_ended:
            self._peer_eof = True
            self._eof_received()

    def handle_timeout(self, now: float) -> None:
        self._set_time(now)
        self._fire_timers()

    def data_in_flight(self, now: float) -> None:
        self.handle_timeout(now)

    def shutdown(self, now: float) -> None:
        self.handle_timeout(now)
        if self._state.is_open:
            self._shut_down()

    def connection_lost(self) -> None:
        self._output.clear()
        if not self._state.is_ended:
            self._close(Input.LOST)
        self._eof_owed = False

    # Outputs: to be taken after every input.

    def data_to_send(self) -> bytes:
        data = b"".join(self._output)
        self._output.clear()
        return data

    def eof_to_send(self) -> bool:
        if self._output or not self._eof_owed:
            return False
        self._eof_owed = False
        return True

    def events(self) -> list[EventT | ConversationEnded]:
        events, self._events = self._events, []
        return events

    # Questions: without effect.

    @property
    def deadline(self) -> float:
        return self._timers.deadline

    @property
    def prompt_owed(self) -> bool:
        return False

    @property
    def state(self) -> StateT:
        return self._state

    @property
    def finished(self) -> bool:
        # The end of the stream is not handed out before all bytes are.
        return self._state.is_ended and not self._eof_owed

    @property
    def time(self) -> float:
        return self._now

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
        if checked_time(now) > self._now:
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


def _as_bytes(data: object) -> bytes:
    """Return data of another type than bytes as bytes, which cannot be changed afterwards."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise LocalProtocolError(f"data must be bytes, not {type(data).__name__}")
