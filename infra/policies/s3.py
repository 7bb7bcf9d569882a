"""Rules for S3 buckets."""

from __future__ import annotations

from collections.abc import Iterator

from infra.policies.policy_documents import ANYONE, conditions, many, principals, statements
from infra.policies.resource_graph import UNKNOWN, Graph, at, elements, holds
from infra.policies.rule import Finding, rule

BUCKET = "aws:s3/bucket:Bucket"
ENCRYPTION = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
POLICY = "aws:s3/bucketPolicy:BucketPolicy"
_ACCESS = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
_VERSIONING = "aws:s3/bucketVersioning:BucketVersioning"
_OWNERSHIP = "aws:s3/bucketOwnershipControls:BucketOwnershipControls"
_LOGGING = "aws:s3/bucketLogging:BucketLogging"
_LIFECYCLE = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
_LOCK = "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration"
_ACL = "aws:s3/bucketAcl:BucketAcl"


@rule(
    "s3-public-access-blocked",
    "A bucket blocks public access with all four settings",
    "CKV_AWS_53",
    "CKV_AWS_54",
    "CKV_AWS_55",
    "CKV_AWS_56",
    "CKV2_AWS_6",
)
def public_access_blocked(graph: Graph) -> Iterator[Finding]:
    ways = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    for bucket in graph.of_type(BUCKET):
        blocks = graph.setting(bucket, _ACCESS)
        if not blocks:
            yield bucket, "has no public access block"
        for block in blocks:
            for way in ways:
                if not holds(block.at(way), True):
                    yield bucket, f"{way} is not true"


@rule("s3-encrypted-with-customer-key", "A bucket is encrypted with a customer-managed KMS key", "CKV_AWS_145")
def encrypted_with_customer_key(graph: Graph) -> Iterator[Finding]:
    for bucket in graph.of_type(BUCKET):
        found = graph.setting(bucket, ENCRYPTION)
        if not found:
            yield bucket, "has no encryption configuration"
        for encryption in found:
            default = encryption.at("rules", 0, "applyServerSideEncryptionByDefault")
            if not holds(at(default, "sseAlgorithm"), "aws:kms", "aws:kms:dsse"):
                yield bucket, f"is encrypted with {at(default, 'sseAlgorithm')}"
            elif not at(default, "kmsMasterKeyId"):
                yield bucket, "is encrypted with the AWS-managed key"


@rule("s3-bucket-key", "A bucket encrypted with KMS has a bucket key")
def bucket_key(graph: Graph) -> Iterator[Finding]:
    for bucket in graph.of_type(BUCKET):
        for encryption in graph.setting(bucket, ENCRYPTION):
            algorithm = encryption.at("rules", 0, "applyServerSideEncryptionByDefault", "sseAlgorithm")
            if algorithm == "aws:kms" and not holds(encryption.at("rules", 0, "bucketKeyEnabled"), True):
                yield bucket, "has no bucket key"


@rule("s3-versioned", "A bucket is versioned", "CKV_AWS_21")
def versioned(graph: Graph) -> Iterator[Finding]:
    for bucket in graph.of_type(BUCKET):
        found = graph.setting(bucket, _VERSIONING)
        if not any(holds(setting.at("versioningConfiguration", "status"), "Enabled") for setting in found):
            yield bucket, "is not versioned"


@rule("s3-owner-enforced", "A bucket has no ACL, and its owner owns every object", "CKV2_AWS_65")
def owner_enforced(graph: Graph) -> Iterator[Finding]:
    for bucket in graph.of_type(BUCKET):
        found = graph.setting(bucket, _OWNERSHIP)
        if not any(holds(setting.at("rule", "objectOwnership"), "BucketOwnerEnforced") for setting in found):
            yield bucket, "does not enforce bucket owner ownership"
        if graph.setting(bucket, _ACL) or bucket.at("acl") not in (None, UNKNOWN, "private"):
            yield bucket, "has an ACL"


@rule("s3-tls-only", "A bucket refuses plain HTTP", "CKV2_AWS_70")
def tls_only(graph: Graph) -> Iterator[Finding]:
    for bucket in graph.of_type(BUCKET):
        policies = [statements(policy.at("policy")) for policy in graph.setting(bucket, POLICY)]
        if None in policies:
            continue  # unknown
        name = bucket.at("bucket")
        if not any(_refuses_http(statement, name) for policy in policies for statement in policy or ()):
            yield bucket, "allows plain HTTP"


def _refuses_http(statement: dict[str, object], bucket: object) -> bool:
    resources = {str(resource).rpartition(":::")[2] for resource in many(statement.get("Resource"))}
    return (
        statement.get("Effect") == "Deny"
        and ANYONE in principals(statement)
        and {"*", "s3:*"} & set(many(statement.get("Action"))) != set()
        and (bucket is UNKNOWN or {bucket, f"{bucket}/*"} <= resources)
        and ("Bool", "aws:securetransport", "false") in conditions(statement)
    )


@rule("s3-no-public-principal", "A bucket policy allows no unnamed principal", "CKV_AWS_70")
def no_public_principal(graph: Graph) -> Iterator[Finding]:
    for policy in graph.of_type(POLICY):
        for statement in statements(policy.at("policy")) or ():
            if statement.get("Effect") == "Allow" and (ANYONE in principals(statement) or "NotPrincipal" in statement):
                yield policy, "allows any principal"


@rule("s3-access-logged", "A bucket logs access to another bucket", "CKV_AWS_18")
def access_logged(graph: Graph) -> Iterator[Finding]:
    for bucket in graph.of_type(BUCKET):
        logging = graph.setting(bucket, _LOGGING)
        if not any(setting.at("targetBucket") for setting in logging):
            yield bucket, "logs no access"
        elif any(setting.at("targetBucket") == bucket.at("bucket") != UNKNOWN for setting in logging):
            yield bucket, "logs access to itself"


@rule("s3-lifecycle", "A bucket expires abandoned uploads and old versions", "CKV_AWS_300", "CKV2_AWS_61")
def lifecycle(graph: Graph) -> Iterator[Finding]:
    for bucket in graph.of_type(BUCKET):
        found = graph.setting(bucket, _LIFECYCLE)
        if any(setting.at("rules") is UNKNOWN for setting in found):
            continue
        rules = [item for setting in found for item in elements(setting.at("rules"))]
        active = [item for item in rules if at(item, "status") == "Enabled" and not at(item, "filter", "prefix")]
        if not any(at(item, "abortIncompleteMultipartUpload", "daysAfterInitiation") for item in active):
            yield bucket, "never expires abandoned uploads"
        if not any(at(item, "noncurrentVersionExpiration", "noncurrentDays") for item in active):
            yield bucket, "never expires old versions"


@rule("s3-kept", "A bucket is protected and cannot be deleted with its objects, unless the environment is disposable")
def kept(graph: Graph) -> Iterator[Finding]:
    for bucket in graph.of_type(BUCKET):
        if graph.disposable:
            continue
        if bucket.at("forceDestroy") is True:
            yield bucket, "can be deleted together with its objects"
        if not bucket.protect:
            yield bucket, "is not protected"


@rule("s3-object-lock-retains", "A bucket with Object Lock has a default retention")
def object_lock_retains(graph: Graph) -> Iterator[Finding]:
    for bucket in graph.of_type(BUCKET):
        if bucket.at("objectLockEnabled") is not True:
            continue
        days = [lock.at("rule", "defaultRetention", "days") for lock in graph.setting(bucket, _LOCK)]
        if not any(days):
            yield bucket, "retains nothing by default"
