"""TLS contexts from files and pipes, and what is said of files that cannot be used."""

import datetime as dt
import os
import re
import ssl
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from greeter_trio._net import pem_files
from greeter_trio._net.pem_files import PemFile
from greeter_trio._net.tls_contexts import (
    TLSError,
    client_context,
    server_certificate,
    server_context,
)
from tests.support.certificates import Authority

HOST = "localhost"
LAST = dt.datetime(2060, 1, 1, tzinfo=dt.UTC)


def secret(key: bytes, passphrase: bytes) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    )


def in_der(key: bytes) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def damaged(pem: bytes) -> bytes:
    first, _, *lines = pem.splitlines(keepends=True)
    return b"".join([first, b"!" * 64 + b"\n", *lines])


@pytest.fixture(scope="module")
def contents(authority: Authority) -> dict[str, bytes]:
    """Return what right and wrong files hold, by their names."""
    leaf = authority.ca.create_child_ca().issue_cert(HOST, not_after=LAST)
    key = leaf.private_key_pem.bytes()
    cert, intermediate = (each.bytes() for each in leaf.cert_chain_pems)
    other_kind = authority.ca.issue_cert(HOST, key_type=trustme.KeyType.RSA)
    root = authority.ca.cert_pem.bytes()
    return {
        "cert": cert + intermediate,
        "key": key,
        "all": key + cert + intermediate,
        "ca": "Tanúsítványok\n".encode() + root,
        "other": authority.ca.issue_cert(HOST).private_key_pem.bytes(),
        "both": authority.ca.issue_cert(HOST).private_key_pem.bytes() + cert,
        "rsa": other_kind.private_key_pem.bytes(),
        "secret": secret(key, b"passphrase"),
        "reversed": root + intermediate + cert,
        "reversed with key": key + intermediate + cert,
        "reversed rsa": root + other_kind.cert_chain_pems[0].bytes(),
        "damaged": damaged(cert),
        "damaged end": cert + damaged(intermediate),
        "damaged key": damaged(key),
        "cut": cert + intermediate[:-40],
        "cut key": key[:-10],
        "empty": b"",
        "text": b"Greeter\n",
        "number": b"0 certificates\n",
        "der": ssl.PEM_cert_to_DER_cert(cert.decode()),
        "der key": in_der(key),
        "utf-16": cert.decode().encode("utf-16"),
        "utf-16 key": key.decode().encode("utf-16-be"),
        "long": b" " * (pem_files._MOST + 1),
    }


@pytest.fixture
def _files(contents: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in a folder with all of them."""
    monkeypatch.chdir(tmp_path)
    for name, data in contents.items():
        Path(name).write_bytes(data)


PEM = "it must be a PEM file"
NO_CERTIFICATE = f"there is no certificate in it; {PEM}"
NO_KEY = f"there is no private key in it; {PEM}"
MISSING = "missing: No such file or directory"
NO_END = "it is cut short: a certificate in it has no end"
BAD_KEY = "the private key in it is damaged, or of an unknown kind"
BAD = "a certificate in it is damaged"
ENCRYPTED = "the key is encrypted; decrypt it with `openssl pkey -in FILE -out NEWFILE`"
ORDER = "the certificates are in the wrong order: the {}'s own must come first, and then those of"
ORDER += " the CAs that signed it"


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize(
    ("ca", "cert", "key", "message"),
    [
        (None, "missing", "key", MISSING),
        (None, "cert", "missing", MISSING),
        ("missing", "cert", "key", MISSING),
        (None, "", None, "'': No such file or directory"),
        (None, ".", "key", ".: it is a folder"),
        ("ca", "cert", ".", ".: it is a folder"),
        (None, "a\0b", "key", r"'a\x00b': no file can have this name"),
        (None, "a\nb", "key", r"'a\nb': No such file or directory"),
        (None, "empty", "key", "empty: it is empty"),
        (None, "long", "key", "long: it is longer than any PEM file"),
        (None, "key", "key", f"key: {NO_CERTIFICATE}"),
        ("key", "cert", "key", f"key: {NO_CERTIFICATE}"),
        (None, "text", None, f"text: {NO_CERTIFICATE}"),
        (None, "number", None, f"number: {NO_CERTIFICATE}"),
        (None, "der", "key", f"der: {NO_CERTIFICATE}, not DER or PKCS #12"),
        ("der", "cert", "key", f"der: {NO_CERTIFICATE}, not DER or PKCS #12"),
        (None, "utf-16", "key", f"utf-16: {NO_CERTIFICATE}, not UTF-16 text"),
        (None, "cert", "cert", f"cert: {NO_KEY}"),
        (None, "cert", None, f"cert: {NO_KEY}"),
        (None, "cert", "text", f"text: {NO_KEY}"),
        (None, "cert", "der key", f"der key: {NO_KEY}, not DER or PKCS #12"),
        (None, "cert", "utf-16 key", f"utf-16 key: {NO_KEY}, not UTF-16 text"),
        (None, "cert", "other", "other: this is not the key of the certificate in cert"),
        (None, "cert", "rsa", "rsa: this is not the key of the certificate in cert"),
        (None, "both", None, "both: the key in it is not the key of the certificate in it"),
        (None, "reversed", "key", f"reversed: {ORDER}"),
        (None, "reversed with key", None, f"reversed with key: {ORDER}"),
        (None, "reversed rsa", "rsa", f"reversed rsa: {ORDER}"),
        (None, "reversed", "other", "other: this is not the key of the certificate in reversed"),
        (None, "cert", "secret", f"secret: {ENCRYPTED}"),
        (None, "damaged", "key", f"damaged: {BAD}"),
        (None, "damaged end", "key", f"damaged end: {BAD}"),
        ("damaged end", "cert", "key", f"damaged end: {BAD}"),
        (None, "cert", "damaged key", f"damaged key: {BAD_KEY}"),
        (None, "cut", "key", f"cut: {NO_END}"),
        ("cut", "cert", "key", f"cut: {NO_END}"),
        (None, "cert", "cut key", "cut key: it is cut short: a private key in it has no end"),
        (None, None, "key", "key: a key is of no use without its certificate"),
    ],
)
def test_files_that_cannot_be_used(
    ca: str | None, cert: str | None, key: str | None, message: str
) -> None:
    """The error names the file, for both roles; no passphrase is asked for at the terminal."""
    with pytest.raises(TLSError, match=f"^{re.escape(message.format('client'))}$"):
        client_context(ca, cert, key)
    if cert is not None:
        with pytest.raises(TLSError, match=f"^{re.escape(message.format('server'))}$"):
            server_context(cert, key, ca)


@pytest.mark.usefixtures("_files")
def test_files_that_can_be_used() -> None:
    for cert, key in (("cert", "key"), ("all", None), ("all", "all"), ("all", "key")):
        assert len(client_context("ca", cert, key).get_ca_certs()) == 1
        assert server_context(cert, key, "ca").verify_mode == ssl.CERT_REQUIRED


def test_a_file_that_must_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "cert"
    path.write_bytes(b"secret")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(TLSError, match=f"^{re.escape(str(path))}: Permission denied$"):
        server_context(str(path), None)


def test_a_certificate_that_openssl_refuses(authority: Authority) -> None:
    """Its key is too short for the security level that the system, or Python, prescribes."""
    path = authority.save_for(rsa.generate_private_key(65537, 1024))
    why = "OpenSSL does not accept this certificate or its key (the key is too short)"
    with pytest.raises(TLSError, match=f"^{re.escape(f'{path}: {why}')}$"):
        server_context(path, None)


def test_validity_comes_with_the_context(contents: dict[str, bytes], tmp_path: Path) -> None:
    """Whether OpenSSL has read a certificate that is not quite right, or not."""
    path = tmp_path / "all.pem"
    path.write_bytes(contents["all"])
    loaded = server_certificate(str(path), None)
    assert loaded.validity
    assert loaded.validity.not_after == LAST
    der = contents["der"].replace(b"20600101000000Z", b"2060010100000Z0")
    path.write_bytes(contents["key"] + ssl.DER_cert_to_PEM_cert(der).encode())
    assert server_certificate(str(path), None).validity is None


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such devices")
@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero"])
def test_devices_are_refused(path: str) -> None:
    with pytest.raises(TLSError, match=f"^{path}: it is neither a file nor a pipe$"):
        client_context(path)


@pytest.fixture(params=["memory", "file"])
def temporary(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Return the folder for temporary files; have none in memory, or else where it is possible."""
    if request.param == "file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def test_copies_are_for_nobody_else(temporary: Path) -> None:
    """And they are gone afterwards."""
    data = bytes(range(256)) * 1000
    with PemFile("pipe", data).opened() as name:
        path = Path(name)
        assert path.read_bytes() == data
        for file in temporary.iterdir():
            assert file == path
            assert sys.platform == "win32" or stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not path.exists()


def test_a_copy_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    why = "what it holds cannot be copied for OpenSSL: No such file or directory"
    with pytest.raises(TLSError, match=f"^pipe: {why}$"), PemFile("pipe", b"data").opened():
        pass


if sys.platform != "win32":

    @pytest.fixture
    def pipes() -> Iterator["Pipes"]:
        pipes = Pipes()
        yield pipes
        pipes.close()

    class Pipes:
        """Pipes as a shell's `<(cat FILE)` makes them."""

        def __init__(self) -> None:
            self._open: list[int] = []

        def __call__(self, data: bytes) -> str:
            """Return the path of a pipe that holds this, and whose writer has gone."""
            out, into = os.pipe()
            self._open.append(out)
            os.write(into, data)
            os.close(into)
            return f"/dev/fd/{out}"

        def close(self) -> None:
            for number in self._open:
                os.close(number)

    @pytest.mark.usefixtures("temporary")
    def test_pipes(contents: dict[str, bytes], pipes: Pipes) -> None:
        """Each is read once, also one that holds everything."""
        whole = contents["all"] + contents["ca"]
        path = pipes(whole)
        assert server_context(path, path, path).verify_mode == ssl.CERT_REQUIRED
        path = pipes(whole)
        assert len(client_context(path, path).get_ca_certs()) == 2  # with the intermediate
        loaded = server_certificate(
            pipes(contents["cert"]), pipes(contents["key"]), pipes(contents["ca"])
        )
        assert loaded.validity
        assert loaded.validity.not_after == LAST

    @pytest.mark.usefixtures("temporary")
    @pytest.mark.parametrize(
        ("cert", "key", "message"),
        [
            ("reversed", "key", f"CERT: {ORDER.format('server')}"),
            ("cert", "other", "KEY: this is not the key of the certificate in CERT"),
            ("cert", "secret", f"KEY: {ENCRYPTED}"),
            ("empty", "key", "CERT: it is empty"),
            ("damaged", "key", f"CERT: {BAD}"),
        ],
    )
    def test_pipes_that_cannot_be_used(
        contents: dict[str, bytes], pipes: Pipes, cert: str, key: str, message: str
    ) -> None:
        paths = {"CERT": pipes(contents[cert]), "KEY": pipes(contents[key])}
        says = re.sub("CERT|KEY", lambda match: paths[match[0]], message)
        with pytest.raises(TLSError, match=f"^{re.escape(says)}$"):
            server_context(*paths.values())

    def test_a_pipe_cannot_be_read_again(tmp_path: Path) -> None:
        """To try it would block for as long as nobody writes."""
        path = tmp_path / "pipe"
        os.mkfifo(path)
        why = "it is a pipe, which can be read only once, at the start"
        with pytest.raises(TLSError, match=f"^{re.escape(f'{path}: {why}')}$"):
            server_certificate(str(path), None, again=True)
