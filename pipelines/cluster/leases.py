"""Leases of the Kubernetes API: one holder at a time, with a record of who it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource

from pipelines.cluster.connection import read_with_retry, write_with_retry

_Lease = create_namespaced_resource("coordination.k8s.io", "v1", "Lease", "leases")

HOLDER_ANNOTATION = "mlops/holder"
"""Annotation with the record of the holder."""

_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True)
class LeaseState:
    """A Lease as it was read.

    Attributes:
        version: its resource version; None if it does not exist.
        identity: identity of the holder; "" if it is free.
        record: what the holder recorded about itself.
        expires: when the holder loses it unless it renews it.
    """

    version: str | None = None
    identity: str = ""
    record: str = ""
    expires: datetime | None = None

    def is_free(self, now: datetime) -> bool:
        """Return whether the Lease has no holder, or the holder did not renew it in time."""
        return not self.identity or self.expires is None or self.expires <= now


def read_lease(client: Client, name: str) -> LeaseState:
    """Return the state of a Lease in the client's namespace.

    Raises:
        ApiError: the cluster rejects the request.
    """
    try:
        found = read_with_retry(lambda: client.get(_Lease, name)).to_dict()  # type: ignore[no-untyped-call]
    except ApiError as error:
        if error.status.code != 404:
            raise
        return LeaseState()
    spec, metadata = found.get("spec") or {}, found["metadata"]
    renewed = spec.get("renewTime")
    expires = None
    if renewed:
        expires = datetime.fromisoformat(renewed) + timedelta(seconds=int(spec.get("leaseDurationSeconds") or 0))
    return LeaseState(
        metadata["resourceVersion"],
        str(spec.get("holderIdentity") or ""),
        str((metadata.get("annotations") or {}).get(HOLDER_ANNOTATION) or ""),
        expires,
    )


def write_lease(client: Client, name: str, seen: LeaseState, identity: str, record: str, seconds: int) -> bool:
    """Take, renew or, with an empty identity, release a Lease, unless it has changed since it was read.

    Args:
        client: client of the namespace.
        name: name of the Lease.
        seen: its state as it was read.
        identity: the new holder.
        record: what the holder records about itself.
        seconds: how long it holds the Lease without renewing it.

    Returns:
        False if the Lease has changed since.

    Raises:
        ApiError: the cluster rejects the request.
    """
    now = datetime.now(UTC).strftime(_TIME)
    spec = {"holderIdentity": identity, "leaseDurationSeconds": seconds, "renewTime": now}
    if seen.identity != identity:
        spec["acquireTime"] = now
    metadata = {"name": name, "namespace": client.namespace, "annotations": {HOLDER_ANNOTATION: record}}
    if seen.version is not None:
        metadata["resourceVersion"] = seen.version
    lease = _Lease.from_dict({"metadata": metadata, "spec": spec})
    try:
        write_with_retry(lambda: client.create(lease) if seen.version is None else client.replace(lease))
    except ApiError as error:
        if error.status.code not in (404, 409):  # it was created, changed or deleted
            raise
        # Perhaps by this very request: it was repeated because its answer was lost.
        return bool(identity) and read_lease(client, name).identity == identity
    return True
