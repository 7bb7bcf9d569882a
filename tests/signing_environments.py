"""Environments with signing keys, and example bundles for their registries."""

from __future__ import annotations

import base64
import uuid
from typing import Any

import boto3

from pipelines.declarations.bundle import FILES, Bundle, BundledFile, DatasetVersion, Source
from pipelines.declarations.contract import Contract
from pipelines.declarations.digests import digest_of_bytes
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.registry import bundles, evidence
from tests.aws import REGION, make_environment

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT = "fedcba9876543210fedcba9876543210fedcba98"
GATES = digest_of_bytes(b"gates")
MODEL = "price"


def make_key() -> tuple[str, str]:
    """Create a signing key in KMS; return its ARN and its public key as PEM."""
    kms = boto3.client("kms")
    arn = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    der = base64.encodebytes(kms.get_public_key(KeyId=arn)["PublicKey"]).decode()
    return arn, f"-----BEGIN PUBLIC KEY-----\n{der}-----END PUBLIC KEY-----\n"


def make_signing_environment(
    name: str = "dev", previous: EnvironmentDescriptor | None = None, *contracts: Contract
) -> EnvironmentDescriptor:
    """Create an environment with a signing key that trusts the previous environments."""
    arn, pem = make_key()
    trusted = {**(previous.trusted_keys if previous else {}), name: pem}
    changes = {"signing_key": arn, "trusted_keys": trusted, "promotes_from": previous.name if previous else None}
    return make_environment(name, *contracts).model_copy(update=changes)


def with_empty_registry(descriptor: EnvironmentDescriptor) -> EnvironmentDescriptor:
    """Return the environment with a new, empty registry bucket; faster than a new environment."""
    bucket = f"{descriptor.name}-registry-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    return descriptor.model_copy(update={"registry_bucket": bucket})


def example_files(**changes: bytes) -> dict[str, bytes]:
    """Return content for every file of a bundle; `changes` uses `_` for `.` in names."""
    files = {name: f"content of {name}".encode() for name in FILES}
    return files | {key.replace("_", "."): content for key, content in changes.items()}


def example_bundle(files: dict[str, bytes] | None = None, **changes: Any) -> Bundle:
    """Return a manifest for `files`."""
    files = example_files() if files is None else files
    values: dict[str, Any] = {
        "model": MODEL,
        "task": "regression",
        "files": {n: BundledFile(sha256=digest_of_bytes(c), size=len(c)) for n, c in files.items()},
        "source": Source(**dict.fromkeys(("model", "pipelines", "requirements"), digest_of_bytes(b"source"))),
        "contract": digest_of_bytes(b"contract"),
        "dataset": DatasetVersion(
            dataset="houses", table="lake.houses", snapshot="1", content=digest_of_bytes(b"rows"), rows=10
        ),
        "image": digest_of_bytes(b"image"),
        "parameters": {"alpha": 1.0},
        "seed": 7,
    }
    return Bundle(**{**values, **changes})


def example_build(environment: str = "dev", **changes: str) -> evidence.Build:
    """Return the build that made a bundle."""
    values = {"environment": environment, "commit": COMMIT, "run": "run-1"}
    times = {"started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:01:00Z"}
    return evidence.Build(**{**values, **times, **changes})


def register(descriptor: EnvironmentDescriptor, files: dict[str, bytes] | None = None, **changes: Any) -> str:
    """Push a signed example bundle and return its digest."""
    files = example_files() if files is None else files
    manifest = example_bundle(files, **changes)
    bundles.push(descriptor, manifest, files)
    evidence.attest(descriptor, manifest, GATES, example_build(descriptor.name))
    return manifest.digest
