"""Certificates of Certificate Manager for tests."""

from __future__ import annotations

from typing import Any

import trustme


def import_certificate(acm: Any, name: str) -> str:
    """Import a certificate for a name, which a new authority has issued; return its ARN.

    Args:
        acm: client of Certificate Manager.
        name: DNS name.
    """
    authority = trustme.CA()
    made = authority.issue_cert(name)
    done = acm.import_certificate(
        Certificate=made.cert_chain_pems[0].bytes(),
        PrivateKey=made.private_key_pem.bytes(),
        CertificateChain=authority.cert_pem.bytes(),
    )
    return str(done["CertificateArn"])
