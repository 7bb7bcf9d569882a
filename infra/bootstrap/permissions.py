"""IAM policy statements of the roles of GitHub Actions jobs and of people, and of the permissions boundaries.

Statements scope an environment's resources by name prefix, and its KMS keys by the tag `environment`. A role reaches
another environment only to read what it promotes. Source of actions, resources and condition keys: AWS service
authorization reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, get_args

import pulumi

from infra.bootstrap.layout import AccountLayout
from infra.scopes import Environment
from pipelines.declarations.alarm_events import undelivered_queue
from pipelines.declarations.names import ImageName, repository_name

Statement = dict[str, Any]

_READ_BUCKET = (
    "s3:GetAccelerateConfiguration",
    "s3:GetBucket*",
    "s3:GetEncryptionConfiguration",
    "s3:GetLifecycleConfiguration",
    "s3:GetReplicationConfiguration",
    "s3:ListBucket",
    "s3:ListBucketVersions",  # what was deleted or replaced in the ledger
    "s3:ListTagsForResource",
)
_MAKE_BUCKET = (
    "s3:CreateBucket",
    "s3:PutBucketLogging",
    "s3:PutBucketObjectLockConfiguration",
    "s3:PutBucketOwnershipControls",
    "s3:PutBucketPublicAccessBlock",
    "s3:PutBucketTagging",
    "s3:PutBucketVersioning",
    "s3:PutEncryptionConfiguration",
    "s3:PutLifecycleConfiguration",
    "s3:TagResource",
    "s3:UntagResource",
)
_REMOVE_BUCKET = ("s3:DeleteBucket", "s3:DeleteBucketPolicy")
_EMPTY_BUCKET = ("s3:BypassGovernanceRetention", "s3:DeleteObject", "s3:DeleteObjectVersion")
_READ_KEY = (
    "kms:DescribeKey",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:GetPublicKey",
    "kms:ListResourceTags",
)
_MAKE_KEY = (
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:EnableKeyRotation",
    "kms:UntagResource",
    "kms:UpdateAlias",
    "kms:UpdateKeyDescription",
)
_REMOVE_KEY = ("kms:ScheduleKeyDeletion",)
_READ_CATALOG = ("glue:GetDatabase", "glue:GetPartitionIndexes", "glue:GetTable", "glue:GetTags")
_MAKE_CATALOG = (
    "glue:CreateDatabase",
    "glue:CreateTable",
    "glue:TagResource",
    "glue:UntagResource",
    "glue:UpdateDatabase",
    "glue:UpdateTable",
)
_REMOVE_CATALOG = ("glue:DeleteDatabase", "glue:DeleteTable")
_PUSH_IMAGE = (
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:CompleteLayerUpload",
    "ecr:GetDownloadUrlForLayer",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
)
"""Source: Amazon ECR user guide, "IAM permissions for pushing an image", and those to push attestations of an image."""

_JUDGE_IMAGE = ("ecr:BatchGetImage", "ecr:DescribeImageScanFindings", "ecr:DescribeImages")
"""Read the manifest, the tags, the size and the scan result of an image, but not its layers."""

_READ_ROLE = (
    "iam:GetRole",
    "iam:GetRolePolicy",
    "iam:ListAttachedRolePolicies",
    "iam:ListInstanceProfilesForRole",
    "iam:ListRolePolicies",
    "iam:ListRoleTags",
)
_MAKE_ROLE = ("iam:DeleteRole", "iam:TagRole", "iam:UntagRole", "iam:UpdateRole", "iam:UpdateRoleDescription")
_READ_CLUSTER = ("eks:DescribeCluster", "eks:ListPodIdentityAssociations")
_READ_ASSOCIATION = ("eks:DescribePodIdentityAssociation", "eks:ListTagsForResource")
_MAKE_ASSOCIATION = (
    "eks:DeletePodIdentityAssociation",
    "eks:TagResource",
    "eks:UntagResource",
    "eks:UpdatePodIdentityAssociation",
)

_READ_ALARM = ("cloudwatch:DescribeAlarms", "cloudwatch:ListTagsForResource")
_READ_DASHBOARD = ("cloudwatch:GetDashboard",)
_MAKE_DASHBOARD = ("cloudwatch:DeleteDashboards", "cloudwatch:PutDashboard")
_MAKE_ALARM = (
    "cloudwatch:DeleteAlarms",
    "cloudwatch:PutMetricAlarm",
    "cloudwatch:TagResource",
    "cloudwatch:UntagResource",
)

_READ_DELIVERY = (
    "events:DescribeApiDestination",
    "events:DescribeConnection",
    "events:DescribeRule",
    "events:ListTagsForResource",
    "events:ListTargetsByRule",
)
_MAKE_DELIVERY = (
    "events:CreateApiDestination",
    "events:CreateConnection",
    "events:DeleteApiDestination",
    "events:DeleteConnection",
    "events:DeleteRule",
    "events:PutRule",
    "events:PutTargets",
    "events:RemoveTargets",
    "events:TagResource",
    "events:UntagResource",
    "events:UpdateApiDestination",
)
"""Without UpdateConnection: only people set the token for GitHub."""

_MAKE_SECRET = ("secretsmanager:CreateSecret", "secretsmanager:DeleteSecret", "secretsmanager:DescribeSecret")
"""Actions that EventBridge performs with the caller's permissions; its service-linked role performs the others (Amazon
EventBridge user guide, "Connections"). Reading a secret is left out."""

_READ_QUEUE = ("sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:ListQueueTags")
_MAKE_QUEUE = ("sqs:CreateQueue", "sqs:DeleteQueue", "sqs:SetQueueAttributes", "sqs:TagQueue", "sqs:UntagQueue")
_EVENTS = "events.amazonaws.com"
_API_DESTINATIONS = "apidestinations.events.amazonaws.com"

_READ_LOAD_BALANCERS = ("elasticloadbalancing:Describe*",)
"""What a verification reads. AWS knows no narrower resource than `*` for these actions."""

_REGISTRY = ("bundles/", "evidence/", "images/", "ledger/", "quarantine/", "reports/", "runs/")
"""Key prefixes in a registry bucket: see `pipelines/registry` and `pipelines/promotion/report.py`."""

_WHOLE = ("",)
"""Key prefix of everything in a bucket."""

_JUDGED_EVERYWHERE = ("images/", "ledger/", "quarantine/")
"""Key prefixes that a promotion reads in every other environment: the images that it verified, what is live there, and
which bundles are bad."""

_INFERENCE_LOGS = ("inference/",)
"""Key prefix of the inference logs in a logs bucket. Counting requests takes their keys, never their content."""

_MODEL_REPORTS = "monitoring/models/*.json"
"""Keys of the reports about models in a logs bucket, which issues about alarms quote. They hold no requests."""

_LINEAGE_OF_DEPLOYMENTS = ("lineage/deploy-",)
"""Key prefix of the lineage events of deployments in a logs bucket."""


def allow(
    actions: Iterable[str], resources: pulumi.Input[str] | Sequence[str], **condition: dict[str, Any]
) -> Statement:
    """Return a statement that allows actions on resources."""
    listed = list(resources) if isinstance(resources, list | tuple) else [resources]
    statement: Statement = {"Effect": "Allow", "Action": sorted(set(actions)), "Resource": listed}
    return {**statement, "Condition": condition} if condition else statement


def _deny(actions: Iterable[str], **on: Sequence[str]) -> Statement:
    """Return a statement that denies actions, whatever another policy allows.

    Args:
        on: `Resource` or `NotResource` → ARN patterns.
    """
    return {"Effect": "Deny", "Action": sorted(actions), **{key: list(patterns) for key, patterns in on.items()}}


def deploy_statements(layout: AccountLayout, environment: Environment) -> dict[str, list[Statement]]:
    """Return the permissions to deploy an environment, one entry per inline policy.

    Only a disposable environment's buckets, objects, keys and tables can be deleted.
    """
    return {
        "storage": [*_storage(environment), *_catalog(environment)],
        "monitoring": _monitoring(environment),
        **_delivery(environment),
        "keys": _keys(environment),
        "identity": [*_roles(layout, environment), *_cluster(environment)],
        "releases": _releases(layout, environment),
        "limits": _limits(layout, environment),
    }


def access_statements(environment: Environment) -> list[Statement]:
    """Return the permission to set who may use the environment's buckets.

    The policy of a bucket is the last of its settings, and seals them: see `infra/components/bucket.py`. Trust policies
    of roles are written once, because a role's cluster, namespace and service account never change.
    """
    return [allow(["s3:PutBucketPolicy"], _buckets(environment))]


def _limits(layout: AccountLayout, environment: Environment) -> list[Statement]:
    """Deny the deploy role all data and all other roles, even if a policy that it can write allows them."""
    state = f"arn:{environment.partition}:s3:::{layout.scope.bucket_name('state')}/*"
    metadata = f"{_bucket(environment, 'lake')}/*/metadata/*"
    registries = f"arn:{environment.partition}:s3:::{layout.project}-*-registry-{environment.account}/*"
    events = _objects(environment, "logs", *_LINEAGE_OF_DEPLOYMENTS)
    reports = _model_reports(environment)
    removed = () if environment.config.disposable else _EMPTY_BUCKET
    return [
        _deny(["s3:GetObject", "s3:GetObjectVersion"], NotResource=[metadata, registries, reports, state]),
        _deny(["s3:PutObject"], NotResource=[metadata, f"{_bucket(environment, 'registry')}/*", *events, state]),
        *([_deny(removed, NotResource=[state])] if removed else []),
        _deny(["sts:AssumeRole", "sts:TagSession"], Resource=["*"]),
    ]


def preview_statements(layout: AccountLayout) -> dict[str, list[Statement]]:
    """Return the permissions for previews and gates: read every environment, change nothing.

    `pulumi preview` takes no lock and writes no state (pulumi/pulumi, pkg/backend/diy/backend.go).
    """
    everywhere = layout.environments
    tables = [table for environment in everywhere for table in _tables(environment)]
    return {
        "resources": [
            allow(_READ_BUCKET, [_buckets(environment) for environment in everywhere]),
            allow(_READ_CATALOG, sorted(set(tables))),
            allow(_READ_ROLE, [_role_names(environment) for environment in everywhere]),
            allow(_READ_KEY, _every_key(*everywhere), StringEquals=_tagged(*everywhere)),
            allow(_READ_CLUSTER, sorted({_cluster_of(environment) for environment in everywhere})),
            allow(_READ_ASSOCIATION, sorted({_associations(environment) for environment in everywhere})),
            allow(_READ_ALARM, [_alarms(environment) for environment in everywhere]),
            allow(_READ_DASHBOARD, [_dashboards(environment) for environment in everywhere]),
            *_read_delivery([environment for environment in everywhere if environment.config.monitoring.github]),
            allow(["kms:ListAliases"], "*"),
        ],
        "releases": [
            allow(
                ["s3:GetObject"],
                [arn for environment in everywhere for arn in _objects(environment, "registry", *_REGISTRY)],
            ),
            _through_s3(["kms:Decrypt"], *everywhere),
            allow(_JUDGE_IMAGE, _image_repositories(*everywhere)),
        ],
    }


def push_statements(repository_arns: Sequence[str]) -> list[Statement]:
    """Return the permissions to push images and their attestations, but not to delete any."""
    return [allow(_PUSH_IMAGE, list(repository_arns)), allow(["ecr:GetAuthorizationToken"], "*")]


def landing_statements(environment: Environment) -> list[Statement]:
    """Return the permissions to add files to the landing bucket, but not to read, replace or delete any.

    A write must be conditional on the absence of the object (Amazon S3 user guide, "Enforce conditional writes"), which
    leaves out multipart uploads.
    """
    bucket, region = _bucket(environment, "landing"), environment.region
    return [
        allow(["s3:PutObject"], f"{bucket}/*", Null={"s3:if-none-match": "false"}),
        allow(
            ["kms:GenerateDataKey"],
            _every_key(environment),
            StringEquals={**_tagged(environment), "kms:ViaService": f"s3.{region}.amazonaws.com"},
            # The encryption context names the bucket with a bucket key, and the object without one.
            StringLike={"kms:EncryptionContext:aws:s3:arn": [bucket, f"{bucket}/*"]},
        ),
    ]


def write_state_statements(
    layout: AccountLayout, environment: Environment, bucket_arn: str, key_arn: pulumi.Input[str]
) -> list[Statement]:
    """Return the permissions to read the state of every stack, and to write the state and the holder of one.

    Source: Pulumi, "State and backends", AWS S3, required permissions; object layout: pulumi/pulumi, pkg/backend/diy.
    The record of a stack's holder is replaced, but never deleted: see `pipelines/targets/state_bucket.py`.
    """
    stack = f"{layout.project}/{environment.name}"
    return [
        *read_state_statements(bucket_arn, key_arn),
        allow(
            ["s3:DeleteObject", "s3:PutObject"],
            [
                f"{bucket_arn}/.pulumi/stacks/{stack}.json*",
                f"{bucket_arn}/.pulumi/history/{stack}/*",
                f"{bucket_arn}/.pulumi/backups/{stack}/*",
                f"{bucket_arn}/.pulumi/locks/organization/{stack}/*",
            ],
        ),
        allow(["s3:GetObject", "s3:PutObject"], f"{bucket_arn}/.mlops/holders/{stack}.json"),
        allow(["kms:Encrypt", "kms:GenerateDataKey"], key_arn),
    ]


def read_state_statements(bucket_arn: str, key_arn: pulumi.Input[str]) -> list[Statement]:
    """Return the permissions to read the state of every stack and decrypt its secrets."""
    return [
        allow(["s3:GetBucketLocation", "s3:ListBucket"], bucket_arn),
        allow(["s3:GetObject"], f"{bucket_arn}/.pulumi/*"),
        allow(["kms:Decrypt", "kms:DescribeKey"], key_arn),
    ]


def boundary_statements(environment: Environment) -> list[Statement]:
    """Return the permissions boundary of an environment's roles: the union of what its workloads need."""
    return [
        allow(
            ["s3:AbortMultipartUpload", "s3:GetObject", "s3:ListBucket", "s3:ListBucketVersions", "s3:PutObject"],
            [_buckets(environment), f"{_buckets(environment)}/*"],
        ),
        # Files of tables that no version names. The bucket keeps former versions, which no workload may delete.
        allow(["s3:DeleteObject"], f"{_bucket(environment, 'lake')}/{environment.catalog_database}/*"),
        allow(
            ["kms:Decrypt", "kms:GenerateDataKey", "kms:Sign"],
            _every_key(environment),
            StringEquals=_tagged(environment),
        ),
        # Lines of the inference log, once they are in a Parquet file.
        allow(["s3:DeleteObject"], [f"{_bucket(environment, 'logs')}/{prefix}*.jsonl" for prefix in _INFERENCE_LOGS]),
        allow(["glue:CreateTable", "glue:GetDatabase", "glue:GetTable", "glue:UpdateTable"], _tables(environment)),
        allow(["cloudwatch:PutMetricData"], "*", StringEquals={"cloudwatch:namespace": environment.prefix}),
        allow(
            ["events:PutEvents"],
            environment.arn("events", "event-bus/default"),
            StringLike={"events:source": f"{environment.prefix}.monitor.*"},
        ),
        allow(["events:InvokeApiDestination"], environment.arn("events", f"api-destination/{environment.prefix}-*")),
    ]


def _storage(environment: Environment) -> list[Statement]:
    buckets, emptied = _buckets(environment), f"{_buckets(environment)}/*"
    removed = _if_disposable(environment, _REMOVE_BUCKET)
    return [
        allow((*_READ_BUCKET, *_MAKE_BUCKET, *removed), buckets),
        *([allow(_EMPTY_BUCKET, emptied)] if removed else []),
    ]


def _catalog(environment: Environment) -> list[Statement]:
    # Glue writes the first metadata of an Iceberg table with the caller's permissions.
    metadata = f"{_bucket(environment, 'lake')}/{environment.catalog_database}/*/metadata/*"
    removed = _if_disposable(environment, _REMOVE_CATALOG)
    return [
        allow((*_READ_CATALOG, *_MAKE_CATALOG, *removed), _tables(environment)),
        allow(["s3:GetObject", "s3:PutObject"], metadata),
    ]


def _keys(environment: Environment) -> list[Statement]:
    keys, own = _every_key(environment), _tagged(environment)
    new = {"aws:RequestTag/environment": environment.name}
    return [
        allow(["kms:CreateKey"], "*", StringEquals=new),
        # Tag a new key, or the environment's own; tagging must not claim another environment's key.
        allow(["kms:TagResource"], keys, StringEqualsIfExists={**own, **new}),
        # Without the tag: AWS applies it minutes late, and the age of a key says whether a denial may be due to that.
        allow(_READ_KEY, keys),
        allow((*_MAKE_KEY, *_if_disposable(environment, _REMOVE_KEY)), keys, StringEquals=own),
        allow(
            ["kms:CreateAlias", "kms:DeleteAlias", "kms:UpdateAlias"],
            environment.arn("kms", f"alias/{environment.prefix}-*"),
        ),
        allow(["kms:ListAliases"], "*"),
        _through_s3(["kms:Decrypt", "kms:GenerateDataKey"], environment),
    ]


def _monitoring(environment: Environment) -> list[Statement]:
    return [
        allow((*_READ_ALARM, *_MAKE_ALARM), _alarms(environment)),
        allow((*_READ_DASHBOARD, *_MAKE_DASHBOARD), _dashboards(environment)),
    ]


def _delivery(environment: Environment) -> dict[str, list[Statement]]:
    """Return the permissions for the delivery of alarms to GitHub, if the environment has one."""
    if environment.config.monitoring.github is None:
        return {}
    linked = f"arn:{environment.partition}:iam::{environment.account}:role/aws-service-role/{_API_DESTINATIONS}/*"
    queue = environment.arn("sqs", undelivered_queue(environment.prefix))
    return {
        "alarms": [
            allow((*_READ_DELIVERY, *_MAKE_DELIVERY), _events(environment)),
            allow(_MAKE_SECRET, environment.arn("secretsmanager", f"secret:events!connection/{environment.prefix}-*")),
            allow(["iam:CreateServiceLinkedRole"], linked, StringEquals={"iam:AWSServiceName": _API_DESTINATIONS}),
            allow(["iam:PassRole"], _role_names(environment), StringEquals={"iam:PassedToService": _EVENTS}),
            allow((*_READ_QUEUE, *_MAKE_QUEUE), queue),
        ]
    }


def _read_delivery(environments: Sequence[Environment]) -> list[Statement]:
    if not environments:
        return []
    return [
        allow(_READ_DELIVERY, [arn for environment in environments for arn in _events(environment)]),
        allow(_READ_QUEUE, [one.arn("sqs", undelivered_queue(one.prefix)) for one in environments]),
    ]


def _events(environment: Environment) -> list[str]:
    """Return the ARN patterns of an environment's rules, connections and API destinations."""
    kinds = ("api-destination", "connection", "rule")
    return [environment.arn("events", f"{kind}/{environment.prefix}-*") for kind in kinds]


def _if_disposable(environment: Environment, actions: Sequence[str]) -> Sequence[str]:
    return actions if environment.config.disposable else ()


def _roles(layout: AccountLayout, environment: Environment) -> list[Statement]:
    roles = _role_names(environment)
    bounded = {"iam:PermissionsBoundary": layout.boundary_arn(environment)}
    return [
        allow(["iam:CreateRole", "iam:PutRolePolicy"], roles, StringEquals=bounded),
        allow((*_READ_ROLE, *_MAKE_ROLE, "iam:DeleteRolePolicy"), roles),
        allow(["iam:PassRole"], roles, StringEquals={"iam:PassedToService": "pods.eks.amazonaws.com"}),
    ]


def _cluster(environment: Environment) -> list[Statement]:
    return [
        allow([*_READ_CLUSTER, "eks:CreatePodIdentityAssociation"], _cluster_of(environment)),
        allow((*_READ_ASSOCIATION, *_MAKE_ASSOCIATION), _associations(environment)),
        allow(_READ_LOAD_BALANCERS, "*"),
    ]


def _releases(layout: AccountLayout, environment: Environment) -> list[Statement]:
    """Return the permissions to judge, promote and roll back releases.

    Bundles are copied from the environment before; in the first environment, training writes them.
    """
    before = layout.before(environment)
    written: tuple[str, ...] = ("ledger/", "quarantine/", "reports/")
    read = [*_objects(environment, "registry", *_WHOLE), _model_reports(environment)]
    others = [one for one in layout.environments if one is not environment]
    if before is not None:
        written = (*written, "bundles/", "evidence/")
        read += _objects(before, "registry", "bundles/", "evidence/")
    for other in others:
        read += _objects(other, "registry", *_JUDGED_EVERYWHERE)
    statements = [
        allow(["s3:GetObject"], read),
        allow(_JUDGE_IMAGE, _image_repositories(environment)),
        # Nothing in these is ever replaced (Amazon S3 user guide, "Enforce conditional writes").
        allow(["s3:PutObject"], _objects(environment, "registry", *written), Null={"s3:if-none-match": "false"}),
        allow(
            ["s3:PutObject"],
            [*_objects(environment, "registry", "images/"), *_objects(environment, "logs", *_LINEAGE_OF_DEPLOYMENTS)],
        ),
        allow(
            ["kms:Sign"],
            _every_key(environment),
            StringEquals={
                **_tagged(environment),
                "kms:MessageType": "RAW",
                "kms:SigningAlgorithm": "ECDSA_SHA_256",
            },
        ),
    ]
    if others:
        registries = [_bucket(other, "registry") for other in others]
        statements += [
            allow(["s3:ListBucket", "s3:ListBucketVersions"], registries),
            _through_s3(["kms:Decrypt"], *others),
        ]
    if before is not None:  # how many requests a release answered there
        seen = [f"{prefix}*/counts/*" for prefix in _INFERENCE_LOGS]
        statements.append(allow(["s3:ListBucket"], _bucket(before, "logs"), StringLike={"s3:prefix": seen}))
    return statements


def _alarms(environment: Environment) -> str:
    """Return the ARN pattern of an environment's CloudWatch alarms."""
    return environment.arn("cloudwatch", f"alarm:{environment.prefix}-*")


def _dashboards(environment: Environment) -> str:
    """Return the ARN pattern of an environment's CloudWatch dashboards, which belong to no region."""
    return f"arn:{environment.partition}:cloudwatch::{environment.account}:dashboard/{environment.prefix}-*"


def _through_s3(actions: Iterable[str], *environments: Environment) -> Statement:
    """Allow the use of environments' keys for objects in their buckets."""
    regions = sorted({f"s3.{environment.region}.amazonaws.com" for environment in environments})
    via = {"kms:ViaService": regions if len(regions) > 1 else regions[0]}
    return allow(actions, _every_key(*environments), StringEquals={**_tagged(*environments), **via})


def _every_key(*environments: Environment) -> list[str]:
    """Return ARN patterns for the keys of environments. Keys have no names, so conditions must select by tag."""
    return sorted({environment.arn("kms", "key/*") for environment in environments})


def _tagged(*environments: Environment) -> dict[str, Any]:
    names = [environment.name for environment in environments]
    return {"aws:ResourceTag/environment": names if len(names) > 1 else names[0]}


def _image_repositories(*environments: Environment) -> list[str]:
    """Return the ARNs of the repositories from which environments pull images, which may be in another account."""
    arns = set()
    for environment in environments:
        registry = environment.config.image_registry
        account, region = registry.account or environment.account, registry.region or environment.region
        for image in get_args(ImageName):
            name = repository_name(environment.project, image)
            arns.add(f"arn:{environment.partition}:ecr:{region}:{account}:repository/{name}")
    return sorted(arns)


def _buckets(environment: Environment) -> str:
    return f"arn:{environment.partition}:s3:::{environment.prefix}-*"


def _bucket(environment: Environment, purpose: str) -> str:
    return f"arn:{environment.partition}:s3:::{environment.bucket_name(purpose)}"


def _objects(environment: Environment, purpose: str, *prefixes: str) -> list[str]:
    return [f"{_bucket(environment, purpose)}/{prefix}*" for prefix in prefixes]


def _model_reports(environment: Environment) -> str:
    """Return the ARN pattern of the reports about an environment's models."""
    return f"{_bucket(environment, 'logs')}/{_MODEL_REPORTS}"


def _tables(environment: Environment) -> list[str]:
    database = environment.catalog_database
    named = ("catalog", f"database/{database}", f"table/{database}/*")
    return [environment.arn("glue", name) for name in named]


def _cluster_of(environment: Environment) -> str:
    return environment.arn("eks", f"cluster/{environment.config.cluster}")


def _associations(environment: Environment) -> str:
    return environment.arn("eks", f"podidentityassociation/{environment.config.cluster}/*")


def _role_names(environment: Environment) -> str:
    return f"arn:{environment.partition}:iam::{environment.account}:role/{environment.prefix}-*"
