"""The deadlines of one connection. There is no clock here: the caller says what time it is."""

import enum
import math


class Timer(enum.IntEnum):
    """The timers of both roles; those due together fire in this order (PROTOCOL.md, T2)."""

    PACE = 0
    QUIET = 1
    IDLE = 2
    LIFETIME = 3
    REPLY = 4
    LINGER = 5


_ALL_STOPPED = [math.inf] * len(Timer)


class Timers:
    """One deadline for each timer, on the caller's clock; `math.inf` where it is stopped."""

    __slots__ = ("_deadlines", "deadline")

    deadline: float
    """The earliest of all; `math.inf` if none runs."""

    def __init__(self) -> None:
        self.stop_all()

    def start(self, timer: Timer, deadline: float) -> None:
        self._deadlines[timer] = deadline
        self.deadline = min(self._deadlines)

    def stop(self, timer: Timer) -> None:
        self.start(timer, math.inf)

    def stop_all(self) -> None:
        self._deadlines = _ALL_STOPPED.copy()
        self.deadline = math.inf

    def is_running(self, timer: Timer) -> bool:
        return self._deadlines[timer] < math.inf

    def pop_first(self) -> tuple[Timer, float]:
        """Stop the timer with the earliest deadline; return it with that deadline."""
        deadline = self.deadline
        timer = Timer(self._deadlines.index(deadline))
        self.stop(timer)
        return timer, deadline
