"""Which clients are served, and which wait: the limit on connections."""

import trio

from greeter_trio._net.notices import Notice
from greeter_trio._net.text import pluralized

from .limits import Limits, WhenFull

MOST_REFUSED = 100  # connections that are being refused at once; more of them wait in the backlog


class Places:
    """Counts the open connections of a server, and lets acceptors wait while it is full."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._taken = 0
        self._refused = 0
        self._waiting = trio.lowlevel.ParkingLot()
        self.full = Notice("full", "time")
        """The warning that clients wait, or are refused."""

    def may_accept(self) -> bool:
        """Return whether one more connection may be accepted."""
        return not self._is_full() or (self._rejects() and self._refused < MOST_REFUSED)

    def note_client(self) -> None:
        """Warn if the client that has come must wait for a place."""
        if not self.may_accept():
            self._warn("clients wait")

    async def wait_for_place(self) -> None:
        """Wait until that is so."""
        while not self.may_accept():
            await self._waiting.park()

    def admit(self) -> bool:
        """Count a connection; return whether it is served, and not only accepted to be refused."""
        refused = self._is_full() and self._rejects()
        if refused:
            self._warn("clients are refused")
        self._taken += not refused
        self._refused += refused
        return not refused

    def release(self, *, served: bool) -> None:
        """Give back what `admit` took; `served` is what it returned."""
        self._taken -= served
        self._refused -= not served
        self._waiting.unpark_all()

    def _warn(self, what: str) -> None:
        most = self._limits.max_connections
        self.full.give(f"The server is full, with {pluralized(most, 'client')}: {what}")

    def _is_full(self) -> bool:
        return self._taken >= self._limits.max_connections

    def _rejects(self) -> bool:
        return self._limits.when_full is WhenFull.REJECT
