"""Signed statements: in-toto Statement v1 in a DSSE envelope, signed by a KMS key, verified offline.

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
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import Field, StringConstraints, ValidationError

from pipelines.declarations.digests import canonical_json
from pipelines.declarations.documents import Declaration
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.names import Name
from pipelines.registry import clients

STATEMENT = "https://in-toto.io/Statement/v1"
PAYLOAD = "application/vnd.in-toto+json"
LARGEST_MESSAGE = 4096
"""Bytes. KMS signs no longer message without being handed a digest of it instead."""

LARGEST_ENVELOPE = 16 << 10
"""Bytes: the longest message in base64, with room for the signatures."""


class BadSignatureError(MlopsError):
    """An envelope is malformed, or no trusted key signed it."""


class Subject(Declaration):
    """What a statement is about.

    Attributes:
        name: for people.
        digest: algorithm → hexadecimal digits; always sha256 here.
    """

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    digest: dict[Literal["sha256"], Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]] = Field(min_length=1)


class Statement(Declaration):
    """An in-toto Statement v1.

    Attributes:
        subject: what is spoken of.
        predicate_type: a URI that says what the predicate's keys mean.
        predicate: what is said.
    """

    type: Literal["https://in-toto.io/Statement/v1"] = Field("https://in-toto.io/Statement/v1", alias="_type")
    subject: Annotated[tuple[Subject, ...], Field(min_length=1, max_length=8)]
    predicate_type: Annotated[str, StringConstraints(min_length=1, max_length=256)] = Field(alias="predicateType")
    predicate: dict[str, Any]

    @classmethod
    def about(cls, name: str, digest: str, predicate_type: str, predicate: Mapping[str, Any]) -> Statement:
        """A statement about the one thing with this name and `sha256:` digest."""
        subject = {"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}
        value = {"subject": [subject], "predicateType": predicate_type, "predicate": dict(predicate)}
        return cls.model_validate_json(json.dumps({"_type": STATEMENT, **value}))

    def payload(self) -> bytes:
        """The canonical bytes that are signed."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))


class Signature(Declaration):
    """One signature of an envelope.

    Attributes:
        keyid: the environment whose key made it.
        sig: the DER-encoded ECDSA signature, in base64.
    """

    keyid: Name
    sig: Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Envelope(Declaration):
    """A DSSE envelope."""

    payload_type: Literal["application/vnd.in-toto+json"] = Field("application/vnd.in-toto+json", alias="payloadType")
    payload: Annotated[str, StringConstraints(min_length=1, max_length=2 * LARGEST_MESSAGE)]
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1, max_length=4)]

    def to_bytes(self) -> bytes:
        """The canonical bytes that are stored."""
        return canonical_json(self.model_dump(mode="json", by_alias=True))


@dataclass(frozen=True)
class Verified:
    """A statement that a trusted key signed.

    Attributes:
        statement: what was signed.
        signer: the environment whose key signed it.
    """

    statement: Statement
    signer: str


def encode(payload_type: str, payload: bytes) -> bytes:
    """The Pre-Authentication Encoding (PAE) of the DSSE protocol: the bytes that are actually signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(statement: Statement, key_arn: str, signer: str) -> Envelope:
    """Have KMS sign a statement (ECDSA_SHA_256, the message RAW).

    Args:
        statement: what to sign.
        key_arn: the environment's signing key (ECC_NIST_P256).
        signer: the environment's name, by which verifiers find the public key.

    Raises:
        MlopsError: the statement is too large to be signed, or KMS refused.
    """
    payload = statement.payload()
    message = encode(PAYLOAD, payload)
    if len(message) > LARGEST_MESSAGE:
        raise MlopsError(
            f"a statement of {len(message)} bytes cannot be signed; expected at most {LARGEST_MESSAGE}",
            fix="state the digest of a document, not the document",
        )
    try:
        answer = clients.client("kms").sign(
            KeyId=key_arn, Message=message, MessageType="RAW", SigningAlgorithm="ECDSA_SHA_256"
        )
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        denied = code in ("AccessDeniedException", "AccessDenied")
        fix = "grant the caller's role kms:Sign on this key" if denied else "check the key's state and usage"
        raise MlopsError(f"the key {key_arn} did not sign: {error}", fix=fix) from None
    except BotoCoreError as error:
        raise MlopsError(
            f"the key {key_arn} did not sign: {error}", fix="check the AWS credentials, region and endpoint"
        ) from None
    signature = Signature(keyid=signer, sig=base64.b64encode(answer["Signature"]).decode())
    return Envelope(payload=base64.b64encode(payload).decode(), signatures=(signature,))


def verify(
    envelope: bytes,
    trusted_keys: Mapping[str, str],
    *,
    subject: str | None = None,
    predicate_type: str | None = None,
    what: str = "the envelope",
) -> Verified:
    """Check that a trusted key signed an envelope, and that it speaks of what is expected. Needs no network.

    Args:
        envelope: its bytes, from an untrusted place.
        trusted_keys: environment → PEM of its public key (ECC_NIST_P256).
        subject: the `sha256:` digest that the statement must be about, and nothing else.
        predicate_type: what kind of statement it must be.
        what: names the envelope in errors.

    Raises:
        BadSignatureError: it is malformed, too large, not signed by a trusted key, or about something else.
    """
    if len(envelope) > LARGEST_ENVELOPE:
        raise BadSignatureError(f"{what} has {len(envelope)} bytes; expected at most {LARGEST_ENVELOPE}")
    try:
        parse_json(envelope)
        parsed = Envelope.model_validate_json(envelope)
        payload = _decode(parsed.payload)
    except ValueError as error:
        raise BadSignatureError(f"{what} is not a DSSE envelope of an in-toto statement: {_first(error)}") from None
    message = encode(PAYLOAD, payload)
    signer = next((s.keyid for s in parsed.signatures if _signed(message, s, trusted_keys)), None)
    if signer is None:
        found = ", ".join(repr(s.keyid) for s in parsed.signatures)
        known = ", ".join(sorted(trusted_keys)) or "none"
        raise BadSignatureError(
            f"{what} carries no valid signature by a trusted key: expected one of {known}, found {found}",
            fix="do not use what it vouches for; train again, and find out who wrote it",
        )
    # Only now is the payload worth reading.
    try:
        parse_json(payload)
        statement = Statement.model_validate_json(payload)
    except ValueError as error:
        raise BadSignatureError(f"{what} does not hold an in-toto Statement v1: {_first(error)}") from None
    if predicate_type is not None and statement.predicate_type != predicate_type:
        raise BadSignatureError(f"{what} states {statement.predicate_type}; expected {predicate_type}")
    about = [f"sha256:{s.digest['sha256']}" for s in statement.subject]
    if subject is not None and about != [subject]:
        raise BadSignatureError(
            f"{what} is about {', '.join(about)}; expected {subject}",
            fix="evidence belongs to one digest and cannot be moved to another; train again",
        )
    return Verified(statement, signer)


def read_unverified(envelope: bytes) -> Statement:
    """What an envelope says, without checking who signed it. Nothing may be decided on it.

    Raises:
        BadSignatureError: it is not an envelope of a statement.
    """
    try:
        parse_json(envelope)
        payload = _decode(Envelope.model_validate_json(envelope).payload)
        parse_json(payload)
        return Statement.model_validate_json(payload)
    except ValueError as error:
        raise BadSignatureError(f"it is not a DSSE envelope of an in-toto statement: {_first(error)}") from None


def _signed(message: bytes, signature: Signature, trusted_keys: Mapping[str, str]) -> bool:
    pem = trusted_keys.get(signature.keyid)
    if pem is None:
        return False
    key = _public_key(pem, signature.keyid)
    try:
        # The algorithm is ours to say, never the envelope's.
        key.verify(_decode(signature.sig), message, ec.ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


@lru_cache(maxsize=64)
def _public_key(pem: str, signer: str) -> ec.EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MlopsError(f"the trusted key of {signer} is not a public key in PEM: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise MlopsError(f"the trusted key of {signer} is not of the kind ECC_NIST_P256")
    return key


def _decode(text: str) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if base64.b64encode(content).decode() != text:
        raise ValueError("base64 that is not in its one canonical form")
    return content


def parse_json(content: bytes) -> Any:
    """Parse JSON from an untrusted place.

    Raises:
        ValueError: it is not JSON, has a key twice, a number that JSON does not have, or is nested too deeply.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("a key occurs twice")
        return value

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(content.decode("utf-8"), object_pairs_hook=once, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _first(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        detail = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, detail['loc'])) or 'the document'}: {detail['msg']}"
    return str(error)
