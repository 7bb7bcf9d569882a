"""ECR repositories and their policies."""

from __future__ import annotations

from typing import Any

from laptop.aws.cloud import tolerating
from laptop.aws.resources.iam_rows import text
from laptop.aws.resources.row import AutoName, AwsCall, Row, Values, retag
from laptop.aws.shapes import tag_list, tag_map, to_aws, to_pulumi

_GONE = "RepositoryNotFoundException"


def _create_repository(call: AwsCall) -> str:
    inputs = call.inputs
    given: dict[str, Any] = {
        "repositoryName": inputs["name"],
        "imageTagMutability": inputs["imageTagMutability"],
        "imageScanningConfiguration": inputs.get("imageScanningConfiguration"),
        # Pulumi has a list with one encryption block.
        "encryptionConfiguration": next(iter(inputs.get("encryptionConfigurations") or []), None),
    }
    shape = call.cloud.shape("ecr", "CreateRepository")
    with tolerating(*(("RepositoryAlreadyExistsException",) if call.resuming else ())):
        call.client("ecr").create_repository(**to_aws(given, shape, "Repository"), tags=tag_list(inputs.get("tags")))
    return str(inputs["name"])


def _read_repository(call: AwsCall) -> Values | None:
    ecr = call.client("ecr")
    found: Values | None = None
    with tolerating(_GONE):
        found = ecr.describe_repositories(repositoryNames=[call.id])["repositories"][0]
    if found is None:
        return None
    live = {
        "name": found["repositoryName"],
        "arn": found["repositoryArn"],
        "registryId": found["registryId"],
        "repositoryUrl": found["repositoryUri"],
        "imageTagMutability": found["imageTagMutability"],
        "tags": tag_map(ecr.list_tags_for_resource(resourceArn=found["repositoryArn"])["tags"]),
    }
    if "imageScanningConfiguration" in call.inputs:
        live["imageScanningConfiguration"] = to_pulumi(found["imageScanningConfiguration"])
    if call.inputs.get("encryptionConfigurations"):
        live["encryptionConfigurations"] = [
            to_pulumi(found["encryptionConfiguration"], call.inputs["encryptionConfigurations"][0])
        ]
    return live


def _update_repository(call: AwsCall) -> None:
    ecr, name, inputs = call.client("ecr"), call.id, call.inputs
    if call.changed("imageTagMutability"):
        ecr.put_image_tag_mutability(repositoryName=name, imageTagMutability=inputs["imageTagMutability"])
    if call.changed("imageScanningConfiguration"):
        scanning = inputs.get("imageScanningConfiguration") or {"scanOnPush": False}
        ecr.put_image_scanning_configuration(repositoryName=name, imageScanningConfiguration=scanning)
    arn = f"arn:aws:ecr:{call.region}:{call.cloud.account}:repository/{name}"
    retag(
        call,
        lambda tags: ecr.tag_resource(resourceArn=arn, tags=tag_list(tags)),
        lambda keys: ecr.untag_resource(resourceArn=arn, tagKeys=keys),
    )


def _delete_repository(call: AwsCall) -> None:
    with tolerating(_GONE):
        call.client("ecr").delete_repository(repositoryName=call.id, force=bool(call.inputs.get("forceDelete")))


def _policy_row(name: str, put: str, get: str, delete: str, argument: str, missing: str, *, iam: bool) -> Row:
    """Build the row of a repository policy.

    Args:
        name: `LifecyclePolicy`.
        put: client method that sets it.
        get: client method that reads it.
        delete: client method that deletes it.
        argument: parameter of `put`, and member of `get`'s answer, with the policy.
        missing: error code for a repository without the policy.
        iam: the policy is an IAM policy.
    """

    def apply(call: AwsCall) -> str:
        method = getattr(call.client("ecr"), put)
        method(repositoryName=call.inputs["repository"], **{argument: text(call.inputs["policy"])})
        return str(call.inputs["repository"])

    def change(call: AwsCall) -> None:
        apply(call)

    def read(call: AwsCall) -> Values | None:
        with tolerating(_GONE, missing):
            answer = getattr(call.client("ecr"), get)(repositoryName=call.id)
            return {"repository": call.id, "registryId": answer["registryId"], "policy": answer[argument]}
        return None

    def clear(call: AwsCall) -> None:
        with tolerating(_GONE, missing):
            getattr(call.client("ecr"), delete)(repositoryName=call.id)

    return Row(
        f"aws:ecr/{name[0].lower()}{name[1:]}:{name}",
        create=apply,
        read=read,
        update=change,
        delete=clear,
        required=("repository", "policy"),
        optional=("region",),
        named_by=("repository",),
        replaces=("repository", "region"),
        documents=("policy",),
        policies=("policy",) if iam else (),
        computed=("region", "registryId"),
    )


ROWS = (
    Row(
        "aws:ecr/repository:Repository",
        create=_create_repository,
        read=_read_repository,
        update=_update_repository,
        delete=_delete_repository,
        optional=(
            "encryptionConfigurations",
            "forceDelete",
            "imageScanningConfiguration",
            "imageTagMutability",
            "name",
            "region",
            "tags",
        ),
        auto_name=AutoName(longest=256, lower=True),
        defaults={"imageTagMutability": "MUTABLE", "forceDelete": False},
        named_by=("name",),
        replaces=("name", "encryptionConfigurations", "region"),
        computed=("arn", "region", "registryId", "repositoryUrl", "tagsAll"),
        form={
            "imageScanningConfiguration": None,
            "encryptionConfigurations": [{"encryptionType": None, "kmsKey": None}],
        },
    ),
    _policy_row(
        "LifecyclePolicy",
        "put_lifecycle_policy",
        "get_lifecycle_policy",
        "delete_lifecycle_policy",
        "lifecyclePolicyText",
        "LifecyclePolicyNotFoundException",
        iam=False,
    ),
    _policy_row(
        "RepositoryPolicy",
        "set_repository_policy",
        "get_repository_policy",
        "delete_repository_policy",
        "policyText",
        "RepositoryPolicyNotFoundException",
        iam=True,
    ),
)
