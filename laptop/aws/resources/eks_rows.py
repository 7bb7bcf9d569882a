"""EKS Pod Identity associations. moto has none, so a file holds them; the cluster's credentials agent reads it."""

from __future__ import annotations

import hashlib

from laptop.aws.pod_identity import Association, associate, associations, cluster_of, dissociate
from laptop.aws.resources.row import AwsCall, Row, Values


def _create(call: AwsCall) -> str:
    # The id derives from the URN, so an interrupted create is found again.
    association_id = "a-" + hashlib.sha256(call.urn.encode()).hexdigest()[:17]
    _associate(call, association_id)
    return association_id


def _update(call: AwsCall) -> None:
    _associate(call, call.id)


def _associate(call: AwsCall, association_id: str) -> None:
    inputs = call.inputs
    associate(
        call.cloud.home,
        inputs["clusterName"],
        Association(association_id, inputs["namespace"], inputs["serviceAccount"], inputs["roleArn"]),
    )


def _read(call: AwsCall) -> Values | None:
    cluster = call.inputs.get("clusterName") or cluster_of(call.cloud.home, call.id)
    for found in associations(call.cloud.home, cluster):
        if found.id == call.id:
            return {
                "clusterName": cluster,
                "namespace": found.namespace,
                "serviceAccount": found.service_account,
                "roleArn": found.role_arn,
                "associationId": call.id,
                "associationArn": (
                    f"arn:aws:eks:{call.region}:{call.cloud.account}:podidentityassociation/{cluster}/{call.id}"
                ),
            }
    return None


def _delete(call: AwsCall) -> None:
    dissociate(call.cloud.home, call.inputs.get("clusterName", ""), call.id)


ROWS = (
    Row(
        "aws:eks/podIdentityAssociation:PodIdentityAssociation",
        create=_create,
        read=_read,
        update=_update,
        delete=_delete,
        required=("clusterName", "namespace", "serviceAccount", "roleArn"),
        optional=("disableSessionTags", "tags", "region"),
        named_by=("clusterName", "namespace", "serviceAccount"),
        replaces=("clusterName", "namespace", "serviceAccount", "region"),
        computed=("associationArn", "associationId", "region", "tagsAll"),
        recorded="moto has no EKS Pod Identity; the cluster's credentials agent reads the association from a file",
    ),
)
