"""Plain words for what goes wrong with TLS."""

import enum
import ssl

UNKNOWN = "UNKNOWN_ERROR"
"""What `reason` returns if OpenSSL has no name for what happened."""


class Remedy(enum.Enum):
    """What would help after a handshake that failed, if that is known."""

    TRUST_CA = "trust the CA that signed the peer's certificate"
    SHOW_CERTIFICATE = "show a certificate that the peer accepts"


_UNTRUSTED = "{peer}'s certificate is signed by no CA that is trusted here"
_OTHER_VERSION = "{peer} speaks no TLS version that we do: 1.2 and newer"
_UNACCEPTABLE = "{peer} does not accept our certificate"

# What is wrong with the peer's certificate: X509_V_ERR_… in openssl/x509_vfy.h
_VERIFICATION = {
    9: "{peer}'s certificate is not valid yet; is this machine's clock right?",
    10: "{peer}'s certificate has expired",
    18: _UNTRUSTED,  # it is self-signed
    19: _UNTRUSTED,  # its root is self-signed
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    62: "{peer}'s certificate is {why}",  # not valid for this name
    64: "{peer}'s certificate is {why}",  # not valid for this address
}

# What the peer says in an alert: RFC 8446, 6.2. The names of OpenSSL's reasons end with the alert's
_ALERTS = {
    "BAD_CERTIFICATE": _UNACCEPTABLE,
    "CERTIFICATE_EXPIRED": "{peer} says that our certificate has expired",
    "CERTIFICATE_REQUIRED": "{peer} demands a certificate",
    "CERTIFICATE_UNKNOWN": _UNACCEPTABLE,
    # up to TLS 1.2 there is no better alert for either
    "HANDSHAKE_FAILURE": "{peer} has no cipher in common with us, or demands a certificate",
    "PROTOCOL_VERSION": _OTHER_VERSION,
    "UNKNOWN_CA": "{peer} does not trust the CA that signed our certificate",
    "UNSUPPORTED_CERTIFICATE": _UNACCEPTABLE,
}

# What OpenSSL finds here
_FINDINGS = {
    "CA_MD_TOO_WEAK": "the certificate is signed with a weak hash function",
    "EE_KEY_TOO_SMALL": "the key is too short",
    "NO_SHARED_CIPHER": "{peer} has no cipher in common with us",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "{peer} showed no certificate",
    "UNSUPPORTED_PROTOCOL": _OTHER_VERSION,
}


def explain(exc: BaseException) -> str:
    """Return plain words for an `ssl.SSLError`, or for what a stream raised because it broke."""
    if isinstance(exc, ssl.SSLError):
        return words(exc, "the peer")
    cause = exc.__cause__
    if isinstance(cause, ssl.SSLError):
        return str(exc) or explain(cause)  # TLSStream has found the words
    return getattr(cause, "strerror", None) or str(exc)


def words(exc: ssl.SSLError, peer: str) -> str:
    """Return plain words for an error, in which the other side is called `peer`."""
    name, why = reason(exc), ""
    if isinstance(exc, ssl.SSLCertVerificationError):
        why = exc.verify_message.rstrip(".").rpartition(", certificate is ")[2]
        text = _VERIFICATION.get(exc.verify_code, "{peer}'s certificate is not accepted: {why}")
    elif "_ALERT_" in name:
        alert = name.rpartition("_ALERT_")[2]
        text, why = _ALERTS.get(alert, "{peer} gave up: {why}"), _plain(alert)
    else:
        text, why = _FINDINGS.get(name, "{why}"), _plain(name)
    return text.format(peer=peer, why=why)


def remedy(exc: BaseException | None) -> Remedy | None:
    """Return what would help after this error, if that is known."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return Remedy.TRUST_CA if _VERIFICATION.get(exc.verify_code) == _UNTRUSTED else None
    if isinstance(exc, ssl.SSLError) and reason(exc).endswith(
        ("_ALERT_CERTIFICATE_REQUIRED", "_ALERT_HANDSHAKE_FAILURE")
    ):
        return Remedy.SHOW_CERTIFICATE
    return None


def reason(exc: OSError) -> str:
    """Return OpenSSL's name for what happened, or `UNKNOWN` where there is none."""
    return getattr(exc, "reason", None) or UNKNOWN


def _plain(name: str) -> str:
    return name.replace("_", " ").lower()
