"""TLS contexts from files, with errors that say which file is wrong, and how."""

import functools
import ssl
from collections.abc import Callable
from functools import partial

import attrs

from .certificates import Validity, certificates_in, validity
from .pem_files import PemFile, TLSError
from .text import shown_path
from .tls_words import UNKNOWN, explain, reason

__all__ = [
    "ServerCertificate",
    "TLSError",
    "client_context",
    "server_certificate",
    "server_context",
]

# What OpenSSL says of a key that is not the certificate's; the second, if it is of another kind
_MISMATCH = ("MISMATCH", "NO_CERTIFICATE_ASSIGNED")


@attrs.frozen
class ServerCertificate:
    """A certificate that has been loaded, with its key."""

    context: ssl.SSLContext
    """What a server needs to speak TLS with it."""
    validity: Validity | None
    """When it is valid; None if it is not encoded as RFC 5280 demands, which OpenSSL forgives."""


def server_certificate(
    cert: str, key: str | None, client_ca: str | None = None, *, again: bool = False
) -> ServerCertificate:
    """Return what a server needs to speak TLS, 1.2 or newer, and when its certificate is valid.

    `cert` is a PEM file with its certificate, followed by the intermediate ones; `key` is one with
    its private key, and None means that it is in the same file. With `client_ca`, a PEM file,
    clients must show a certificate that one of these CAs signed. Raises `TLSError`.

    Each file is read once, and may be a pipe. Use `again` to load them once more while the server
    runs: a pipe cannot be read again, and is refused.
    """
    read = _reader(again=again)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")  # those of TLS 1.2; 1.3 has no weak ones
    # No session is resumed, and so the server's first record after the handshake is data. Only the
    # tickets of TLS 1.2 remain. Without them (OP_NO_TICKET) OpenSSL keeps those sessions itself,
    # 20,480 of them: 17 MB, or 220 MB with the certificates of clients.
    context.num_tickets = 0
    chain = read(cert)
    _load_certificate(context, chain, chain if key is None else read(key), "server")
    if client_ca is not None:
        _load_authorities(context, read(client_ca))
        context.verify_mode = ssl.CERT_REQUIRED
    try:
        return ServerCertificate(context, validity(chain.data))
    except ValueError:
        return ServerCertificate(context, None)


def server_context(cert: str, key: str | None, client_ca: str | None = None) -> ssl.SSLContext:
    """Return only the context of `server_certificate`."""
    return server_certificate(cert, key, client_ca).context


def client_context(
    ca: str | None = None, cert: str | None = None, key: str | None = None
) -> ssl.SSLContext:
    """Return what a client needs to speak TLS, 1.2 or newer.

    The server's certificate must be signed by a CA in the PEM file `ca`; None means the CAs that
    the system trusts. Its names are those in subjectAltName, and never the common name (RFC 9525,
    2). `cert` and `key` are for servers that demand a certificate; `key` None means that it is in
    the same file. Each file is read once, and may be a pipe. Raises `TLSError`.
    """
    read = _reader()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context)
    context.hostname_checks_common_name = False
    if ca is None:
        context.load_default_certs()
    else:
        _load_authorities(context, read(ca))
    if cert is not None:
        chain = read(cert)
        _load_certificate(context, chain, chain if key is None else read(key), "client")
    elif key is not None:
        raise TLSError(f"{shown_path(key)}: a key is of no use without its certificate")
    return context


def _reader(*, again: bool = False) -> Callable[[str], PemFile]:
    """Return what reads files, and each of them once, however often it is named."""
    return functools.cache(partial(PemFile.read, again=again))


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # so that a send never has to wait for input


def _load_certificate(context: ssl.SSLContext, cert: PemFile, key: PemFile, owner: str) -> None:
    def refuse() -> str:  # otherwise OpenSSL asks for a password at the terminal
        how = "decrypt it with `openssl pkey -in FILE -out NEWFILE`"
        raise TLSError(f"{key.name}: the key is encrypted; {how}")

    with cert.opened() as cert_path, key.opened() as key_path:
        try:
            context.load_cert_chain(cert_path, key_path, refuse)
        except OSError as exc:  # ssl.SSLError is one, too
            cert.demand("CERTIFICATE", "certificate")
            key.demand("PRIVATE KEY", "private key")
            if reason(exc).endswith(_MISMATCH):
                wrong = _mismatch(cert, key, key_path, owner)
            elif not _are_certificates(cert_path):
                wrong = f"{cert.name}: a certificate in it is damaged"
            elif reason(exc) == UNKNOWN:
                wrong = f"{key.name}: the private key in it is damaged, or of an unknown kind"
            else:  # such as a key that is too short
                what = "this certificate or its key"
                wrong = f"{cert.name}: OpenSSL does not accept {what} ({explain(exc)})"
            raise TLSError(wrong) from exc


def _mismatch(cert: PemFile, key: PemFile, key_path: str, owner: str) -> str:
    """Say why a key does not fit the first certificate of a file."""
    for block in certificates_in(cert.data)[1:]:
        with PemFile(cert.name, block).opened() as path:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, key_path)
            except OSError:
                continue
        return (
            f"{cert.name}: the certificates are in the wrong order: "
            f"the {owner}'s own must come first, and then those of the CAs that signed it"
        )
    if cert is key:
        return f"{key.name}: the key in it is not the key of the certificate in it"
    return f"{key.name}: this is not the key of the certificate in {cert.name}"


def _are_certificates(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:
        return False
    return True


def _load_authorities(context: ssl.SSLContext, ca: PemFile) -> None:
    with ca.opened() as path:
        try:
            context.load_verify_locations(path)
        except OSError as exc:
            ca.demand("CERTIFICATE", "certificate")
            raise TLSError(f"{ca.name}: a certificate in it is damaged") from exc
