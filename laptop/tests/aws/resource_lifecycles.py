"""Inputs of each resource type for the test of its lifecycle."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::b/*"}],
}
SMALLER = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "pods.eks.amazonaws.com"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        }
    ],
}
OTHER_TRUST = json.loads(json.dumps(TRUST).replace("pods.eks", "batch"))


def bucket_policy(inputs: dict[str, Any], action: str) -> str:
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": action,
                    "Resource": f"arn:aws:s3:::{inputs['bucket']}/*",
                }
            ],
        }
    )


PATTERN = json.dumps({"source": ["mlops.monitor"]})


def connection(name: str, make: Callable[..., Any]) -> str:
    made = make(
        "aws:cloudwatch/eventConnection:EventConnection",
        name,
        name=name,
        authorizationType="API_KEY",
        authParameters={"apiKey": {"key": "Authorization", "value": "x"}},
    )
    return str(made.outputs["arn"])


@dataclass(frozen=True)
class ResourceLifecycle:
    """Inputs of one resource type.

    Attributes:
        inputs: returns the inputs of the create; gets the name and the `make` fixture.
        change: returns the inputs of an update in place; {} if there is none.
        replace: inputs whose change needs a new resource.
        computed: outputs that must exist in addition to the inputs.
    """

    inputs: Callable[[str, Callable[..., Any]], dict[str, Any]]
    change: Callable[[dict[str, Any]], dict[str, Any]] = field(default=lambda _: {})
    replace: dict[str, Any] = field(default_factory=dict)
    computed: tuple[str, ...] = ("id",)


def on_bucket(**inputs: Any) -> Callable[..., dict[str, Any]]:
    def make_inputs(name: str, make: Callable[..., Any]) -> dict[str, Any]:
        return {"bucket": make("aws:s3/bucket:Bucket", name).id, **inputs}

    return make_inputs


def plain(**inputs: Any) -> Callable[..., dict[str, Any]]:
    return lambda name, make: dict(inputs)


def becomes(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda inputs: changes


def _logging(name: str, make: Callable[..., Any]) -> dict[str, Any]:
    target = make("aws:s3/bucket:Bucket", f"{name}-logs").id
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "logging.s3.amazonaws.com"},
                "Action": "s3:PutObject",
                "Resource": f"arn:aws:s3:::{target}/*",
            }
        ],
    }
    make("aws:s3/bucketPolicy:BucketPolicy", name, bucket=target, policy=json.dumps(policy))
    return {"bucket": make("aws:s3/bucket:Bucket", name).id, "targetBucket": target, "targetPrefix": "s3-access/"}


def _keep(count: int) -> dict[str, Any]:
    return {
        "rulePriority": 1,
        "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": count},
        "action": {"type": "expire"},
    }


def _pull(action: str) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "pull",
                "Effect": "Allow",
                "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
                "Action": [action],
            }
        ],
    }


TAGS = {"owner": "platform", "environment": "dev"}
SSE = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
BUCKET_LIFECYCLE = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
LOCK = "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration"
ABORT = {
    "id": "clean",
    "status": "Enabled",
    "filter": {"prefix": ""},
    "abortIncompleteMultipartUpload": {"daysAfterInitiation": 7},
    "noncurrentVersionExpiration": {"noncurrentDays": 30},
}

LIFECYCLES: dict[str, ResourceLifecycle] = {
    "aws:s3/bucket:Bucket": ResourceLifecycle(
        plain(tags=TAGS),
        becomes(tags={"owner": "models"}),
        {"bucket": "another"},
        ("arn", "bucketDomainName", "bucketRegionalDomainName", "tagsAll", "region"),
    ),
    "aws:s3/bucketVersioning:BucketVersioning": ResourceLifecycle(
        on_bucket(versioningConfiguration={"status": "Enabled"}),
        becomes(versioningConfiguration={"status": "Suspended"}),
        {"bucket": "another"},
    ),
    SSE: ResourceLifecycle(
        lambda name, make: {
            "bucket": make("aws:s3/bucket:Bucket", name).id,
            "rules": [
                {
                    "applyServerSideEncryptionByDefault": {
                        "sseAlgorithm": "aws:kms",
                        "kmsMasterKeyId": make("aws:kms/key:Key", name).outputs["arn"],
                    },
                    "bucketKeyEnabled": True,
                }
            ],
        },
        becomes(rules=[{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}]),
        {"bucket": "another"},
    ),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": ResourceLifecycle(
        on_bucket(blockPublicAcls=True, blockPublicPolicy=True, ignorePublicAcls=True, restrictPublicBuckets=True),
        becomes(blockPublicPolicy=False),
        {"bucket": "another"},
    ),
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": ResourceLifecycle(
        on_bucket(rule={"objectOwnership": "BucketOwnerEnforced"}),
        becomes(rule={"objectOwnership": "BucketOwnerPreferred"}),
        {"bucket": "another"},
    ),
    "aws:s3/bucketPolicy:BucketPolicy": ResourceLifecycle(
        lambda name, make: (lambda held: {**held, "policy": bucket_policy(held, "s3:DeleteObject")})(
            {"bucket": make("aws:s3/bucket:Bucket", name).id}
        ),
        lambda inputs: {"policy": bucket_policy(inputs, "s3:PutObjectAcl")},
        {"bucket": "another"},
    ),
    "aws:s3/bucketLogging:BucketLogging": ResourceLifecycle(
        lambda name, make: _logging(name, make),
        becomes(targetPrefix="elsewhere/"),
        {"bucket": "another"},
    ),
    BUCKET_LIFECYCLE: ResourceLifecycle(
        on_bucket(rules=[ABORT]),
        becomes(
            rules=[ABORT, {"id": "old", "status": "Enabled", "filter": {"prefix": "a/"}, "expiration": {"days": 9}}]
        ),
        {"bucket": "another"},
    ),
    LOCK: ResourceLifecycle(
        lambda name, make: {
            "bucket": make("aws:s3/bucket:Bucket", name, objectLockEnabled=True).id,
            "rule": {"defaultRetention": {"mode": "GOVERNANCE", "days": 1}},
        },
        becomes(rule={"defaultRetention": {"mode": "GOVERNANCE", "days": 2}}),
        {"bucket": "another"},
    ),
    "aws:s3/bucketNotification:BucketNotification": ResourceLifecycle(
        lambda name, make: {
            "bucket": make("aws:s3/bucket:Bucket", name).id,
            "eventbridge": True,
            "queues": [
                {
                    "id": "new",
                    "queueArn": make("aws:sqs/queue:Queue", name).outputs["arn"],
                    "events": ["s3:ObjectCreated:*"],
                    "filterPrefix": "in/",
                }
            ],
        },
        lambda inputs: {"queues": [{**inputs["queues"][0], "filterPrefix": "out/"}]},
        {"bucket": "another"},
    ),
    "aws:kms/key:Key": ResourceLifecycle(
        plain(description="d", enableKeyRotation=True, tags=TAGS, deletionWindowInDays=7),
        becomes(description="e", enableKeyRotation=False, tags={"owner": "models"}, isEnabled=False),
        {"customerMasterKeySpec": "ECC_NIST_P256"},
        ("arn", "keyId", "policy", "tagsAll"),
    ),
    "aws:kms/alias:Alias": ResourceLifecycle(
        lambda name, make: {"targetKeyId": make("aws:kms/key:Key", name).outputs["keyId"]},
        replace={"name": "alias/another"},
        computed=("arn", "targetKeyArn", "name"),
    ),
    "aws:glue/catalogDatabase:CatalogDatabase": ResourceLifecycle(
        plain(description="d", locationUri="s3://lake/db", parameters={"a": "1"}),
        becomes(description="e"),
        {"name": "another"},
        ("arn", "catalogId", "name"),
    ),
    "aws:glue/catalogTable:CatalogTable": ResourceLifecycle(
        lambda name, make: {
            "databaseName": make("aws:glue/catalogDatabase:CatalogDatabase", name).outputs["name"],
            "description": "d",
            "storageDescriptor": {"location": "s3://lake/t", "columns": [{"name": "a", "type": "bigint"}]},
        },
        becomes(description="e"),
        {"name": "another"},
        ("arn", "catalogId", "name"),
    ),
    "aws:ecr/repository:Repository": ResourceLifecycle(
        plain(
            imageTagMutability="IMMUTABLE",
            imageScanningConfiguration={"scanOnPush": True},
            encryptionConfigurations=[{"encryptionType": "KMS", "kmsKey": "arn:aws:kms:eu-west-1:123456789012:key/k"}],
            tags=TAGS,
        ),
        becomes(imageTagMutability="MUTABLE", imageScanningConfiguration={"scanOnPush": False}, tags={"owner": "m"}),
        {"name": "another"},
        ("arn", "repositoryUrl", "registryId", "name"),
    ),
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": ResourceLifecycle(
        lambda name, make: {
            "repository": make("aws:ecr/repository:Repository", name).outputs["name"],
            "policy": json.dumps({"rules": [_keep(10)]}),
        },
        becomes(policy=json.dumps({"rules": [_keep(20)]})),
        {"repository": "another"},
        ("registryId",),
    ),
    "aws:ecr/repositoryPolicy:RepositoryPolicy": ResourceLifecycle(
        lambda name, make: {
            "repository": make("aws:ecr/repository:Repository", name).outputs["name"],
            "policy": json.dumps(_pull("ecr:BatchGetImage")),
        },
        becomes(policy=json.dumps(_pull("ecr:DescribeImages"))),
        {"repository": "another"},
        ("registryId",),
    ),
    "aws:iam/role:Role": ResourceLifecycle(
        plain(
            assumeRolePolicy=json.dumps(TRUST),
            description="d",
            tags=TAGS,
            inlinePolicies=[{"name": "p", "policy": json.dumps(POLICY)}],
        ),
        becomes(
            assumeRolePolicy=json.dumps(OTHER_TRUST),
            description="e",
            maxSessionDuration=7200,
            tags={"owner": "m"},
            inlinePolicies=[],
        ),
        {"name": "another"},
        ("arn", "uniqueId", "createDate", "name"),
    ),
    "aws:iam/rolePolicy:RolePolicy": ResourceLifecycle(
        lambda name, make: {
            "role": make("aws:iam/role:Role", name, assumeRolePolicy=json.dumps(TRUST)).outputs["name"],
            "policy": json.dumps(POLICY),
        },
        becomes(policy=json.dumps(SMALLER)),
        {"role": "another"},
        ("name",),
    ),
    "aws:iam/policy:Policy": ResourceLifecycle(
        plain(policy=json.dumps(POLICY), description="d", tags=TAGS),
        becomes(policy=json.dumps(SMALLER), tags={"owner": "m"}),
        {"description": "e"},
        ("arn", "policyId", "name"),
    ),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": ResourceLifecycle(
        lambda name, make: {
            "role": make("aws:iam/role:Role", name, assumeRolePolicy=json.dumps(TRUST)).outputs["name"],
            "policyArn": make("aws:iam/policy:Policy", name, policy=json.dumps(POLICY)).outputs["arn"],
        },
        replace={"role": "another"},
    ),
    "aws:iam/openIdConnectProvider:OpenIdConnectProvider": ResourceLifecycle(
        lambda name, make: {
            "url": f"https://{name}.example.com",
            "clientIdLists": ["sts.amazonaws.com"],
            "thumbprintLists": ["a" * 40],
            "tags": TAGS,
        },
        becomes(thumbprintLists=["b" * 40], tags={"owner": "m"}),
        {"url": "https://another.example.com"},
        ("arn",),
    ),
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": ResourceLifecycle(
        lambda name, make: {
            "clusterName": "mlops",
            "namespace": "models",
            "serviceAccount": name,
            "roleArn": "arn:aws:iam::123456789012:role/a",
        },
        becomes(roleArn="arn:aws:iam::123456789012:role/b"),
        {"serviceAccount": "another"},
        ("associationId", "associationArn"),
    ),
    "aws:cloudwatch/dashboard:Dashboard": ResourceLifecycle(
        lambda name, _: {"dashboardName": name, "dashboardBody": json.dumps({"widgets": []})},
        becomes(dashboardBody=json.dumps({"widgets": [{"type": "text", "properties": {"markdown": "a"}}]})),
        {"dashboardName": "another"},
        ("dashboardArn",),
    ),
    "aws:cloudwatch/metricAlarm:MetricAlarm": ResourceLifecycle(
        plain(
            comparisonOperator="GreaterThanThreshold",
            evaluationPeriods=2,
            metricName="m",
            namespace="n",
            period=60,
            statistic="Average",
            threshold=1.5,
            dimensions={"model": "diabetes"},
            alarmActions=["arn:aws:sns:eu-west-1:123456789012:t"],
            tags=TAGS,
        ),
        becomes(threshold=2.5, tags={"owner": "m"}),
        {"name": "another"},
        ("arn", "name"),
    ),
    "aws:sns/topic:Topic": ResourceLifecycle(
        plain(displayName="d", tags=TAGS),
        becomes(displayName="e", tags={"owner": "m"}),
        {"name": "another"},
        ("arn", "name", "owner"),
    ),
    "aws:sqs/queue:Queue": ResourceLifecycle(
        plain(visibilityTimeoutSeconds=60, sqsManagedSseEnabled=True, tags=TAGS),
        becomes(visibilityTimeoutSeconds=90, tags={"owner": "m"}),
        {"name": "another"},
        ("arn", "url", "name"),
    ),
    "aws:cloudwatch/eventRule:EventRule": ResourceLifecycle(
        plain(description="d", eventPattern=json.dumps({"source": ["aws.s3"]}), tags=TAGS),
        becomes(description="e", tags={"owner": "m"}),
        {"name": "another"},
        ("arn", "name"),
    ),
    "aws:cloudwatch/eventConnection:EventConnection": ResourceLifecycle(
        plain(
            authorizationType="API_KEY",
            authParameters={"apiKey": {"key": "Authorization", "value": "not set"}},
            description="d",
        ),
        becomes(description="e"),
        {"name": "another"},
        ("arn", "name", "secretArn"),
    ),
    "aws:cloudwatch/eventApiDestination:EventApiDestination": ResourceLifecycle(
        lambda name, make: {
            "name": name,
            "connectionArn": connection(name, make),
            "httpMethod": "POST",
            "invocationEndpoint": "https://api.github.com/repos/acme/mlops/dispatches",
            "invocationRateLimitPerSecond": 1,
        },
        becomes(invocationEndpoint="https://api.github.com/repos/acme/other/dispatches"),
        {"name": "another"},
        ("arn", "name"),
    ),
    "aws:cloudwatch/eventTarget:EventTarget": ResourceLifecycle(
        lambda name, make: {
            "rule": make("aws:cloudwatch/eventRule:EventRule", name, name=name, eventPattern=PATTERN).outputs["name"],
            "targetId": "github",
            "arn": "arn:aws:events:eu-west-1:123456789012:api-destination/x/1",
            "roleArn": "arn:aws:iam::123456789012:role/r",
            "inputTransformer": {"inputPaths": {"detail": "$.detail"}, "inputTemplate": '{"a":<detail>}'},
            "httpTarget": {"headerParameters": {"X-GitHub-Api-Version": "2022-11-28", "accept": "x"}},
            "retryPolicy": {"maximumEventAgeInSeconds": 60, "maximumRetryAttempts": 2},
            "deadLetterConfig": {"arn": "arn:aws:sqs:eu-west-1:123456789012:q"},
        },
        becomes(retryPolicy={"maximumEventAgeInSeconds": 90, "maximumRetryAttempts": 3}),
        {"targetId": "another"},
    ),
}
