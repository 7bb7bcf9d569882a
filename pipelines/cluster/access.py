"""Ask the Kubernetes API what the caller may do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lightkube import Client
from lightkube.models.authorization_v1 import ResourceAttributes, SelfSubjectAccessReviewSpec
from lightkube.resources.authorization_v1 import SelfSubjectAccessReview


@dataclass(frozen=True)
class Permission:
    """A permission in a namespace.

    Attributes:
        verb: such as `patch`.
        resource: plural, such as `rollouts`, or with a subresource, such as `rollouts/status`.
        group: API group; "" for the core group.
    """

    verb: str
    resource: str
    group: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f".{self.group}" if self.group else "")


def find_denied(client: Client, permissions: Iterable[Permission]) -> list[Permission]:
    """Return the permissions that the caller does not have in the client's namespace.

    Raises:
        ApiError: the cluster rejects the question.
    """
    denied = []
    for one in permissions:
        resource, _, subresource = one.resource.partition("/")
        asked = ResourceAttributes(
            group=one.group,
            namespace=client.namespace,
            resource=resource,
            subresource=subresource or None,
            verb=one.verb,
        )
        review = SelfSubjectAccessReview(spec=SelfSubjectAccessReviewSpec(resourceAttributes=asked))
        answer = client.create(review)
        if answer.status is None or not answer.status.allowed:
            denied.append(one)
    return denied
