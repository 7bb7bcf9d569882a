"""TLS certificates of the cluster: one certificate authority per start."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

LOOPBACK = ("127.0.0.1", "localhost", "kubernetes.default.svc")
"""Names that every server certificate holds."""


class CertificateAuthority:
    """A certificate authority that lives as long as the cluster. Its private key never leaves memory."""

    def __init__(self) -> None:
        self._authority = trustme.CA(organization_name="mlops laptop")

    @property
    def certificate(self) -> bytes:
        """The authority's certificate, PEM. Clients that trust it trust every server of the cluster."""
        return self._authority.cert_pem.bytes()

    def write(self, path: Path) -> None:
        """Write the authority's certificate to a file."""
        path.write_bytes(self.certificate)

    def server_context(self, *names: str, loopback: bool = True) -> ssl.SSLContext:
        """Return a TLS context for a server on 127.0.0.1.

        Args:
            names: host names that the certificate holds.
            loopback: True for a certificate that holds those of the loopback address, too.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._authority.issue_cert(*(LOOPBACK if loopback else ()), *names).configure_cert(context)
        return context
