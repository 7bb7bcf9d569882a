"""What the roles of GitHub's jobs may do, and what bounds the roles that those make.

An environment's resources are told by the beginning of their names, its keys by their tag `environment`: nothing here
reaches from one environment into another, save to read what it promotes. Source of actions, resources and condition
keys: AWS service authorization reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pulumi

from infra.bootstrap.estate import Estate
from infra.environment import Environment

Statement = dict[str, Any]

_READ_BUCKET = (
    "s3:GetAccelerateConfiguration",
    "s3:GetBucket*",
    "s3:GetEncryptionConfiguration",
    "s3:GetLifecycleConfiguration",
    "s3:GetReplicationConfiguration",
    "s3:ListBucket",
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
_REMOVE_BUCKET = ("s3:DeleteBucket", "s3:DeleteBucketPolicy", "s3:ListBucketVersions")
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
_READ_CATALOGUE = ("glue:GetDatabase", "glue:GetPartitionIndexes", "glue:GetTable", "glue:GetTags")
_MAKE_CATALOGUE = (
    "glue:CreateDatabase",
    "glue:CreateTable",
    "glue:TagResource",
    "glue:UntagResource",
    "glue:UpdateDatabase",
    "glue:UpdateTable",
)
_REMOVE_CATALOGUE = ("glue:DeleteDatabase", "glue:DeleteTable")
_READ_REPOSITORY = (
    "ecr:DescribeImages",
    "ecr:DescribeRepositories",
    "ecr:GetLifecyclePolicy",
    "ecr:ListTagsForResource",
)
_MAKE_REPOSITORY = (
    "ecr:CreateRepository",
    "ecr:DeleteLifecyclePolicy",
    "ecr:PutImageScanningConfiguration",
    "ecr:PutImageTagMutability",
    "ecr:PutLifecyclePolicy",
    "ecr:TagResource",
    "ecr:UntagResource",
)
_REMOVE_REPOSITORY = ("ecr:BatchDeleteImage", "ecr:DeleteRepository")
_TAKE_IMAGE = (
    "ecr:BatchCheckLayerAvailability",
    "ecr:BatchGetImage",
    "ecr:CompleteLayerUpload",
    "ecr:InitiateLayerUpload",
    "ecr:PutImage",
    "ecr:UploadLayerPart",
)
_GIVE_IMAGE = ("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
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

_REGISTRY = ("bundles/", "evidence/", "ledger/", "quarantine/", "reports/", "runs/")
"""What lies in a registry: see `pipelines/registry` and `pipelines/promotion/report.py`."""

_JUDGED_EVERYWHERE = ("ledger/", "quarantine/")
"""What a promotion to one environment asks the others about: what is live there, and what was found bad."""

_ANSWERED = ("inference/",)
"""Where a logs bucket says what endpoints have answered."""


def allow(
    actions: Iterable[str], resources: pulumi.Input[str] | Sequence[str], **condition: dict[str, Any]
) -> Statement:
    """A statement that allows."""
    listed = list(resources) if isinstance(resources, list | tuple) else [resources]
    statement: Statement = {"Effect": "Allow", "Action": sorted(set(actions)), "Resource": listed}
    return {**statement, "Condition": condition} if condition else statement


def deploys(estate: Estate, environment: Environment) -> dict[str, list[Statement]]:
    """What the deployment of an environment may do, by what it is about; each is a policy of its role.

    Only what may be lost can be removed: where an environment is not disposable, nothing here deletes a bucket, an
    object, a key, a table or an image.
    """
    return {
        "storage": [*_storage(environment), *_catalogue(environment)],
        "keys": _keys(environment),
        "images": _images(estate, environment),
        "identity": [*_roles(estate, environment), *_cluster(environment)],
        "releases": _releases(estate, environment),
    }


def opens(environment: Environment) -> list[Statement]:
    """How the deployment of an environment says who may use what it has made: the buckets and the roles there."""
    return [
        allow(["s3:PutBucketPolicy"], _buckets(environment)),
        allow(["iam:UpdateAssumeRolePolicy"], _role_names(environment)),
    ]


def previews(estate: Estate) -> dict[str, list[Statement]]:
    """What a preview and the gates may do: look at every environment, and change nothing at all.

    `pulumi preview` takes no lock and writes no state (pulumi/pulumi, pkg/backend/diy/backend.go), so that nothing need
    be written for it either.
    """
    everywhere = estate.environments
    tables = [table for environment in everywhere for table in _tables(environment)]
    return {
        "resources": [
            allow(_READ_BUCKET, [_buckets(environment) for environment in everywhere]),
            allow(_READ_CATALOGUE, sorted(set(tables))),
            allow(_READ_REPOSITORY, [_repositories(environment) for environment in everywhere]),
            allow(_READ_ROLE, [_role_names(environment) for environment in everywhere]),
            allow(_READ_KEY, _every_key(*everywhere), StringEquals=_tagged(*everywhere)),
            allow(_READ_CLUSTER, sorted({_cluster_of(environment) for environment in everywhere})),
            allow(_READ_ASSOCIATION, sorted({_associations(environment) for environment in everywhere})),
            allow(["kms:ListAliases"], "*"),
        ],
        "releases": [
            allow(
                ["s3:GetObject"],
                [
                    *(arn for environment in everywhere for arn in _objects(environment, "registry", *_REGISTRY)),
                    *(arn for environment in everywhere for arn in _objects(environment, "logs", *_ANSWERED)),
                ],
            ),
            _through_s3(["kms:Decrypt"], *everywhere),
        ],
    }


def keeps_state(
    estate: Estate, environment: Environment, bucket_arn: str, key_arn: pulumi.Input[str]
) -> list[Statement]:
    """What keeping the state of one stack needs: see every stack's, write its own.

    Source: Pulumi, "State and backends", AWS S3, required permissions; the layout of pkg/backend/diy.
    """
    own = f"{estate.main}/{environment.name}"
    return [
        *reads_state(bucket_arn, key_arn),
        allow(
            ["s3:DeleteObject", "s3:PutObject"],
            [
                f"{bucket_arn}/.pulumi/stacks/{own}.json*",
                f"{bucket_arn}/.pulumi/history/{own}/*",
                f"{bucket_arn}/.pulumi/backups/{own}/*",
                f"{bucket_arn}/.pulumi/locks/organization/{own}/*",
            ],
        ),
        allow(["kms:Encrypt", "kms:GenerateDataKey"], key_arn),
    ]


def reads_state(bucket_arn: str, key_arn: pulumi.Input[str]) -> list[Statement]:
    """What reading the state of any stack needs, and opening the secrets in it."""
    return [
        allow(["s3:GetBucketLocation", "s3:ListBucket"], bucket_arn),
        allow(["s3:GetObject"], f"{bucket_arn}/.pulumi/*"),
        allow(["kms:Decrypt", "kms:DescribeKey"], key_arn),
    ]


def bounds(environment: Environment) -> list[Statement]:
    """The most that a role of an environment can be given: what all of its jobs and endpoints together need."""
    return [
        allow(
            ["s3:AbortMultipartUpload", "s3:GetObject", "s3:ListBucket", "s3:PutObject"],
            [_buckets(environment), f"{_buckets(environment)}/*"],
        ),
        allow(
            ["kms:Decrypt", "kms:GenerateDataKey", "kms:Sign"],
            _every_key(environment),
            StringEquals=_tagged(environment),
        ),
        allow(["glue:GetDatabase", "glue:GetTable", "glue:UpdateTable"], _tables(environment)),
    ]


def _storage(environment: Environment) -> list[Statement]:
    buckets, emptied = _buckets(environment), f"{_buckets(environment)}/*"
    removed = _if_disposable(environment, _REMOVE_BUCKET)
    return [
        allow((*_READ_BUCKET, *_MAKE_BUCKET, *removed), buckets),
        *([allow(_EMPTY_BUCKET, emptied)] if removed else []),
    ]


def _catalogue(environment: Environment) -> list[Statement]:
    # Glue writes the first metadata of an Iceberg table in the name of who makes it.
    metadata = f"{_bucket(environment, 'lake')}/{environment.catalog_database}/*/metadata/*"
    removed = _if_disposable(environment, _REMOVE_CATALOGUE)
    return [
        allow((*_READ_CATALOGUE, *_MAKE_CATALOGUE, *removed), _tables(environment)),
        allow(["s3:GetObject", "s3:PutObject"], metadata),
    ]


def _keys(environment: Environment) -> list[Statement]:
    keys, own = _every_key(environment), _tagged(environment)
    asked = {"aws:RequestTag/environment": environment.name}
    ecr = {"kms:ViaService": f"ecr.{environment.region}.amazonaws.com"}
    return [
        allow(["kms:CreateKey"], "*", StringEquals=asked),
        # Tags come with the key when it is made; a key of another environment cannot be claimed by a tag.
        allow(["kms:TagResource"], keys, StringEqualsIfExists={**own, **asked}),
        allow((*_READ_KEY, *_MAKE_KEY, *_if_disposable(environment, _REMOVE_KEY)), keys, StringEquals=own),
        allow(
            ["kms:CreateAlias", "kms:DeleteAlias", "kms:UpdateAlias"],
            environment.arn("kms", f"alias/{environment.prefix}-*"),
        ),
        allow(["kms:ListAliases"], "*"),
        # ECR keeps a grant for itself on the key that encrypts a repository.
        allow(["kms:CreateGrant"], keys, StringEquals={**own, **ecr}, Bool={"kms:GrantIsForAWSResource": "true"}),
        _through_s3(["kms:Decrypt", "kms:GenerateDataKey"], environment),
    ]


def _images(estate: Estate, environment: Environment) -> list[Statement]:
    about = (*_READ_REPOSITORY, *_MAKE_REPOSITORY, *_if_disposable(environment, _REMOVE_REPOSITORY))
    before = estate.before(environment)
    if before is not None:
        # A deployment brings the images over (pipelines/promotion/replicate_image.py).
        return [
            allow((*about, *_TAKE_IMAGE), _repositories(environment)),
            allow(_GIVE_IMAGE, _repositories(before)),
        ]
    # Images are built for, and pushed to, the first environment.
    return [
        allow((*about, *_TAKE_IMAGE, *_GIVE_IMAGE), _repositories(environment)),
        allow(["ecr:GetAuthorizationToken"], "*"),
    ]


def _if_disposable(environment: Environment, actions: Sequence[str]) -> Sequence[str]:
    return actions if environment.config.disposable else ()


def _roles(estate: Estate, environment: Environment) -> list[Statement]:
    roles = _role_names(environment)
    bounded = {"iam:PermissionsBoundary": estate.boundary_arn(environment)}
    return [
        allow(["iam:CreateRole", "iam:PutRolePolicy"], roles, StringEquals=bounded),
        allow((*_READ_ROLE, *_MAKE_ROLE, "iam:DeleteRolePolicy"), roles),
        allow(["iam:PassRole"], roles, StringEquals={"iam:PassedToService": "pods.eks.amazonaws.com"}),
    ]


def _cluster(environment: Environment) -> list[Statement]:
    return [
        allow([*_READ_CLUSTER, "eks:CreatePodIdentityAssociation"], _cluster_of(environment)),
        allow((*_READ_ASSOCIATION, *_MAKE_ASSOCIATION), _associations(environment)),
    ]


def _releases(estate: Estate, environment: Environment) -> list[Statement]:
    """Judge, promote and roll back: what is written here, and what is read here, in the one before and in all others.

    A bundle comes from the environment before; where there is none, training has put it there.
    """
    before = estate.before(environment)
    written: tuple[str, ...] = ("ledger/", "quarantine/", "reports/")
    read = [*_objects(environment, "registry", *_REGISTRY), *_objects(environment, "logs", *_ANSWERED)]
    others = [one for one in estate.environments if one is not environment]
    if before is not None:
        written = (*written, "bundles/", "evidence/")
        read += _objects(before, "registry", "bundles/", "evidence/")
    for other in others:
        read += [*_objects(other, "registry", *_JUDGED_EVERYWHERE), *_objects(other, "logs", *_ANSWERED)]
    statements = [
        allow(["s3:GetObject"], read),
        allow(["s3:PutObject"], _objects(environment, "registry", *written)),
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
        held = [_bucket(other, kind) for other in others for kind in ("registry", "logs")]
        seen = [f"{prefix}*" for prefix in (*_REGISTRY, *_ANSWERED)]
        statements += [
            allow(["s3:ListBucket"], held, StringLike={"s3:prefix": seen}),
            _through_s3(["kms:Decrypt"], *others),
        ]
    if environment.config.trains:  # `mlops ingest --file` lands a batch
        statements.append(allow(["s3:AbortMultipartUpload", "s3:PutObject"], _objects(environment, "landing", "")))
    return statements


def _through_s3(actions: Iterable[str], *environments: Environment) -> Statement:
    """The use of the keys of environments for what lies in their buckets."""
    regions = sorted({f"s3.{environment.region}.amazonaws.com" for environment in environments})
    via = {"kms:ViaService": regions if len(regions) > 1 else regions[0]}
    return allow(actions, _every_key(*environments), StringEquals={**_tagged(*environments), **via})


def _every_key(*environments: Environment) -> list[str]:
    """The keys where environments live: a key has no name, so that conditions must say which are meant."""
    return sorted({environment.arn("kms", "key/*") for environment in environments})


def _tagged(*environments: Environment) -> dict[str, Any]:
    names = [environment.name for environment in environments]
    return {"aws:ResourceTag/environment": names if len(names) > 1 else names[0]}


def _buckets(environment: Environment) -> str:
    return f"arn:{environment.partition}:s3:::{environment.prefix}-*"


def _bucket(environment: Environment, purpose: str) -> str:
    return f"arn:{environment.partition}:s3:::{environment.bucket_name(purpose)}"


def _objects(environment: Environment, purpose: str, *prefixes: str) -> list[str]:
    return [f"{_bucket(environment, purpose)}/{prefix}*" for prefix in prefixes]


def _tables(environment: Environment) -> list[str]:
    database = environment.catalog_database
    named = ("catalog", f"database/{database}", f"table/{database}/*")
    return [environment.arn("glue", name) for name in named]


def _cluster_of(environment: Environment) -> str:
    return environment.arn("eks", f"cluster/{environment.config.cluster}")


def _associations(environment: Environment) -> str:
    return environment.arn("eks", f"podidentityassociation/{environment.config.cluster}/*")


def _repositories(environment: Environment) -> str:
    return environment.arn("ecr", f"repository/{environment.prefix}/*")


def _role_names(environment: Environment) -> str:
    return f"arn:{environment.partition}:iam::{environment.account}:role/{environment.prefix}-*"
