"""S3 buckets and their settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from laptop.aws.cloud import code_of, tolerating
from laptop.aws.resources.row import AutoName, AwsCall, Row, Values
from laptop.aws.shapes import tag_list, tag_map, to_aws, to_pulumi
from pipelines.declarations.errors import MlopsError

_GONE = ("NoSuchBucket", "404", "NotFound")
_PAGE = 1000
"""Versions deleted with one request, the most that S3 takes."""

_DELETIONS = 10
"""Attempts to delete a bucket that receives objects while it is emptied."""


def _create_bucket(call: AwsCall) -> str:
    s3, name = call.client("s3"), call.inputs["bucket"]
    parameters: dict[str, Any] = {"Bucket": name}
    if call.region != "us-east-1":
        parameters["CreateBucketConfiguration"] = {"LocationConstraint": call.region}
    if call.inputs["objectLockEnabled"]:
        parameters["ObjectLockEnabledForBucket"] = True
    if not call.resuming and _bucket_exists(s3, name):
        # In us-east-1, creating a bucket that the account already owns succeeds.
        raise MlopsError(f"the bucket `{name}` already exists", fix="choose another name, or delete the bucket.")
    with tolerating("BucketAlreadyOwnedByYou"):
        s3.create_bucket(**parameters)
    if call.inputs.get("tags"):
        s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tag_list(call.inputs["tags"])})
    return str(name)


def _bucket_exists(s3: Any, name: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        s3.head_bucket(Bucket=name)
    except ClientError as error:
        if code_of(error) in _GONE:
            return False
        raise
    return True


def _read_bucket(call: AwsCall) -> Values | None:
    s3, name = call.client("s3"), call.id
    if not _bucket_exists(s3, name):
        return None
    with_tags: Values = {}
    with tolerating("NoSuchTagSet"):
        with_tags = tag_map(s3.get_bucket_tagging(Bucket=name)["TagSet"])
    lock = {} if "objectLockEnabled" in call.inputs else {"objectLockEnabled": _locks(s3, name)}
    return {
        **lock,
        "bucket": name,
        "arn": f"arn:aws:s3:::{name}",
        "bucketDomainName": f"{name}.s3.amazonaws.com",
        "bucketRegionalDomainName": f"{name}.s3.{call.region}.amazonaws.com",
        "bucketRegion": call.region,
        "tags": with_tags,
    }


def _locks(s3: Any, bucket: str) -> bool:
    with tolerating("ObjectLockConfigurationNotFoundError"):
        found = s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
        return bool(found.get("ObjectLockEnabled") == "Enabled")
    return False


def _update_bucket(call: AwsCall) -> None:
    if not call.changed("tags"):
        return
    s3, name = call.client("s3"), call.id
    if call.inputs.get("tags"):
        s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tag_list(call.inputs["tags"])})
    else:
        s3.delete_bucket_tagging(Bucket=name)


def _delete_bucket(call: AwsCall) -> None:
    from botocore.exceptions import ClientError

    s3, force = call.client("s3"), bool(call.inputs.get("forceDestroy"))
    with tolerating(*_GONE):
        for left in reversed(range(_DELETIONS)):
            if force:
                _empty(s3, call.id, locked=bool(call.inputs.get("objectLockEnabled")))
            try:
                s3.delete_bucket(Bucket=call.id)
                return
            except ClientError as error:
                # Access logs of other buckets arrived since. The official provider empties the bucket again as well.
                if not (force and left and code_of(error) == "BucketNotEmpty"):
                    raise


def _empty(s3: Any, bucket: str, *, locked: bool) -> None:
    """Delete all versions of all objects, from the beginning each time: what a page began with is gone by then."""
    extra = {"BypassGovernanceRetention": True} if locked else {}
    while found := _some_versions(s3, bucket):
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": found, "Quiet": True}, **extra)
        if answer.get("Errors"):
            first = answer["Errors"][0]
            raise MlopsError(
                f"the bucket `{bucket}` cannot be emptied: {first.get('Key')}: {first.get('Message')}",
                fix="wait until the retention of its objects has ended.",
            )


def _some_versions(s3: Any, bucket: str) -> list[dict[str, str]]:
    page = s3.list_object_versions(Bucket=bucket, MaxKeys=_PAGE)
    return [
        {"Key": item["Key"], "VersionId": item["VersionId"]}
        for item in page.get("Versions", []) + page.get("DeleteMarkers", [])
    ]


_BUCKET = Row(
    "aws:s3/bucket:Bucket",
    create=_create_bucket,
    read=_read_bucket,
    update=_update_bucket,
    delete=_delete_bucket,
    optional=("bucket", "forceDestroy", "objectLockEnabled", "tags", "region"),
    auto_name=AutoName("bucket", longest=63, lower=True),
    defaults={"forceDestroy": False, "objectLockEnabled": False},
    named_by=("bucket",),
    replaces=("bucket", "objectLockEnabled", "region"),
    computed=("arn", "bucketDomainName", "bucketRegion", "bucketRegionalDomainName", "region", "tagsAll"),
)


def _setting(
    name: str,
    put: str,
    get: str,
    parameter: str,
    properties: tuple[str, ...],
    *,
    missing: tuple[str, ...] = (),
    inside: str = "",
    cleared_by: str | Values = "",
    required: bool = True,
    form: Values | None = None,
    defaults: Values | None = None,
) -> Row:
    """Build the row of a bucket setting with one operation to put and one to get it.

    Args:
        name: `BucketVersioning`.
        put: operation that sets it (`PutBucketVersioning`).
        get: operation that reads it.
        parameter: parameter of `put`, and member of `get`'s answer, that holds the setting.
        properties: inputs that make up the setting. If there is one and `inside` is "", the input is the setting.
        missing: error codes for a bucket without the setting.
        inside: member of the setting that holds the first property (`Rules`).
        cleared_by: operation that removes the setting, or the setting that means "none".
        required: the properties must be given.
        form: as in `Row`.
    """

    def setting(call: AwsCall) -> Any:
        given = {key: call.inputs[key] for key in properties if call.inputs.get(key) is not None}
        if inside:
            given = {inside: call.inputs[properties[0]]} | {
                key: value for key, value in given.items() if key != properties[0]
            }
        elif len(properties) == 1 and properties[0].lower() == parameter.lower():
            given = call.inputs[properties[0]]
        return to_aws(given, call.cloud.shape("s3", put).members[parameter], name)

    def apply(call: AwsCall) -> str:
        method = getattr(call.client("s3"), _snake(put))
        method(Bucket=call.inputs["bucket"], **{parameter: setting(call)})
        return str(call.inputs["bucket"])

    def change(call: AwsCall) -> None:
        apply(call)

    def read(call: AwsCall) -> Values | None:
        from botocore.exceptions import ClientError

        try:
            answer = getattr(call.client("s3"), _snake(get))(Bucket=call.id)
        except ClientError as error:
            if code_of(error) in (*_GONE, *missing):
                return None
            raise
        answer.pop("ResponseMetadata", None)
        found = answer.get(parameter, answer if parameter not in answer else {})
        if not found:
            return None
        # A property missing from the answer is no longer set.
        live: Values = {"bucket": call.id, **{key: None for key in properties if key in call.inputs}}
        if inside:
            live[properties[0]] = to_pulumi(found.get(inside, []), call.inputs.get(properties[0]))
            found = {key: value for key, value in found.items() if key != inside}
            live |= to_pulumi(found, {key: call.inputs[key] for key in properties[1:] if key in call.inputs})
        elif len(properties) == 1 and properties[0].lower() == parameter.lower():
            live[properties[0]] = to_pulumi(found, call.inputs.get(properties[0]))
        else:
            live |= to_pulumi(found, {key: call.inputs.get(key) for key in properties})
        return live

    def clear(call: AwsCall) -> None:
        s3 = call.client("s3")
        with tolerating(*_GONE, *missing, "InvalidBucketState"):
            if isinstance(cleared_by, str):
                if cleared_by:
                    getattr(s3, _snake(cleared_by))(Bucket=call.id)
            else:
                getattr(s3, _snake(put))(Bucket=call.id, **{parameter: cleared_by})

    token = name[0].lower() + name[1:]
    return Row(
        f"aws:s3/{token}:{name}",
        create=apply,
        read=read,
        update=change,
        delete=clear,
        required=("bucket", *(properties if required else ())),
        optional=(*(() if required else properties), "region"),
        named_by=("bucket",),
        replaces=("bucket", "region"),
        defaults=defaults or {},
        computed=("region",),
        form=form or {},
    )


def _snake(operation: str) -> str:
    from botocore import xform_name

    return str(xform_name(operation))


_SETTINGS = (
    _setting(
        "BucketVersioning",
        "PutBucketVersioning",
        "GetBucketVersioning",
        "VersioningConfiguration",
        ("versioningConfiguration",),
        cleared_by={"Status": "Suspended"},
    ),
    _setting(
        "BucketServerSideEncryptionConfiguration",
        "PutBucketEncryption",
        "GetBucketEncryption",
        "ServerSideEncryptionConfiguration",
        ("rules",),
        inside="Rules",
        missing=("ServerSideEncryptionConfigurationNotFoundError",),
        cleared_by="DeleteBucketEncryption",
        form={
            "rules": [
                {
                    "applyServerSideEncryptionByDefault": {"sseAlgorithm": None, "kmsMasterKeyId": None},
                    "bucketKeyEnabled": None,
                }
            ]
        },
    ),
    _setting(
        "BucketPublicAccessBlock",
        "PutPublicAccessBlock",
        "GetPublicAccessBlock",
        "PublicAccessBlockConfiguration",
        ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"),
        missing=("NoSuchPublicAccessBlockConfiguration",),
        cleared_by="DeletePublicAccessBlock",
        required=False,
        defaults={
            "blockPublicAcls": False,
            "blockPublicPolicy": False,
            "ignorePublicAcls": False,
            "restrictPublicBuckets": False,
        },
    ),
    _setting(
        "BucketOwnershipControls",
        "PutBucketOwnershipControls",
        "GetBucketOwnershipControls",
        "OwnershipControls",
        ("rule",),
        inside="Rules",
        missing=("OwnershipControlsNotFoundError",),
        cleared_by="DeleteBucketOwnershipControls",
        form={"rule": {"objectOwnership": None}},
    ),
    _setting(
        "BucketLifecycleConfiguration",
        "PutBucketLifecycleConfiguration",
        "GetBucketLifecycleConfiguration",
        "LifecycleConfiguration",
        ("rules",),
        inside="Rules",
        missing=("NoSuchLifecycleConfiguration",),
        cleared_by="DeleteBucketLifecycle",
        form={
            "rules": [
                {
                    "id": None,
                    "status": None,
                    "filter": {"prefix": None, "objectSizeGreaterThan": None, "objectSizeLessThan": None},
                    "expiration": {"days": None, "date": None, "expiredObjectDeleteMarker": None},
                    "transitions": [{"days": None, "date": None, "storageClass": None}],
                    "noncurrentVersionExpiration": {"noncurrentDays": None, "newerNoncurrentVersions": None},
                    "noncurrentVersionTransitions": [{"noncurrentDays": None, "storageClass": None}],
                    "abortIncompleteMultipartUpload": {"daysAfterInitiation": None},
                }
            ]
        },
    ),
    _setting(
        "BucketObjectLockConfiguration",
        "PutObjectLockConfiguration",
        "GetObjectLockConfiguration",
        "ObjectLockConfiguration",
        ("rule", "objectLockEnabled"),
        missing=("ObjectLockConfigurationNotFoundError",),
        cleared_by={"ObjectLockEnabled": "Enabled"},
        required=False,
        defaults={"objectLockEnabled": "Enabled"},
        form={"rule": {"defaultRetention": {"mode": None, "days": None}}, "objectLockEnabled": None},
    ),
)


def _put_policy(call: AwsCall) -> str:
    policy = call.inputs["policy"]
    text = policy if isinstance(policy, str) else json.dumps(policy)
    call.client("s3").put_bucket_policy(Bucket=call.inputs["bucket"], Policy=text)
    return str(call.inputs["bucket"])


def _change(create: Callable[[AwsCall], str]) -> Callable[[AwsCall], None]:
    def change(call: AwsCall) -> None:
        create(call)

    return change


def _read_policy(call: AwsCall) -> Values | None:
    with tolerating(*_GONE, "NoSuchBucketPolicy"):
        answer = call.client("s3").get_bucket_policy(Bucket=call.id)
        return {"bucket": call.id, "policy": answer["Policy"]}
    return None


def _delete_policy(call: AwsCall) -> None:
    with tolerating(*_GONE, "NoSuchBucketPolicy"):
        call.client("s3").delete_bucket_policy(Bucket=call.id)


_POLICY = Row(
    "aws:s3/bucketPolicy:BucketPolicy",
    create=_put_policy,
    read=_read_policy,
    update=_change(_put_policy),
    delete=_delete_policy,
    required=("bucket", "policy"),
    optional=("region",),
    named_by=("bucket",),
    replaces=("bucket", "region"),
    documents=("policy",),
    policies=("policy",),
    computed=("region",),
)


def _put_logging(call: AwsCall) -> str:
    names = ("targetBucket", "targetPrefix", "targetObjectKeyFormat", "targetGrants")
    given = {name: call.inputs[name] for name in names if call.inputs.get(name) is not None}
    shape = call.cloud.shape("s3", "PutBucketLogging").members["BucketLoggingStatus"].members["LoggingEnabled"]
    call.client("s3").put_bucket_logging(
        Bucket=call.inputs["bucket"],
        BucketLoggingStatus={"LoggingEnabled": to_aws(given, shape, "BucketLogging")},
    )
    return str(call.inputs["bucket"])


def _read_logging(call: AwsCall) -> Values | None:
    found: Values | None = None
    with tolerating(*_GONE):
        live = call.client("s3").get_bucket_logging(Bucket=call.id).get("LoggingEnabled")
        if live:
            found = {
                "bucket": call.id,
                "targetBucket": live["TargetBucket"],
                "targetPrefix": live.get("TargetPrefix", ""),
            }
    return found


def _delete_logging(call: AwsCall) -> None:
    with tolerating(*_GONE):
        call.client("s3").put_bucket_logging(Bucket=call.id, BucketLoggingStatus={})


_LOGGING = Row(
    "aws:s3/bucketLogging:BucketLogging",
    create=_put_logging,
    read=_read_logging,
    update=_change(_put_logging),
    delete=_delete_logging,
    required=("bucket", "targetBucket", "targetPrefix"),
    optional=("targetObjectKeyFormat", "targetGrants", "region"),
    named_by=("bucket",),
    replaces=("bucket", "region"),
    computed=("region",),
)

_NOTIFIES = {
    "queues": ("QueueConfigurations", "queueArn", "QueueArn"),
    "topics": ("TopicConfigurations", "topicArn", "TopicArn"),
    "lambdaFunctions": ("LambdaFunctionConfigurations", "lambdaFunctionArn", "LambdaFunctionArn"),
}


def _put_notification(call: AwsCall) -> str:
    configuration: dict[str, Any] = {}
    if call.inputs.get("eventbridge"):
        configuration["EventBridgeConfiguration"] = {}
    for name, (member, ours, aws) in _NOTIFIES.items():
        if call.inputs.get(name):
            configuration[member] = [_notify(item, ours, aws) for item in call.inputs[name]]
    call.client("s3").put_bucket_notification_configuration(
        Bucket=call.inputs["bucket"],
        NotificationConfiguration=configuration,
        SkipDestinationValidation=True,
    )
    return str(call.inputs["bucket"])


def _notify(item: Values, ours: str, aws: str) -> Values:
    rules = [
        {"Name": name, "Value": item[key]}
        for key, name in (("filterPrefix", "prefix"), ("filterSuffix", "suffix"))
        if item.get(key)
    ]
    found: Values = {aws: item[ours], "Events": item["events"]}
    if item.get("id"):
        found["Id"] = item["id"]
    return {**found, "Filter": {"Key": {"FilterRules": rules}}} if rules else found


def _read_notification(call: AwsCall) -> Values | None:
    live: Values | None = None
    with tolerating(*_GONE):
        answer = call.client("s3").get_bucket_notification_configuration(Bucket=call.id)
        live = {"bucket": call.id}
        for name, (member, ours, aws) in _NOTIFIES.items():
            if name in call.inputs:
                found, guides = answer.get(member, []), call.inputs[name]
                live[name] = [
                    _notified(item, ours, aws, like)
                    for item, like in zip(found, guides or [_TARGET] * len(found), strict=False)
                ]
    return live


_TARGET = dict.fromkeys(("id", "events", "filterPrefix", "filterSuffix", "queueArn", "topicArn", "lambdaFunctionArn"))


def _notified(item: Values, ours: str, aws: str, like: Values) -> Values:
    rules = {
        rule["Name"].lower(): rule["Value"] for rule in item.get("Filter", {}).get("Key", {}).get("FilterRules", [])
    }
    found = {
        ours: item[aws],
        "events": item["Events"],
        "id": item.get("Id"),
        "filterPrefix": rules.get("prefix"),
        "filterSuffix": rules.get("suffix"),
    }
    return {key: value for key, value in found.items() if key in like and (value is not None or like is not _TARGET)}


def _delete_notification(call: AwsCall) -> None:
    with tolerating(*_GONE):
        call.client("s3").put_bucket_notification_configuration(Bucket=call.id, NotificationConfiguration={})


_NOTIFICATION = Row(
    "aws:s3/bucketNotification:BucketNotification",
    create=_put_notification,
    read=_read_notification,
    update=_change(_put_notification),
    delete=_delete_notification,
    required=("bucket",),
    optional=("eventbridge", *_NOTIFIES, "region"),
    defaults={"eventbridge": False},
    named_by=("bucket",),
    replaces=("bucket", "region"),
    computed=("region",),
    form={name: [] for name in _NOTIFIES},
)

ROWS = (_NOTIFICATION, _BUCKET, *_SETTINGS, _POLICY, _LOGGING)
