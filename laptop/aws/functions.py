"""Functions (`invoke`) of the package `aws`."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from laptop.aws.cloud import Cloud
from pipelines.declarations.errors import MlopsError

Values = dict[str, Any]


def call(cloud: Cloud, token: str, args: Values) -> Values:
    """Return the result of a function, camelCase as on Pulumi's wire.

    Raises:
        MlopsError: the laptop does not have the function.
    """
    if token not in _FUNCTIONS:
        raise MlopsError(
            f"the laptop does not have the function `{token}`: expected one of {', '.join(sorted(_FUNCTIONS))}",
            fix="add it to laptop/aws/functions.py.",
        )
    return _FUNCTIONS[token](cloud, {key: value for key, value in args.items() if value is not None})


def _caller_identity(cloud: Cloud, args: Values) -> Values:
    found = cloud.client("sts").get_caller_identity()
    account = found["Account"]
    return {"id": account, "accountId": account, "arn": found["Arn"], "userId": found["UserId"]}


def _region(cloud: Cloud, args: Values) -> Values:
    region = args.get("region") or args.get("name") or cloud.region
    return {
        "id": region,
        "name": region,
        "region": region,
        "description": region,
        "endpoint": f"ec2.{region}.amazonaws.com",
    }


def _public_key(cloud: Cloud, args: Values) -> Values:
    found = cloud.client("kms", args.get("region")).get_public_key(KeyId=args["keyId"])
    der = base64.b64encode(found["PublicKey"]).decode()
    lines = [der[at : at + 64] for at in range(0, len(der), 64)]
    pem = "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])
    region, key = args.get("region") or cloud.region, found["KeyId"]
    return {
        "id": key,
        "arn": key if key.startswith("arn:") else f"arn:aws:kms:{region}:{cloud.account}:key/{key}",
        "keyId": args["keyId"],
        "customerMasterKeySpec": found.get("KeySpec") or found["CustomerMasterKeySpec"],
        "keyUsage": found["KeyUsage"],
        "publicKey": der,
        "publicKeyPem": pem,
        "signingAlgorithms": found.get("SigningAlgorithms", []),
        "encryptionAlgorithms": found.get("EncryptionAlgorithms", []),
        "region": region,
    }


def _cluster(cloud: Cloud, args: Values) -> Values:
    found = cloud.client("eks", args.get("region")).describe_cluster(name=args["name"])["cluster"]
    return {
        "id": found["name"],
        "name": found["name"],
        "arn": found["arn"],
        "endpoint": found["endpoint"],
        "certificateAuthorities": [{"data": found["certificateAuthority"]["data"]}],
        "status": found["status"],
        "version": found["version"],
        "region": args.get("region") or cloud.region,
    }


_FUNCTIONS: dict[str, Callable[[Cloud, Values], Values]] = {
    "aws:eks/getCluster:getCluster": _cluster,
    "aws:index/getCallerIdentity:getCallerIdentity": _caller_identity,
    "aws:index/getRegion:getRegion": _region,
    "aws:kms/getPublicKey:getPublicKey": _public_key,
}

TOKENS = tuple(sorted(_FUNCTIONS))
"""Tokens of the functions that the laptop has."""
