"""Chains of signed records, made with a local key instead of KMS."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.environment import EnvironmentDescriptor, ImageReferences, Repositories
from pipelines.registry import signing, store
from pipelines.registry.ledger import PREDICATE, Event, Ledger, Record

KEY = ec.generate_private_key(ec.SECP256R1())
MODEL = "price"
GATES = dict.fromkeys((f"a-gate-with-a-name-{number}" for number in range(16)), "pass")


def pem(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the public key as PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def offline_environment(name: str = "dev", key: ec.EllipticCurvePrivateKey = KEY) -> EnvironmentDescriptor:
    """Describe an environment without resources that trusts `key`."""
    return EnvironmentDescriptor(
        name=name,
        region="eu-west-1",
        account="123456789012",
        landing_bucket="landing",
        lake_bucket="lake",
        logs_bucket="logs",
        registry_bucket="registry",
        catalog_database="lake",
        signing_key="arn:aws:kms:eu-west-1:123456789012:key/none",
        trusted_keys={name: pem(key)},
        cluster="cluster",
        namespace="models",
        images=ImageReferences(),
        repositories=Repositories(training="none", serving="none"),
    )


def bundle(number: int) -> str:
    """Return the digest of a made-up bundle."""
    return digest_of_bytes(b"bundle %d" % number)


def verified(number: int, **changes: object) -> Event:
    """Make the event of a promotion from bundle `number - 1` to bundle `number`."""
    values: dict[str, object] = {
        "attempt": f"attempt-{number}",
        "action": "promotion",
        "result": "verified",
        "before": bundle(number - 1) if number > 1 else None,
        "to": bundle(number),
        "live": bundle(number),
        "verdicts": GATES,
        "report": bundle(0),
        "policy": bundle(0),
        "evidence": {"provenance": bundle(0), "evaluation": bundle(0)},
        "dataset": f"houses@{number}",
        "source_commit": f"{number:040x}",
        "commit": f"{number:040x}",
        "pull_request": number,
        "approvers": ["ann", "bob"],
        "actor": "mlops[bot]",
        "run": f"https://github.com/example/models/actions/runs/{number}",
    }
    return Event.of(**{**values, **changes})  # type: ignore[arg-type]


def envelope_of(record: Record, key: ec.EllipticCurvePrivateKey = KEY, *, signer: str | None = None) -> bytes:
    """Sign a record and return its envelope, as stored in the ledger."""
    statement = signing.Statement.about(record.model, record.event.to, PREDICATE, record.model_dump(mode="json"))
    payload = statement.payload()
    signature = signing.normalize(key.sign(signing.encode(signing.PAYLOAD, payload), ec.ECDSA(SHA256())))
    keyid = signer or record.environment
    return signing.Envelope(
        payload=base64.b64encode(payload).decode(),
        signatures=(signing.Signature(keyid=keyid, sig=base64.b64encode(signature).decode()),),
    ).to_bytes()


def forge(descriptor: EnvironmentDescriptor, model: str, event: Event, **changes: object) -> Record:
    """Write a record after the newest one, as a holder of a deploy role can: signed, and as wrong as `changes`."""
    ledger = Ledger(descriptor, model)
    number = ledger.newest() + 1
    previous = digest_of_bytes(ledger.stored(number - 1).content) if number > 1 else None
    fitting = Record(environment=descriptor.name, model=model, number=number, previous=previous, event=event)
    record = fitting.model_copy(update=changes)
    statement = signing.Statement.about(model, event.to, PREDICATE, record.model_dump(mode="json"))
    content = signing.sign(statement, descriptor.signing_key, descriptor.name).to_bytes()
    store.put_new(descriptor.registry_bucket, f"{ledger.prefix}{number:010d}.dsse.json", content)
    return record


def chain_of(events: Sequence[Event], *, environment: str = "dev", model: str = MODEL) -> list[bytes]:
    """Sign a chain of records with these events."""
    return list(_links(events, environment, model))


def _links(events: Sequence[Event], environment: str, model: str) -> Iterator[bytes]:
    previous = None
    for number, event in enumerate(events, 1):
        record = Record(environment=environment, model=model, number=number, previous=previous, event=event)
        content = envelope_of(record)
        previous = digest_of_bytes(content)
        yield content
