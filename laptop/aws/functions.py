"""The functions (`invoke`) of the package `aws` that a program may call."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from typing import Any

from laptop.aws.cloud import Cloud
from pipelines.declarations.errors import MlopsError

Values = dict[str, Any]


def call(cloud: Cloud, token: str, args: Values) -> Values:
    """The result of a function, camelCase as on Pulumi's wire.

    Raises:
        MlopsError: the local target does not have the function.
    """
    if token not in _FUNCTIONS:
        raise MlopsError(
            f"the local target does not have the function `{token}`",
            fix="keep it out of a local environment, or add it to laptop/aws/functions.py.",
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


def _partition(cloud: Cloud, args: Values) -> Values:
    return {
        "id": "aws",
        "partition": "aws",
        "dnsSuffix": "amazonaws.com",
        "reverseDnsPrefix": "com.amazonaws",
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


def _authorization_token(cloud: Cloud, args: Values) -> Values:
    data = cloud.client("ecr", args.get("region")).get_authorization_token()["authorizationData"][0]
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    return {
        "id": cloud.region,
        "authorizationToken": data["authorizationToken"],
        "proxyEndpoint": data["proxyEndpoint"],
        "expiresAt": data["expiresAt"].isoformat(),
        "userName": user,
        "password": password,
        "region": args.get("region") or cloud.region,
    }


def _cluster(cloud: Cloud, args: Values) -> Values:
    raise MlopsError(
        f"the emulated account holds no EKS cluster, so `{args.get('name')}` cannot be looked up there",
        fix="name the cluster in the stack's configuration and reach it by its kubeconfig, as on AWS.",
    )


def _policy_document(cloud: Cloud, args: Values) -> Values:
    """As the provider renders it: a single value stands without a list, several in reverse order of the alphabet."""
    merged: dict[str, Values] = {}

    def add(statement: Values, *, override: bool) -> None:
        sid = statement.get("Sid") or f"\0{len(merged)}"
        if sid in merged and not override:
            raise MlopsError(f"two statements of a policy document have the sid `{sid}`", fix="rename one.")
        merged[sid] = statement

    for source in args.get("sourcePolicyDocuments") or []:
        for statement in _statements(source):
            add(statement, override=False)
    for statement in args.get("statements") or []:
        add(_statement(statement), override=bool(args.get("sourcePolicyDocuments")))
    for source in args.get("overridePolicyDocuments") or []:
        for statement in _statements(source):
            add(statement, override=True)

    rendered: Values = {"Version": args.get("version") or "2012-10-17"}
    if args.get("policyId"):
        rendered["Id"] = args["policyId"]
    rendered["Statement"] = list(merged.values())
    text = json.dumps(rendered, indent=2)
    return {
        **args,
        "id": str(zlib.crc32(text.encode())),
        "json": text,
        "minifiedJson": json.dumps(rendered, separators=(",", ":")),
        "version": rendered["Version"],
        "statements": args.get("statements") or [],
    }


def _statements(source: str) -> list[Values]:
    try:
        found = json.loads(source)["Statement"]
    except (ValueError, KeyError, TypeError) as error:
        raise MlopsError("a source of a policy document is not a policy in JSON") from error
    return found if isinstance(found, list) else [found]


def _statement(given: Values) -> Values:
    rendered: Values = {}
    if given.get("sid"):
        rendered["Sid"] = given["sid"]
    rendered["Effect"] = given.get("effect") or "Allow"
    for ours, aws in (
        ("actions", "Action"),
        ("notActions", "NotAction"),
        ("resources", "Resource"),
        ("notResources", "NotResource"),
    ):
        if given.get(ours):
            rendered[aws] = _one_or_more(given[ours])
    for ours, aws in (("principals", "Principal"), ("notPrincipals", "NotPrincipal")):
        if given.get(ours):
            rendered[aws] = _principals(given[ours])
    if given.get("conditions"):
        conditions: dict[str, dict[str, list[str]]] = {}
        for condition in given["conditions"]:
            keys = conditions.setdefault(condition["test"], {})
            keys.setdefault(condition["variable"], []).extend(condition["values"])
        rendered["Condition"] = {
            test: {key: values[0] if len(values) == 1 else values for key, values in keys.items()}
            for test, keys in conditions.items()
        }
    return rendered


def _principals(given: list[Values]) -> Any:
    found: dict[str, list[str]] = {}
    for principal in given:
        if principal["type"] == "*" and principal["identifiers"] == ["*"]:
            return "*"
        found.setdefault(principal["type"], []).extend(principal["identifiers"])
    return {kind: _one_or_more(identifiers) for kind, identifiers in found.items()}


def _one_or_more(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else sorted(set(values), reverse=True)


_FUNCTIONS: dict[str, Callable[[Cloud, Values], Values]] = {
    "aws:index/getCallerIdentity:getCallerIdentity": _caller_identity,
    "aws:index/getRegion:getRegion": _region,
    "aws:index/getPartition:getPartition": _partition,
    "aws:iam/getPolicyDocument:getPolicyDocument": _policy_document,
    "aws:kms/getPublicKey:getPublicKey": _public_key,
    "aws:ecr/getAuthorizationToken:getAuthorizationToken": _authorization_token,
    "aws:eks/getCluster:getCluster": _cluster,
}
