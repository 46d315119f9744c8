"""Certificates for tests of TLS, made when they are needed."""

import datetime as dt
import ssl
from pathlib import Path

import attrs
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from greeter_trio._net.tls_contexts import client_context, server_context


@attrs.frozen
class Authority:
    """A CA of the tests' own, and a folder for what it signs."""

    folder: Path
    ca: trustme.CA = attrs.field(factory=trustme.CA)

    @property
    def path(self) -> str:
        """Its own certificate, as a PEM file."""
        path = self.folder / "ca.pem"
        self.ca.cert_pem.write_to_path(path)
        return str(path)

    def issue(self, *names: str) -> str:
        """Return a PEM file with a new key and its certificate, for these hosts."""
        return self.save(self.ca.issue_cert(*names))

    def save(self, leaf: trustme.LeafCert) -> str:
        path = self.folder / f"{len(list(self.folder.iterdir()))}.pem"
        leaf.private_key_and_cert_chain_pem.write_to_path(path)
        return str(path)

    def save_for(self, key: rsa.RSAPrivateKey, extension: x509.ExtensionType | None = None) -> str:
        """Return a PEM file with this key and a certificate with this extension, and no other."""
        now, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
        builder = x509.CertificateBuilder(
            issuer_name=x509.load_pem_x509_certificate(self.ca.cert_pem.bytes()).subject,
            subject_name=x509.Name([]),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - day,
            not_valid_after=now + day,
        )
        if extension:
            builder = builder.add_extension(extension, critical=True)
        signer = serialization.load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        cert = builder.sign(signer, hashes.SHA256())
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        path = self.folder / f"{len(list(self.folder.iterdir()))}.pem"
        path.write_bytes(
            key.private_bytes(pem, form, serialization.NoEncryption()) + cert.public_bytes(pem)
        )
        return str(path)

    def server(self, host: str = "localhost") -> ssl.SSLContext:
        """Return what a server needs, with a new certificate for this host."""
        return server_context(self.issue(host), None)

    def client(self) -> ssl.SSLContext:
        """Return what a client needs that trusts this CA."""
        return client_context(self.path)
