"""What certificates say, as far as the standard library does not tell: how long they are valid."""

import base64
import datetime as dt
import re

import attrs

# RFC 7468, 5; the longer labels are OpenSSL's
_CERTIFICATE = re.compile(
    rb"-----BEGIN ((?:X509 |TRUSTED )?CERTIFICATE)-----([^-]*)-----END \1-----"
)

# Tags of X.690, 8.1.2
_INTEGER, _BIT_STRING, _SEQUENCE, _EXPLICIT_0 = 0x02, 0x03, 0x30, 0xA0
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18

_DIGITS = {_UTC_TIME: 12, _GENERALIZED_TIME: 14}


@attrs.frozen
class Validity:
    """When a certificate is valid, in UTC: from the first moment to the last."""

    not_before: dt.datetime
    not_after: dt.datetime


def certificates_in(pem: bytes) -> list[bytes]:
    """Return the certificates of a PEM text (RFC 7468), each as a PEM text of its own."""
    return [match[0] + b"\n" for match in _CERTIFICATE.finditer(pem)]


def validity(pem: bytes) -> Validity:
    """Return how long the first certificate of a PEM text is valid (RFC 5280, 4.1.2.5).

    Raises `ValueError` with a sentence, which names parts as the RFC does, if there is none, or if
    it is not encoded as it must be: OpenSSL lets more pass than DER.
    """
    match = _CERTIFICATE.search(pem)
    if match is None:
        raise ValueError("there is no certificate in it")
    try:
        data = base64.b64decode(b"".join(match[2].split()), validate=True)
    except ValueError as exc:
        raise ValueError("the certificate is not encoded in base64") from exc
    certificate, rest = _take(data, _SEQUENCE, "Certificate")
    _demand_end(rest, "Certificate")
    body, rest = _take(certificate, _SEQUENCE, "tbsCertificate")
    _, rest = _take(rest, _SEQUENCE, "signatureAlgorithm")
    _, rest = _take(rest, _BIT_STRING, "signatureValue")
    _demand_end(rest, "signatureValue")
    if body[:1] == bytes([_EXPLICIT_0]):  # the first version of X.509 has no number
        version, body = _take(body, _EXPLICIT_0, "version")
        _, rest = _take(version, _INTEGER, "version")
        _demand_end(rest, "version")
    _, body = _take(body, _INTEGER, "serialNumber")
    _, body = _take(body, _SEQUENCE, "signature")
    _, body = _take(body, _SEQUENCE, "issuer")
    times, _ = _take(body, _SEQUENCE, "validity")
    not_before, times = _take_time(times, "notBefore")
    not_after, times = _take_time(times, "notAfter")
    _demand_end(times, "notAfter")
    return Validity(not_before, not_after)


def _take(data: bytes, tag: int, name: str) -> tuple[bytes, bytes]:
    """Return the contents of the element at the beginning, which must be this, and the rest."""
    found, contents, rest = _split(data, name)
    if found != tag:
        raise ValueError(f"{name} has the tag {found}, and not {tag}")
    return contents, rest


def _split(data: bytes, name: str) -> tuple[int, bytes, bytes]:
    """Return tag and contents of the element at the beginning, and the rest (X.690, 8.1, 10.1)."""
    if len(data) < 2:
        raise ValueError(f"{name} is missing")
    tag, length, start = data[0], data[1], 2
    if length > 0x7F:  # that many bytes, with the bit 8 set, hold the length
        start += length & 0x7F
        number = data[2:start]
        length = int.from_bytes(number, "big")
        if length <= 0x7F or number[0] == 0:
            raise ValueError(f"the length of {name} is not encoded in DER")
    end = start + length
    if end > len(data):
        raise ValueError(f"{name} is cut short")
    return tag, data[start:end], data[end:]


def _demand_end(rest: bytes, name: str) -> None:
    if rest:
        raise ValueError(f"something follows {name}")


def _take_time(data: bytes, name: str) -> tuple[dt.datetime, bytes]:
    """Return the time at the beginning, and the rest."""
    tag, contents, rest = _split(data, name)
    try:
        return _time(tag, contents), rest
    except ValueError as exc:
        raise ValueError(f"{name} is not a time as in RFC 5280") from exc


def _time(tag: int, contents: bytes) -> dt.datetime:
    """Return a time in one of the two forms that RFC 5280 allows, or raise `ValueError`."""
    digits = contents.removesuffix(b"Z")
    if digits == contents or not digits.isdigit() or len(digits) != _DIGITS.get(tag):
        raise ValueError(contents)
    if tag == _UTC_TIME:  # from 1950 to 2049
        digits = (b"19" if digits >= b"50" else b"20") + digits
    return dt.datetime.strptime(f"{digits.decode()}+0000", "%Y%m%d%H%M%S%z")
