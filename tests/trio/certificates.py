"""Certificates for tests of TLS, made when they are needed."""

from pathlib import Path

import attrs
import trustme


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
        """Return a PEM file with this key and certificate."""
        path = self.folder / f"{len(list(self.folder.iterdir()))}.pem"
        leaf.private_key_and_cert_chain_pem.write_to_path(path)
        return str(path)
