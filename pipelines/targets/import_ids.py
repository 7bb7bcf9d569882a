"""Import ids of the resources that the program of an environment creates, from their inputs.

Source: the section "Import" of each resource in the registry of the Pulumi providers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Values = Mapping[str, Any]
AccountId = Callable[[], str]
"""Returns the id of the AWS account."""

GENERATED = frozenset(
    (
        "aws:kms/key:Key",  # AWS chooses the id
        "aws:eks/podIdentityAssociation:PodIdentityAssociation",  # AWS chooses the id
        "aws:sqs/queue:Queue",  # the URL, which names the region
    )
)
"""Types whose import id does not follow from their inputs."""


def _named(key: str) -> Callable[[Values, AccountId], str]:
    return lambda inputs, _: str(inputs[key])


def _in_catalog(inputs: Values, account: AccountId) -> str:
    names = [inputs[key] for key in ("databaseName", "name") if key in inputs]
    return ":".join((str(inputs.get("catalogId") or account()), *names))


_BUCKET_SETTINGS = (
    "Bucket",
    "BucketLifecycleConfiguration",
    "BucketLogging",
    "BucketObjectLockConfiguration",
    "BucketOwnershipControls",
    "BucketPolicy",
    "BucketPublicAccessBlock",
    "BucketServerSideEncryptionConfiguration",
    "BucketVersioning",
)

_AWS: dict[str, Callable[[Values, AccountId], str]] = {
    **{f"aws:s3/{name[0].lower()}{name[1:]}:{name}": _named("bucket") for name in _BUCKET_SETTINGS},
    "aws:cloudwatch/eventApiDestination:EventApiDestination": _named("name"),
    "aws:cloudwatch/eventConnection:EventConnection": _named("name"),
    "aws:cloudwatch/eventRule:EventRule": lambda inputs, _: f"{inputs.get('eventBusName', 'default')}/{inputs['name']}",
    "aws:cloudwatch/eventTarget:EventTarget": lambda inputs, _: (
        f"{inputs.get('eventBusName', 'default')}/{inputs['rule']}/{inputs['targetId']}"
    ),
    "aws:cloudwatch/metricAlarm:MetricAlarm": _named("name"),
    "aws:cloudwatch/dashboard:Dashboard": _named("dashboardName"),
    "aws:glue/catalogDatabase:CatalogDatabase": _in_catalog,
    "aws:glue/catalogTable:CatalogTable": _in_catalog,
    "aws:iam/role:Role": _named("name"),
    "aws:iam/rolePolicy:RolePolicy": lambda inputs, _: f"{inputs['role']}:{inputs['name']}",
    "aws:kms/alias:Alias": _named("name"),
}


def import_id(kind: str, inputs: Values, account: AccountId) -> str | None:
    """Return the import id of a resource; None if it does not follow from the inputs.

    Args:
        kind: Pulumi type, such as `aws:s3/bucket:Bucket`.
        inputs: inputs of the resource.
        account: returns the id of the AWS account.
    """
    try:
        if kind.startswith("kubernetes:"):
            metadata = inputs["metadata"]
            return "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
        if kind in _AWS:
            return _AWS[kind](inputs, account)
    except (KeyError, TypeError, AttributeError):
        pass
    return None
