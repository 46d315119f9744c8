"""The sessions of a server: those that are live, the places they take, and what they have done."""

import socket
import ssl
from collections import Counter

import attrs
import trio

from greeter_trio._net.notices import Notice
from greeter_trio._net.readiness import Readiness

from .counters import CloseReason, Counters
from .log import SessionLog
from .places import Places
from .session import Session
from .settings import Settings
from .strangers import Strangers


class Sessions:
    """All sessions of one server, and what they share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        """Those of the sessions that come next."""
        self.places = Places(settings.limits)
        self.accept_failures = Notice("accept", "failure")
        self._strangers = Strangers()
        self._ending = trio.Event()
        self._live: set[Session] = set()
        self._counters = Counters()  # what sessions did that are over

    def __len__(self) -> int:
        return len(self._live)

    @property
    def counters(self) -> Counters:
        """What has happened so far, in live sessions, too."""
        closed, failures = Counter(self._counters.closed), self.accept_failures.count
        counters = attrs.evolve(self._counters, closed=closed, accept_failures=failures)
        for session in self._live:
            counters.add(session)
        return counters

    @property
    def cut(self) -> int:
        """How many sessions were cut off."""
        return self._counters.closed[CloseReason.CUT]

    def tell_warnings(self) -> None:
        """Log what was due since the last lines: once a minute at most, and at the end."""
        for notice in (self.accept_failures, self.places.full, *self._strangers.notices):
            notice.tell_rest()

    def use_ssl_context(self, context: ssl.SSLContext | None) -> None:
        """Use another certificate, or none, for the sessions that come next."""
        self.settings = attrs.evolve(self.settings, ssl_context=context)

    def open(self, sock: socket.socket, peer: object, readiness: Readiness) -> Session:
        """Return a new session with a client that was accepted; the caller runs it."""
        self._counters.accepted += 1
        session = Session(
            sock,
            SessionLog(self._counters.accepted, peer),
            self.settings,
            served=self.places.admit(),
            ending=self._ending,
            strangers=self._strangers,
            readiness=readiness,
            on_closed=self._on_closed,
        )
        self._live.add(session)
        return session

    def shut_down(self) -> None:
        """End all sessions in good order, and those that are still to come."""
        self._ending.set()
        for session in self._live:
            session.shut_down()

    def _on_closed(self, session: Session) -> None:
        self._live.remove(session)
        self.places.release(served=session.served)
        self._counters.closed[session.reason] += 1
        self._counters.add(session)
