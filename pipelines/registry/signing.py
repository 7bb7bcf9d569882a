"""Signed statements: in-toto Statement v1 in a DSSE envelope, signed with a KMS key and verified offline.

Sources: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and
https://github.com/secure-systems-lab/dsse/blob/master/protocol.md.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

from botocore.exceptions import BotoCoreError, ClientError
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import Field, StringConstraints

from pipelines.declarations.digests import canonical_json
from pipelines.declarations.documents import Declaration, first_problem
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import Name
from pipelines.registry import clients

STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD = "application/vnd.in-toto+json"
LARGEST_MESSAGE = 4096
"""Size limit of a signed message, in bytes: KMS's limit for messages of type RAW."""

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order of the curve P-256 (NIST SP 800-186)."""

LARGEST_ENVELOPE = 16 << 10
"""Size limit of an envelope, in bytes: the largest message in base64, and its signatures."""


class BadSignatureError(MlopsError):
    """The envelope is malformed, or not signed by a trusted key."""


class Subject(Declaration):
    """Subject of a statement.

    Attributes:
        name: human-readable name.
        digest: algorithm → hexadecimal digits; the algorithm is always sha256.
    """

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    digest: dict[Literal["sha256"], Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]] = Field(min_length=1)


class Statement(Declaration):
    """In-toto Statement v1.

    Attributes:
        subject: what the statement is about.
        predicate_type: URI that defines the keys of the predicate.
        predicate: content of the statement.
    """

    type: Literal["https://in-toto.io/Statement/v1"] = Field("https://in-toto.io/Statement/v1", alias="_type")
    subject: Annotated[tuple[Subject, ...], Field(min_length=1, max_length=8)]
    predicate_type: Annotated[str, StringConstraints(min_length=1, max_length=256)] = Field(alias="predicateType")
    predicate: dict[str, Any]

    @classmethod
    def about(cls, name: str, digest: str, predicate_type: str, predicate: Mapping[str, Any]) -> Statement:
        """Make a statement about one subject with this name and `sha256:` digest."""
        subject = {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}
        value = {"subject": [subject], "predicateType": predicate_type, "predicate": dict(predicate)}
        return cls.model_validate_json(json.dumps({"_type": STATEMENT, **value}))

    def payload(self) -> bytes:
        """Return the canonical bytes to sign."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))


class Signature(Declaration):
    """Signature of an envelope.

    Attributes:
        keyid: environment whose key signed.
        sig: DER-encoded ECDSA signature in the form that `normalize` returns, in base64.
    """

    keyid: Name
    sig: Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Envelope(Declaration):
    """DSSE envelope with one signature."""

    payload_type: Literal["application/vnd.in-toto+json"] = Field("application/vnd.in-toto+json", alias="payloadType")
    payload: Annotated[str, StringConstraints(min_length=1, max_length=2 * LARGEST_MESSAGE)]
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1, max_length=1)]

    def to_bytes(self) -> bytes:
        """Return the canonical bytes to store."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))


@dataclass(frozen=True)
class Verified:
    """Statement signed by a trusted key.

    Attributes:
        statement: the statement.
        signer: environment whose key signed it.
    """

    statement: Statement
    signer: str


def encode(payload_type: str, payload: bytes) -> bytes:
    """Encode a payload for signing: the Pre-Authentication Encoding (PAE) of the DSSE protocol."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(statement: Statement, key_arn: str, signer: str) -> Envelope:
    """Sign a statement with KMS (ECDSA_SHA_256, message type RAW).

    Args:
        statement: the statement.
        key_arn: signing key of the environment (ECC_NIST_P256).
        signer: name of the environment, by which verifiers find the public key.

    Raises:
        MlopsError: the statement is too large, or KMS did not sign it.
    """
    payload = statement.payload()
    message = encode(PAYLOAD, payload)
    if len(message) > LARGEST_MESSAGE:
        raise MlopsError(
            f"the statement is too large to sign: expected at most {LARGEST_MESSAGE} bytes, found {len(message)}",
            fix="include the digest of a document instead of the document",
        )
    try:
        answer = clients.client("kms").sign(
            KeyId=key_arn, Message=message, MessageType="RAW", SigningAlgorithm="ECDSA_SHA_256"
        )
    except ClientError as error:
        clients.refuse_wrong_clock(error, f"kms:Sign with {key_arn}")
        code = error.response.get("Error", {}).get("Code", "")
        denied = code in ("AccessDeniedException", "AccessDenied")
        fix = "grant the caller's role kms:Sign on this key" if denied else "check the state and usage of the key"
        if clients.is_outage(error):
            fix = clients.AFTER_AN_OUTAGE
        raise MlopsError(f"the key {key_arn} did not sign: {error}", fix=fix) from None
    except BotoCoreError as error:
        raise MlopsError(
            f"the key {key_arn} did not sign: {error}", fix="check the AWS credentials, region and endpoint"
        ) from None
    signature = Signature(keyid=signer, sig=base64.b64encode(normalize(answer["Signature"])).decode())
    return Envelope(payload=base64.b64encode(payload).decode(), signatures=(signature,))


def normalize(signature: bytes) -> bytes:
    """Return an ECDSA signature in the one form that `verify` accepts.

    If (r, s) is a valid signature, so is (r, n - s). Only the one with the smaller s is accepted, in its only DER
    encoding. So an envelope cannot be changed into another one, with another digest, that verifies too.

    Raises:
        ValueError: it is not a DER-encoded signature.
    """
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, min(s, ORDER - s))


def verify(
    envelope: bytes,
    trusted_keys: Mapping[str, str],
    *,
    subject: str | None = None,
    predicate_type: str | None = None,
    what: str = "the envelope",
) -> Verified:
    """Verify that a trusted key signed an envelope, and that its statement is the expected one. Works offline.

    Args:
        envelope: untrusted bytes of the envelope.
        trusted_keys: environment → PEM of its public key (ECC_NIST_P256).
        subject: `sha256:` digest that must be the statement's only subject; None for any.
        predicate_type: required type of the predicate; None for any.
        what: name of the envelope in errors.

    Raises:
        BadSignatureError: the envelope is malformed, too large, not signed by a trusted key, or about something else.
    """
    if len(envelope) > LARGEST_ENVELOPE:
        raise BadSignatureError(
            f"{what} is too large: expected at most {LARGEST_ENVELOPE} bytes, found {len(envelope)}"
        )
    try:
        parse_json(envelope)
        parsed = Envelope.model_validate_json(envelope)
        payload = _decode(parsed.payload)
        if parsed.to_bytes() != envelope:
            raise ValueError("the JSON is not in canonical form (RFC 8785)")
    except ValueError as error:
        raise BadSignatureError(
            f"{what} is not a DSSE envelope of an in-toto statement: {first_problem(error)}"
        ) from None
    message = encode(PAYLOAD, payload)
    signer = next((s.keyid for s in parsed.signatures if _signed(message, s, trusted_keys)), None)
    if signer is None:
        found = ", ".join(repr(s.keyid) for s in parsed.signatures)
        known = ", ".join(sorted(trusted_keys)) or "none"
        raise BadSignatureError(
            f"{what} has no valid signature by a trusted key: expected one of {known}, found {found}",
            fix="do not use the bundle; train again, and find out who wrote the envelope",
        )
    # The payload is parsed only after its signature is verified.
    try:
        parse_json(payload)
        statement = Statement.model_validate_json(payload)
    except ValueError as error:
        raise BadSignatureError(f"{what} does not hold an in-toto Statement v1: {first_problem(error)}") from None
    if predicate_type is not None and statement.predicate_type != predicate_type:
        raise BadSignatureError(
            f"{what} has the wrong predicate type: expected {predicate_type}, found {statement.predicate_type}"
        )
    about = [f"sha256:{s.digest['sha256']}" for s in statement.subject]
    if subject is not None and about != [subject]:
        raise BadSignatureError(
            f"{what} is about another subject: expected {subject}, found {', '.join(about)}",
            fix="train again; evidence cannot be moved from one digest to another",
        )
    return Verified(statement, signer)


def read_unverified(envelope: bytes) -> Statement:
    """Read the statement in an envelope without verifying it. Never base a decision on it.

    Raises:
        BadSignatureError: the envelope is malformed.
    """
    try:
        parse_json(envelope)
        payload = _decode(Envelope.model_validate_json(envelope).payload)
        parse_json(payload)
        return Statement.model_validate_json(payload)
    except ValueError as error:
        raise BadSignatureError(f"not a DSSE envelope of an in-toto statement: {first_problem(error)}") from None


def _signed(message: bytes, signature: Signature, trusted_keys: Mapping[str, str]) -> bool:
    pem = trusted_keys.get(signature.keyid)
    if pem is None:
        return False
    key = _public_key(pem, signature.keyid)
    try:
        content = _decode(signature.sig)
        if normalize(content) != content:
            return False
        # The algorithm is fixed; the envelope must not choose it.
        key.verify(content, message, ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


@lru_cache(maxsize=64)
def _public_key(pem: str, signer: str) -> ec.EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MlopsError(f"the trusted key of {signer} is not a PEM public key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MlopsError(f"the trusted key of {signer} is not an ECC_NIST_P256 key")
    return key


def _decode(text: str) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if base64.b64encode(content).decode() != text:
        raise ValueError("base64 is not in canonical form")
    return content


def parse_json(content: bytes) -> Any:
    """Parse untrusted JSON strictly.

    Raises:
        ValueError: the content is not JSON, has a duplicate key, NaN or Infinity, or is nested too deeply.
    """

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("duplicate key")
        return value

    def reject(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=without_duplicates, parse_constant=reject)
    except RecursionError:
        raise ValueError("nested too deeply") from None
