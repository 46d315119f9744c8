"""The certificate of `serve`: loaded at the start and at SIGHUP; a warning before it expires."""

import datetime as dt
import ssl

import trio

from greeter_trio._net.certificates import Validity
from greeter_trio._net.text import pluralized
from greeter_trio._net.tls_contexts import server_certificate

from .log import logger
from .serve_options import ServerTls

_DAY = 86_400.0  # seconds
_SOON = 7  # days


class Certificate:
    """The certificate that a server shows, if it speaks TLS."""

    def __init__(self, files: ServerTls | None) -> None:
        self._files = files
        self._validity: Validity | None = None

    def load(self, *, again: bool = False) -> ssl.SSLContext | None:
        """Return the context for these files, None without any.

        `again` is for another time in one process; then it warns at once, if that is due. Raises
        `TLSError`.
        """
        files = self._files
        if files is None:
            return None
        found = server_certificate(files.cert, files.key, files.client_ca, again=again)
        self._validity = found.validity
        if again:
            self._warn()
        return found.context

    async def watch(self) -> None:
        """Warn at once and then daily while that is due, until cancelled."""
        while True:
            self._warn()
            await trio.sleep(_DAY)

    def _warn(self) -> None:
        text = self._validity and warning(self._validity, dt.datetime.now(dt.UTC))
        if text:
            facts = {"event": "warning", "kind": "certificate"}
            logger.warning("The TLS certificate %s", text, extra={"facts": facts})


def warning(validity: Validity, now: dt.datetime) -> str:
    """Return what to warn of: that a certificate is not valid, or not for seven days any more."""
    begin, end = (
        f"{each:%Y-%m-%d %H:%M} UTC" for each in (validity.not_before, validity.not_after)
    )
    if now < validity.not_before:
        return f"is not valid before {begin}: is this machine's clock right?"
    if now > validity.not_after:
        return f"expired on {end}"
    days = (validity.not_after - now).days
    left = f"in {pluralized(days, 'day')}" if days else "in less than a day"
    return f"expires on {end}, {left}" if days < _SOON else ""
