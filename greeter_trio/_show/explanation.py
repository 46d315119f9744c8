"""The segments that TCP's rules let expect, where the real ones cannot be captured (RFC 9293)."""

from collections.abc import Mapping
from typing import Any

_OTHER = {"client": "server", "server": "client"}


class Explanation:
    """The segments of one connection, made up from what both ends ask of their kernels.

    Every segment is acknowledged at once, and by a segment of its own, but for the SYNs. Real
    kernels join acknowledgements with data, or delay them. Numbers begin at 0.
    """

    def __init__(self) -> None:
        self._next = {"client": 0, "server": 0}  # sequence numbers
        self._ended: set[str] = set()

    def segments(self, what: str, fields: Mapping[str, Any]) -> list[dict[str, object]]:
        """Return the segments that follow a call, as fields of what is observed."""
        end = fields.get("end")
        if end not in _OTHER:
            return []
        if what == "connect":
            return [
                self._segment("client", ["SYN"], 1, acknowledges=False),
                self._segment("server", ["SYN", "ACK"], 1),
                self._segment("client", ["ACK"]),
            ]
        if what == "send":
            flags, size = ["PSH", "ACK"], int(fields.get("bytes", 0))
        elif what in ("half_close", "close") and end not in self._ended:
            self._ended.add(end)
            flags, size = ["FIN", "ACK"], 1
        else:
            return []
        return [self._segment(end, flags, size), self._segment(_OTHER[end], ["ACK"])]

    def _segment(
        self, end: str, flags: list[str], size: int = 0, *, acknowledges: bool = True
    ) -> dict[str, object]:
        """Return a segment, which takes so many sequence numbers: one for SYN and for FIN."""
        seq = self._next[end]
        self._next[end] += size
        ack = {"ack": self._next[_OTHER[end]]} if acknowledges else {}
        length = size if "PSH" in flags else 0
        return {"from": end, "flags": flags, "seq": seq, **ack, "length": length, "assumed": True}
