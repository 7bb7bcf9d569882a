"""EKS Pod Identity associations. moto has none, so they are kept in a file that the small cluster's agent reads."""

from __future__ import annotations

import hashlib

from laptop.aws.pod_identity import Association, associate, associations, dissociate
from laptop.aws.resources.row import Call, Row, Values


def _create(call: Call) -> str:
    # The same URN gives the same id, so an interrupted create is found again.
    association_id = "a-" + hashlib.sha256(call.urn.encode()).hexdigest()[:17]
    _associate(call, association_id)
    return association_id


def _update(call: Call) -> None:
    _associate(call, call.tracked)


def _associate(call: Call, association_id: str) -> None:
    inputs = call.inputs
    associate(
        call.cloud.home,
        inputs["clusterName"],
        Association(association_id, inputs["namespace"], inputs["serviceAccount"], inputs["roleArn"]),
    )


def _read(call: Call) -> Values | None:
    cluster = call.inputs.get("clusterName", "")
    for found in associations(call.cloud.home, cluster):
        if found.id == call.tracked:
            return {
                "clusterName": cluster,
                "namespace": found.namespace,
                "serviceAccount": found.service_account,
                "roleArn": found.role_arn,
                "associationId": call.tracked,
                "associationArn": (
                    f"arn:aws:eks:{call.region}:{call.cloud.account}:podidentityassociation/{cluster}/{call.tracked}"
                ),
            }
    return None


def _delete(call: Call) -> None:
    dissociate(call.cloud.home, call.inputs.get("clusterName", ""), call.tracked)


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
        recorded="the emulator has no EKS Pod Identity; the small cluster's agent reads the association from a file",
    ),
)
