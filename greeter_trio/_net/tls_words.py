"""A person's words for what goes wrong with TLS."""

import ssl

_UNTRUSTED = "{peer}'s certificate is signed by no CA that is trusted here ({ca})"
_OTHER_VERSION = "{peer} speaks no TLS version that we do: 1.2 and newer"
_UNACCEPTABLE = "{peer} does not accept our certificate"

# What is wrong with the peer's certificate: X509_V_ERR_… in openssl/x509_vfy.h
_VERIFICATION = {
    9: "{peer}'s certificate is not valid yet; is this machine's clock right?",
    10: "{peer}'s certificate has expired",
    18: _UNTRUSTED,  # it signed itself
    19: _UNTRUSTED,  # its root did
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    62: "{peer}'s certificate is {why}",  # not valid for this name
    64: "{peer}'s certificate is {why}",  # not valid for this address
}

# What the peer says in an alert: RFC 8446, 6.2. The names of OpenSSL's reasons end with the alert's
_ALERTS = {
    "BAD_CERTIFICATE": _UNACCEPTABLE,
    "CERTIFICATE_EXPIRED": "{peer} says that our certificate has expired",
    "CERTIFICATE_REQUIRED": "the server demands a client certificate (--cert, --key)",
    "CERTIFICATE_UNKNOWN": _UNACCEPTABLE,
    # up to TLS 1.2 there is no better alert for either
    "HANDSHAKE_FAILURE": "{peer} has no cipher in common with us, or demands a client certificate (--cert, --key)",
    "PROTOCOL_VERSION": _OTHER_VERSION,
    "UNKNOWN_CA": "{peer} does not trust the CA that signed our certificate",
    "UNSUPPORTED_CERTIFICATE": _UNACCEPTABLE,
}

# What OpenSSL finds here
_FINDINGS = {
    "NO_SHARED_CIPHER": "{peer} has no cipher in common with us",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "{peer} showed no certificate",
    "UNSUPPORTED_PROTOCOL": _OTHER_VERSION,
}


def explain(exc: BaseException) -> str:
    """Return a person's words for an `ssl.SSLError`, or for what a stream raised because it broke."""
    if isinstance(exc, ssl.SSLError):
        return words(exc, "the peer")
    cause = exc.__cause__
    if isinstance(cause, ssl.SSLError):
        return str(exc) or explain(cause)  # TLSStream has found the words
    return getattr(cause, "strerror", None) or str(exc)


def words(exc: ssl.SSLError, peer: str) -> str:
    name, why = reason(exc), ""
    if isinstance(exc, ssl.SSLCertVerificationError):
        why = exc.verify_message.rstrip(".").rpartition(", certificate is ")[2]
        said = _VERIFICATION.get(exc.verify_code, "{peer}'s certificate is not accepted: {why}")
    elif "_ALERT_" in name:
        alert = name.rpartition("_ALERT_")[2]
        said, why = _ALERTS.get(alert, "{peer} gave up: {why}"), _plain(alert)
    else:
        said, why = _FINDINGS.get(name, "{why}"), _plain(name)
    return said.format(peer=peer, why=why, ca="--tls-client-ca" if peer == "the client" else "--ca")


def reason(exc: OSError) -> str:
    """Return OpenSSL's name for what happened, or something similar where there is none."""
    return getattr(exc, "reason", None) or "UNKNOWN_ERROR"


def _plain(name: str) -> str:
    return name.replace("_", " ").lower()
