"""Clients that speak something else to a greeter, because one of both is configured wrongly."""

import re
from collections.abc import Iterable

from greeter_trio._net.notices import Notice

# For HTTP a request line (RFC 9112, 3), or the preface of HTTP/2.
_BEGINNINGS = {
    "TLS": rb"\x16\x03[\x00-\x04]",  # a handshake record (RFC 8446, 5.1)
    "HTTP": rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH) /|CONNECT \S+:\d|PRI \* HTTP",
    "PROXY": rb"PROXY (TCP[46]|UNKNOWN)|\r\n\r\n\x00\r\nQUIT\n",  # versions 1 and 2
}


class Strangers:
    """Counts them, and warns now and then."""

    def __init__(self) -> None:
        self._notices = {kind: Notice(kind.lower(), "client") for kind in _BEGINNINGS}

    @property
    def notices(self) -> Iterable[Notice]:
        """One for each kind."""
        return self._notices.values()

    def note(self, beginning: bytes, peer: str) -> None:
        """Warn if these first bytes of a client, where they were not expected, are known."""
        for kind, pattern in _BEGINNINGS.items():
            if re.match(pattern, beginning):
                self._notices[kind].give(f"{peer} speaks {kind} to a port that does not")
