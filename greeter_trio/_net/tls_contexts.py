"""TLS contexts from files, with errors that say which file is wrong, and how."""

import ssl
from pathlib import Path

from .tls_words import explain, reason


class TLSError(Exception):
    """A certificate or a key cannot be used; the message names the file and says what is wrong."""


def server_context(cert: str, key: str | None, client_ca: str | None = None) -> ssl.SSLContext:
    """Return what a server needs to speak TLS, 1.2 or newer.

    `cert` is a PEM file with its certificate, followed by the intermediate ones; `key` is one with
    its private key, and None means that it is in the same file. With `client_ca`, a PEM file,
    clients must show a certificate that one of these CAs signed. Raises `TLSError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    # No session is resumed, and so the server's first record after the handshake is data.
    context.num_tickets = 0
    _load_certificate(context, cert, key)
    if client_ca is not None:
        _load_authorities(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    ca: str | None = None, cert: str | None = None, key: str | None = None
) -> ssl.SSLContext:
    """Return what a client needs to speak TLS, 1.2 or newer.

    The server's certificate must be signed by a CA in the PEM file `ca`; None means the CAs that
    the system trusts. `cert` and `key` are for servers that demand a certificate; `key` None means
    that it is in the same file. Raises `TLSError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context)
    if ca is None:
        context.load_default_certs()
    else:
        _load_authorities(context, ca)
    if cert is not None:
        _load_certificate(context, cert, key)
    elif key is not None:
        raise TLSError(f"{key}: a key is of no use without its certificate")
    return context


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # so that a send never has to wait for input


def _load_certificate(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    def refuse() -> str:  # otherwise OpenSSL asks for a password at the terminal
        how = "decrypt it with `openssl pkey -in FILE -out NEWFILE`"
        raise TLSError(f"{key or cert}: the key is encrypted; {how}")

    try:
        context.load_cert_chain(cert, key, refuse)
    except OSError as exc:  # ssl.SSLError is one, too
        _diagnose(cert, "CERTIFICATE", "certificate")
        _diagnose(key or cert, "PRIVATE KEY", "private key")
        if "MISMATCH" in reason(exc):
            raise TLSError(
                f"{key or cert}: this is not the key of the certificate in {cert}"
            ) from exc
        raise _unreadable(f"{cert} or {key}" if key else cert, exc) from exc


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as exc:
        _diagnose(path, "CERTIFICATE", "certificate")
        raise _unreadable(path, exc) from exc


def _unreadable(files: str, exc: OSError) -> TLSError:
    return TLSError(
        f"{files}: OpenSSL cannot read it ({explain(exc)}); is it damaged, or cut short?"
    )


def _diagnose(path: str, label: str, what: str) -> None:
    """Raise `TLSError` if OpenSSL refused a PEM file (RFC 7468) for one of the usual reasons."""
    try:
        text = Path(path).read_bytes()
    except OSError as exc:
        raise TLSError(f"{path}: {exc.strerror}") from exc
    if f"{label}-----".encode() not in text:
        raise TLSError(f"{path}: there is no {what} in it; it must be a PEM file")
