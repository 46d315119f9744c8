"""What was seen beside the recorded ends of conversations, brought together with their steps.

The server's ends are recorded. What the clients do and what the kernel sends is known by the port
of the client, at first: which conversation that is, the opening of the conversation tells.
"""

from collections.abc import Callable

from greeter_core import Observed, Step, TranscriptItem

from .explanation import Explanation


class Beside:
    """Passes the items of a recording on, with what else was seen of their conversations.

    `began` is the beginning of the recording, on the clock of the times that `observe` is given.
    With `explains`, segments are added as TCP's rules let expect them, for want of real ones.
    """

    def __init__(
        self, take: Callable[[TranscriptItem], object], *, began: float, explains: bool
    ) -> None:
        self._take = take
        self._began = began
        self._explains = explains
        self._openings: dict[int, tuple[int, float]] = {}  # by port: number, and when it was opened
        self._early: dict[int, list[tuple[str, float, dict[str, object]]]] = {}  # by port
        self._explanations: dict[int, Explanation] = {}  # by number

    def take(self, item: TranscriptItem) -> None:
        """Pass on an item of the recording."""
        self._take(item)
        if isinstance(item, Observed):
            self._explain(item)
        elif isinstance(item, Step) and item.opening and item.opening.peer:
            port = int(item.opening.peer.rpartition(":")[2])
            self._openings[port] = item.id, self._began + item.opening.began
            for what, time, fields in self._early.pop(port, []):
                self.observe(port, what, time, **fields)

    def observe(self, port: int, what: str, now: float, **fields: object) -> None:
        """Pass on what was seen of the client with this port."""
        if port not in self._openings:
            self._early.setdefault(port, []).append((what, now, fields))
            return
        number, opened = self._openings[port]
        self.take(Observed(id=number, at=now - opened, what=what, fields=fields))

    def _explain(self, item: Observed) -> None:
        if self._explains:
            explanation = self._explanations.setdefault(item.id, Explanation())
            for fields in explanation.segments(item.what, item.fields):
                self._take(Observed(id=item.id, at=item.at, what="segment", fields=fields))
