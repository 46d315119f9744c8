"""How far a conversation has come, and what it means that it failed there."""

import ssl
from collections.abc import Sequence

import attrs

from greeter_core import (
    ClientEvent,
    EndReason,
    Greeted,
    NameRequested,
    ProtocolViolated,
    Welcomed,
)
from greeter_trio import ConversationFailed
from greeter_trio._net.tls_words import Remedy, remedy

from .client_options import ClientOptions
from .status import ExitStatus, Failure, Stage

_STATUSES = {
    EndReason.EOF: ExitStatus.CONNECTION_LOST,
    EndReason.CONNECTION_LOST: ExitStatus.CONNECTION_LOST,
    EndReason.REFUSED: ExitStatus.REFUSED,
    EndReason.SHUTDOWN: ExitStatus.REFUSED,
    EndReason.TIMED_OUT: ExitStatus.TIMED_OUT,
    EndReason.VIOLATION: ExitStatus.NO_GREETER,
}
_REMEDIES = {Remedy.TRUST_CA: " (--ca)", Remedy.SHOW_CERTIFICATE: " (--cert, --key)", None: ""}
_LARGE = 1000  # bytes: a packet that some paths drop, where small ones pass


@attrs.define
class Course:
    """What was heard of the server's words."""

    options: ClientOptions
    stage: Stage = Stage.WELCOME
    _violation: bytes = b""
    """What the server said that no greeter says."""

    def note(self, events: Sequence[ClientEvent]) -> None:
        """Take what came together; the last of the server's words tells how far it has come."""
        for event in reversed(events):
            match event:
                case ProtocolViolated(received=received):
                    self._violation = received
                case Welcomed() | Greeted():
                    self.stage = Stage.PROMPT
                    return
                case NameRequested():
                    self.stage = Stage.GREETING
                    return

    def failure(
        self, exc: ConversationFailed, *, has_heard: bool, has_asked_exit: bool = False
    ) -> Failure:
        """Return what to tell of this failure.

        `has_heard` is whether a byte came, and `has_asked_exit` whether `exit` was said or waits.
        """
        error = tls_error(exc)
        if error and self.stage is Stage.WELCOME:
            # In TLS 1.3 the client's handshake is over before the server has seen its certificate.
            return Failure(f"{exc}{remedy_for(exc)}", ExitStatus.TLS, Stage.TLS)
        status, stage = _STATUSES[exc.reason], self.stage
        if has_asked_exit and not exc.unanswered:
            stage = Stage.GOODBYE
        if self.options.send_proxy and b"Hello " in self._violation:
            said = "the server wants no PROXY header: it greeted the header as a name"
            return Failure(f"{said} (leave out --send-proxy)", status, Stage.GREETING)
        return Failure(f"{exc}{self._hint(exc, stage, has_heard=has_heard)}", status, stage)

    def _hint(self, exc: ConversationFailed, stage: Stage, *, has_heard: bool) -> str:
        if not has_heard:
            return self._hint_of_silence(is_closed=exc.reason is not EndReason.TIMED_OUT)
        size = sum(len(name) for name in exc.unanswered)
        if exc.reason is EndReason.TIMED_OUT and stage is Stage.GREETING and size > _LARGE:
            return " (does a short name pass? then the path may drop large packets)"
        return ""

    def _hint_of_silence(self, *, is_closed: bool) -> str:
        """Return what may be wrong where a server that should speak first has said nothing."""
        wanted: list[tuple[str, str]] = []
        if not self.options.tls:
            wanted.append(("TLS", "--tls"))
        if not self.options.send_proxy:
            wanted.append(("a PROXY header", "--send-proxy"))
        guesses = []
        if wanted:
            guesses.append(f"does it want {_either([what for what, _ in wanted])}")
        if is_closed:
            guesses.append("does a load balancer on the way have no server")
        else:
            guesses.append("does a proxy on the way wait for the client to speak first")
        trials = f"? try {_either([option for _, option in wanted])}" if wanted else "?"
        return f" ({_either(guesses)}{trials})"


def _either(words: Sequence[str]) -> str:
    return " or ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} or {words[-1]}"


def remedy_for(exc: BaseException) -> str:
    """Return the options that would help, if an error of TLS is known to be mended by them."""
    error = tls_error(exc)
    return _REMEDIES[remedy(error)] if error else ""


def tls_error(exc: BaseException | None) -> ssl.SSLError | None:
    """Return the error of TLS from which the exception comes, if it does."""
    while exc is not None and not isinstance(exc, ssl.SSLError):
        exc = exc.__cause__
    return exc


def is_for_another_name(error: ssl.SSLError | None) -> bool:
    """Return whether the certificate is not for this host: X509_V_ERR_… in openssl/x509_vfy.h."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in (62, 64)
