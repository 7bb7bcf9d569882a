from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.declarations.digests import canonical_json, digest_of_bytes
from pipelines.declarations.errors import MlopsError
from pipelines.registry import clients, signing
from tests.aws import EmulatedAccount
from tests.signing_environments import make_key

ABOUT = digest_of_bytes(b"a bundle")
KIND = "urn:test:kind:v1"
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())


def pem(key: Any) -> str:
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


TRUSTED = {"dev": pem(KEY)}


def signed(payload: bytes, key: ec.EllipticCurvePrivateKey = KEY, keyid: str = "dev") -> dict[str, Any]:
    """Sign an envelope with a local key, like KMS."""
    signature = signing.normalize(key.sign(signing.encode(signing.PAYLOAD, payload), ec.ECDSA(SHA256())))
    return {
        "payloadType": signing.PAYLOAD,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
    }


def statement(**predicate: Any) -> signing.Statement:
    return signing.Statement.about("price", ABOUT, KIND, predicate)


def check(envelope: dict[str, Any] | bytes, **changes: Any) -> signing.Verified:
    content = envelope if isinstance(envelope, bytes) else canonical_json(envelope)
    arguments: dict[str, Any] = {"trusted_keys": TRUSTED, "subject": ABOUT, "predicate_type": KIND}
    return signing.verify(content, **{**arguments, **changes})


def test_the_encoding_matches_the_specification() -> None:
    # The example in https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
    encoded = signing.encode("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_kms_signatures_verify_offline(account: EmulatedAccount) -> None:
    arn, public = make_key()
    envelope = signing.sign(statement(figure=1.5), arn, "dev")
    verified = check(envelope.to_bytes(), trusted_keys={"dev": public})
    assert verified == signing.Verified(statement(figure=1.5), "dev")


def test_a_statement_larger_than_the_kms_limit_is_rejected_before_the_request() -> None:
    with pytest.raises(MlopsError, match="expected at most 4096"):
        signing.sign(statement(text="x" * 4096), "arn:aws:kms:eu-west-1:1:key/none", "dev")


def test_an_unknown_signing_key_is_an_error_that_names_it(account: EmulatedAccount) -> None:
    arn = "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"
    with pytest.raises(MlopsError, match=r"key/00000000-.* did not sign"):
        signing.sign(statement(), arn, "dev")


def test_a_signature_by_another_key_under_the_same_name_is_rejected() -> None:
    with pytest.raises(signing.BadSignatureError, match="no valid signature by a trusted key"):
        check(signed(statement().payload(), OTHER))


def test_a_signature_by_an_untrusted_environment_is_rejected() -> None:
    with pytest.raises(signing.BadSignatureError, match="expected one of dev, found 'laptop'"):
        check(signed(statement().payload(), KEY, "laptop"))


def test_a_payload_changed_after_signing_is_rejected() -> None:
    envelope = signed(statement(metric=1).payload())
    envelope["payload"] = base64.b64encode(statement(metric=2).payload()).decode()
    with pytest.raises(signing.BadSignatureError, match="no valid signature"):
        check(envelope)


def test_a_statement_about_another_digest_is_rejected() -> None:
    with pytest.raises(signing.BadSignatureError, match=f"another subject: expected sha256:0.*, found {ABOUT}"):
        check(signed(statement().payload()), subject="sha256:" + "0" * 64)


def test_a_statement_about_a_second_subject_is_rejected() -> None:
    value = json.loads(statement().payload())
    value["subject"].append({"name": "other", "digest": {"sha256": "0" * 64}})
    with pytest.raises(signing.BadSignatureError, match="is about"):
        check(signed(json.dumps(value).encode()))


def test_a_statement_of_another_type_is_rejected() -> None:
    with pytest.raises(signing.BadSignatureError, match="expected urn:test:other"):
        check(signed(statement().payload()), predicate_type="urn:test:other")


def drop_signatures(envelope: dict[str, Any]) -> None:
    envelope["signatures"] = []


def name_an_algorithm(envelope: dict[str, Any]) -> None:
    envelope["signatures"][0]["alg"] = "none"


def change_the_type(envelope: dict[str, Any]) -> None:
    envelope["payloadType"] = "application/json"


def loosen_the_base64(envelope: dict[str, Any]) -> None:
    envelope["payload"] += "\n"


def empty_the_signature(envelope: dict[str, Any]) -> None:
    envelope["signatures"][0]["sig"] = ""


def many_signatures(envelope: dict[str, Any]) -> None:
    envelope["signatures"] *= 2


@pytest.mark.parametrize(
    "damage",
    [drop_signatures, name_an_algorithm, change_the_type, loosen_the_base64, empty_the_signature, many_signatures],
)
def test_a_malformed_envelope_is_rejected(damage: Callable[[dict[str, Any]], None]) -> None:
    envelope = signed(statement().payload())
    check(envelope)
    damage(envelope)
    with pytest.raises(signing.BadSignatureError, match="is not a DSSE envelope"):
        check(envelope)


def test_duplicate_keys_are_rejected_in_the_envelope_and_in_the_payload() -> None:
    text = json.dumps(signed(statement().payload()))
    twice = text.replace('"payloadType"', '"payloadType": "x", "payloadType"', 1)
    with pytest.raises(signing.BadSignatureError, match="duplicate key"):
        check(twice.encode())
    payload = statement(a=1).payload().replace(b'"a":1', b'"a":1,"a":2')
    with pytest.raises(signing.BadSignatureError, match="duplicate key"):
        check(signed(payload))


def test_an_envelope_that_is_too_large_or_too_deep_is_rejected() -> None:
    with pytest.raises(signing.BadSignatureError, match="expected at most 16384"):
        check(b" " * (signing.LARGEST_ENVELOPE + 1))
    with pytest.raises(signing.BadSignatureError, match="is not a DSSE envelope"):
        check(b"[" * signing.LARGEST_ENVELOPE)


def test_a_signature_has_one_accepted_form() -> None:
    """Another form verifies mathematically too, and would give the same statement another digest."""
    envelope = signed(statement().payload())
    content = base64.b64decode(envelope["signatures"][0]["sig"])
    r, s = decode_dss_signature(content)
    other = encode_dss_signature(r, signing.ORDER - s)
    KEY.public_key().verify(other, signing.encode(signing.PAYLOAD, statement().payload()), ec.ECDSA(SHA256()))
    assert signing.normalize(other) == content
    envelope["signatures"][0]["sig"] = base64.b64encode(other).decode()
    with pytest.raises(signing.BadSignatureError, match="no valid signature"):
        check(envelope)


def test_an_envelope_has_one_accepted_encoding() -> None:
    envelope = signed(statement().payload())
    assert check(envelope)
    with pytest.raises(signing.BadSignatureError, match="not in canonical form"):
        check(json.dumps(envelope, indent=1).encode())


def test_a_wrong_clock_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def sign(self, **_: object) -> None:
            answer: Any = {
                "Error": {"Code": "InvalidSignatureException", "Message": "Signature expired: 20260302T1000"}
            }
            raise ClientError(answer, "Sign")

    monkeypatch.setattr(clients, "client", lambda _: Refusing())
    with pytest.raises(MlopsError, match="refused because of its time") as caught:
        signing.sign(statement(), "arn:aws:kms:eu-west-1:1:key/none", "dev")
    assert caught.value.fix == "set the clock of this machine"


def test_only_p256_keys_verify_signatures() -> None:
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        with pytest.raises(MlopsError, match="is not an ECC_NIST_P256 key"):
            check(signed(statement().payload()), trusted_keys={"dev": pem(key)})
    with pytest.raises(MlopsError, match="is not a PEM public key"):
        check(signed(statement().payload()), trusted_keys={"dev": "-----BEGIN"})


# Made once: each signature is another one.
GOOD = canonical_json(signed(statement(metric=1).payload()))


@settings(max_examples=150)
@given(st.data())
def test_a_changed_envelope_never_verifies_as_another_statement(data: st.DataObject) -> None:
    content = bytearray(GOOD)
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    try:
        verified = check(bytes(content))
    except MlopsError:
        return
    assert verified.statement == statement(metric=1)


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_rejected_with_a_clear_error(content: bytes) -> None:
    with pytest.raises(signing.BadSignatureError):
        check(content)
