"""Certificates for tests of TLS, made when they are needed."""

import ssl
from pathlib import Path

import attrs
import trustme

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

    def server(self, host: str = "localhost") -> ssl.SSLContext:
        """Return what a server needs, with a new certificate for this host."""
        return server_context(self.issue(host), None)

    def client(self) -> ssl.SSLContext:
        """Return what a client needs that trusts this CA."""
        return client_context(self.path)
