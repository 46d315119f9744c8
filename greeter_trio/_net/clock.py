"""A clock that can stand still."""

import trio


class PausableClock:
    """Trio's clock, less the time for which it was paused; it begins paused, at Trio's time."""

    __slots__ = ("_paused_at", "lag")

    def __init__(self) -> None:
        self.lag: float = 0.0
        """How many seconds it is behind Trio's clock, while it runs."""
        self._paused_at: float | None = trio.current_time()

    def now(self) -> float:
        """Return its time, in seconds."""
        now = trio.current_time() if self._paused_at is None else self._paused_at
        return now - self.lag

    def resume(self) -> None:
        """Let it run on from where it stands."""
        self.lag, self._paused_at = trio.current_time() - self.now(), None

    def pause(self) -> None:
        """Let it stand still."""
        self._paused_at = trio.current_time()
