"""ECR repositories and their lifecycle policies."""

from __future__ import annotations

from typing import Any

from laptop.aws.cloud import tolerating
from laptop.aws.resources.iam_rows import text
from laptop.aws.resources.row import AutoName, AwsCall, Row, Values, retag
from laptop.aws.shapes import tag_list, tag_map, to_aws, to_pulumi

_GONE = "RepositoryNotFoundException"
_NO_LIFECYCLE = "LifecyclePolicyNotFoundException"


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


def _put_lifecycle(call: AwsCall) -> str:
    repository = call.inputs["repository"]
    call.client("ecr").put_lifecycle_policy(repositoryName=repository, lifecyclePolicyText=text(call.inputs["policy"]))
    return str(repository)


def _update_lifecycle(call: AwsCall) -> None:
    _put_lifecycle(call)


def _read_lifecycle(call: AwsCall) -> Values | None:
    with tolerating(_GONE, _NO_LIFECYCLE):
        answer = call.client("ecr").get_lifecycle_policy(repositoryName=call.id)
        return {"repository": call.id, "registryId": answer["registryId"], "policy": answer["lifecyclePolicyText"]}
    return None


def _delete_lifecycle(call: AwsCall) -> None:
    with tolerating(_GONE, _NO_LIFECYCLE):
        call.client("ecr").delete_lifecycle_policy(repositoryName=call.id)


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
    ),
    Row(
        "aws:ecr/lifecyclePolicy:LifecyclePolicy",
        create=_put_lifecycle,
        read=_read_lifecycle,
        update=_update_lifecycle,
        delete=_delete_lifecycle,
        required=("repository", "policy"),
        optional=("region",),
        named_by=("repository",),
        replaces=("repository", "region"),
        documents=("policy",),
    ),
)
