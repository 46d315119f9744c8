"""How long a certificate is valid, as its encoding says; which certificates a file holds."""

import datetime as dt
import re
from base64 import encodebytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greeter_trio._net.certificates import Validity, certificates_in, validity
from tests.support.certificates import Authority

HOST = "localhost"
PEM = b"-----BEGIN %b-----\n%b-----END %b-----\n"


def utc(*numbers: int) -> dt.datetime:
    year, month, day, *time = numbers
    hour, minute, second = time or (0, 0, 0)
    return dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC)


def pem(data: bytes, label: bytes = b"CERTIFICATE") -> bytes:
    return PEM % (label, encodebytes(data), label)


def der(tag: int, *contents: bytes) -> bytes:
    """Return an element of DER (X.690, 8.1 and 10.1)."""
    data = b"".join(contents)
    if len(data) < 128:
        return bytes([tag, len(data)]) + data
    length = len(data).to_bytes(1 + (len(data) > 255), "big")
    return bytes([tag, 0x80 + len(length)]) + length + data


VERSION, NUMBER, NAME = der(0xA0, der(2, b"\2")), der(2, b"\1"), der(0x30)
EARLY, LATE = der(0x17, b"491231235959Z"), der(0x18, b"20500101000000Z")
TIMES = der(0x30, EARLY, LATE)
REST = der(0x30, bytes(200))
END = der(0x30), der(3, bytes(200))


def certificate(times: bytes = TIMES, *, version: bytes = VERSION, number: bytes = NUMBER) -> bytes:
    """Return the parts of a certificate that are looked at, and something for the others."""
    return der(0x30, der(0x30, version, number, NAME, NAME, times, REST), *END)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (utc(2000, 1, 1), utc(2000, 12, 31, 23, 59, 59)),  # it has expired
        (utc(2025, 2, 28, 1, 2, 3), utc(2049, 12, 31, 23, 59, 59)),
        (utc(1999, 12, 31), utc(2050, 1, 1)),  # from here on they have four digits
        (utc(1950, 1, 1), utc(9999, 12, 31, 23, 59, 59)),
    ],
)
def test_validity(authority: Authority, first: dt.datetime, last: dt.datetime) -> None:
    leaf = authority.ca.issue_cert(HOST, not_before=first, not_after=last)
    assert validity(leaf.cert_chain_pems[0].bytes()) == Validity(first, last)
    assert validity(leaf.private_key_and_cert_chain_pem.bytes()) == Validity(first, last)


@pytest.mark.parametrize(
    "data",
    [
        certificate(),
        certificate(version=b""),  # X.509 v1
        certificate(number=der(2, bytes([1] * 130))),
    ],
)
@pytest.mark.parametrize("label", [b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"])
def test_encodings(data: bytes, label: bytes) -> None:
    expected = Validity(utc(2049, 12, 31, 23, 59, 59), utc(2050, 1, 1))
    for text in (pem(data, label), pem(data, label).replace(b"\n", b"\r\n")):
        assert validity(b"Explanation\n" + text + pem(b"nonsense")) == expected


def times(first: bytes, last: bytes = LATE) -> bytes:
    return certificate(der(0x30, first, last))


AS_IN_RFC = "is not a time as in RFC 5280"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "there is no certificate in it"),
        (pem(b"", b"PRIVATE KEY"), "there is no certificate in it"),
        (pem(certificate())[:-8], "there is no certificate in it"),
        (pem(b"").replace(b"\n", b"\n!", 1), "the certificate is not encoded in base64"),
        (pem(b"").replace(b"\n", b"\nA", 1), "the certificate is not encoded in base64"),
        (pem(b""), "Certificate is missing"),
        (pem(b"\x30"), "Certificate is missing"),
        (pem(b"\x31\0"), "Certificate has the tag 49, and not 48"),
        (pem(b"\x30\1"), "Certificate is cut short"),
        (pem(certificate()[:-1]), "Certificate is cut short"),
        (pem(b"\x30\x80\0\0"), "the length of Certificate is not encoded in DER"),
        (pem(b"\x30\x81\x7f"), "the length of Certificate is not encoded in DER"),
        (pem(b"\x30\x82\0\xff"), "the length of Certificate is not encoded in DER"),
        (pem(b"\x30\xff\xff"), "Certificate is cut short"),
        (pem(certificate() + b"\0"), "something follows Certificate"),
        (pem(der(0x30)), "tbsCertificate is missing"),
        (pem(der(0x30, der(0x30))), "signatureAlgorithm is missing"),
        (pem(der(0x30, der(0x30), der(0x30))), "signatureValue is missing"),
        (pem(der(0x30, der(0x30), *END, b"\0")), "something follows signatureValue"),
        (pem(certificate(version=der(0xA0))), "version is missing"),
        (pem(certificate(version=der(0xA0, NUMBER, NUMBER))), "something follows version"),
        (pem(certificate(number=b"")), "serialNumber has the tag 48, and not 2"),
        (pem(certificate(der(0x30))), "notBefore is missing"),
        (pem(certificate(der(0x30, EARLY))), "notAfter is missing"),
        (pem(certificate(der(0x30, EARLY, LATE, LATE))), "something follows notAfter"),
        (pem(times(der(0x17, b"2501010000Z"))), f"notBefore {AS_IN_RFC}"),
        (pem(times(der(0x17, b"250101000000+"))), f"notBefore {AS_IN_RFC}"),
        (pem(times(der(0x17, b"2501010000 0Z"))), f"notBefore {AS_IN_RFC}"),
        (pem(times(der(0x17, b"250229000000Z"))), f"notBefore {AS_IN_RFC}"),
        (pem(times(EARLY, der(0x18, b"250101000000Z"))), f"notAfter {AS_IN_RFC}"),
        (pem(times(EARLY, der(0x18, b"00000101000000Z"))), f"notAfter {AS_IN_RFC}"),
        (pem(times(EARLY, der(0x18, b"20500101000060Z"))), f"notAfter {AS_IN_RFC}"),
        (pem(times(EARLY, der(0x18, b"20500101000000.5Z"))), f"notAfter {AS_IN_RFC}"),
        (pem(times(EARLY, der(0x16, b"20500101000000Z"))), f"notAfter {AS_IN_RFC}"),
    ],
)
def test_wrong_encodings(text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        validity(text)


ANY = st.binary(max_size=300)


@given(ANY | ANY.map(pem) | st.builds(der, st.just(0x30), ANY, ANY).map(pem))
def test_garbage(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"^[A-Za-z0-9 ',-]+$"):
        validity(text)


@given(st.data())
def test_damage(data: st.DataObject) -> None:
    """Of a damaged certificate a time is found, perhaps another one, or a sentence says no."""
    whole = certificate()
    place = data.draw(st.integers(0, len(whole)))
    damaged = whole[:place] + data.draw(st.binary(max_size=3)) + whole[place + 1 :]
    try:
        assert isinstance(validity(pem(damaged)), Validity)
    except ValueError as exc:
        assert re.fullmatch(r"[A-Za-z0-9 ',-]+", str(exc))  # noqa: PT017 - or there is none


def test_certificates_of_a_text(authority: Authority) -> None:
    """Keys, comments and what is cut short are passed over."""
    leaf = authority.ca.create_child_ca().issue_cert(HOST)
    chain = [each.bytes() for each in leaf.cert_chain_pems]
    text = b"\xc3\xa9\n".join([leaf.private_key_pem.bytes(), *chain, chain[0][:-10]])
    assert certificates_in(text) == chain
