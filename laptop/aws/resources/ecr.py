"""Image repositories and their policies."""

from __future__ import annotations

from typing import Any

from laptop.aws.cloud import tolerating
from laptop.aws.resources.iam import text
from laptop.aws.resources.row import AutoName, Call, Row, Values
from laptop.aws.shapes import tag_list, tag_map, to_aws, to_pulumi

_GONE = "RepositoryNotFoundException"


def _create_repository(call: Call) -> str:
    inputs = call.inputs
    given: dict[str, Any] = {
        "repositoryName": inputs["name"],
        "imageTagMutability": inputs["imageTagMutability"],
        "imageScanningConfiguration": inputs.get("imageScanningConfiguration"),
        # Pulumi holds the one encryption block as a list.
        "encryptionConfiguration": next(iter(inputs.get("encryptionConfigurations") or []), None),
    }
    shape = call.cloud.shape("ecr", "CreateRepository")
    with tolerating(*(("RepositoryAlreadyExistsException",) if call.resuming else ())):
        call.client("ecr").create_repository(**to_aws(given, shape, "Repository"), tags=tag_list(inputs.get("tags")))
    return str(inputs["name"])


def _read_repository(call: Call) -> Values | None:
    ecr = call.client("ecr")
    found: Values | None = None
    with tolerating(_GONE):
        found = ecr.describe_repositories(repositoryNames=[call.tracked])["repositories"][0]
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


def _update_repository(call: Call) -> None:
    ecr, name, inputs = call.client("ecr"), call.tracked, call.inputs
    if call.changed("imageTagMutability"):
        ecr.put_image_tag_mutability(repositoryName=name, imageTagMutability=inputs["imageTagMutability"])
    if call.changed("imageScanningConfiguration"):
        scanning = inputs.get("imageScanningConfiguration") or {"scanOnPush": False}
        ecr.put_image_scanning_configuration(repositoryName=name, imageScanningConfiguration=scanning)
    if call.changed("tags"):
        arn = f"arn:aws:ecr:{call.region}:{call.cloud.account}:repository/{name}"
        old, new = call.old.get("tags") or {}, inputs.get("tags") or {}
        if new:
            ecr.tag_resource(resourceArn=arn, tags=tag_list(new))
        if set(old) - set(new):
            ecr.untag_resource(resourceArn=arn, tagKeys=sorted(set(old) - set(new)))


def _delete_repository(call: Call) -> None:
    with tolerating(_GONE):
        call.client("ecr").delete_repository(repositoryName=call.tracked, force=bool(call.inputs.get("forceDelete")))


def _policy_row(name: str, put: str, get: str, delete: str, argument: str, missing: str, iam: bool) -> Row:
    """A row for a policy of a repository."""

    def apply(call: Call) -> str:
        method = getattr(call.client("ecr"), put)
        method(repositoryName=call.inputs["repository"], **{argument: text(call.inputs["policy"])})
        return str(call.inputs["repository"])

    def change(call: Call) -> None:
        apply(call)

    def read(call: Call) -> Values | None:
        with tolerating(_GONE, missing):
            answer = getattr(call.client("ecr"), get)(repositoryName=call.tracked)
            return {
                "repository": call.tracked,
                "registryId": answer["registryId"],
                "policy": answer[argument],
            }
        return None

    def clear(call: Call) -> None:
        with tolerating(_GONE, missing):
            getattr(call.client("ecr"), delete)(repositoryName=call.tracked)

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
