"""Patches for differences between moto and AWS. Each has a test and is removed once moto behaves like AWS."""

from __future__ import annotations

import time
from typing import Any


def patch_moto(scan_seconds: float = 0.0) -> None:
    """Patch moto in this process.

    Args:
        scan_seconds: seconds from the push of an image to the result of its scan.
    """
    from moto.ecr.models import ECRBackend
    from moto.iam.models import IAMBackend
    from moto.s3.models import FakeBucket, S3Backend

    FakeBucket.get_permission = _no_opinion  # type: ignore[method-assign,assignment]
    S3Backend.put_object_lock_configuration = _lock  # type: ignore[method-assign]
    ECRBackend.describe_image_scan_findings = _scan(scan_seconds)  # type: ignore[method-assign]
    IAMBackend.create_role = _with_a_boundary_that_exists(IAMBackend.create_role)  # type: ignore[method-assign]


def _scan(seconds: float) -> Any:
    """Answer like a scan on push that finds nothing. moto scans only on request, and always finds the same."""

    def describe(self: Any, registry_id: str, repository_name: str, image_id: dict[str, Any]) -> dict[str, Any]:
        from moto.ecr.exceptions import ScanNotFoundException

        repository = self._get_repository(repository_name, registry_id)
        image = repository._get_image(image_id.get("imageTag"), image_id.get("imageDigest"))
        if not (repository.image_scanning_configuration or {}).get("scanOnPush"):
            named = f"{{imageDigest:'{image.image_digest}', imageTag:'{image.image_tag or 'null'}'}}"
            raise ScanNotFoundException(named, repository_name, repository.registry_id)
        found: dict[str, Any] = {
            "registryId": repository.registry_id,
            "repositoryName": repository_name,
            "imageId": {"imageDigest": image.image_digest},
            "imageScanStatus": {"status": "IN_PROGRESS", "description": "The scan is in progress."},
        }
        at = image.image_pushed_at + seconds
        if time.time() >= at:
            found["imageScanStatus"] = {"status": "COMPLETE", "description": "The scan was completed successfully."}
            found["imageScanFindings"] = {
                "imageScanCompletedAt": at,
                "vulnerabilitySourceUpdatedAt": at,
                "findings": [],
                "findingSeverityCounts": {},
            }
        return found

    return describe


def _no_opinion(*_: Any) -> Any:
    """Leave bucket policies to the gate.

    moto's own check skips conditions, so a statement against plain HTTP would refuse every write.
    """
    from moto.iam.access_control import PermissionResult

    return PermissionResult.NEUTRAL


def _lock(
    self: Any,
    bucket_name: str,
    lock_enabled: bool,
    mode: str | None = None,
    days: int | None = None,
    years: int | None = None,
) -> None:
    """Allow a change of the default retention of a bucket with objects, which moto refuses."""
    from moto.s3.exceptions import InvalidBucketState

    bucket = self.get_bucket(bucket_name)
    if not bucket.is_versioned:
        raise InvalidBucketState("Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration")
    bucket.object_lock_enabled = bucket.object_lock_enabled or lock_enabled
    bucket.default_lock_mode, bucket.default_lock_days, bucket.default_lock_years = mode, days, years


def _with_a_boundary_that_exists(create_role: Any) -> Any:
    """Refuse a role with a boundary that does not exist, as IAM does."""

    def create(
        self: Any, name: str, trust: str, path: str, permissions_boundary: str | None, *args: Any, **more: Any
    ) -> Any:
        from moto.iam.exceptions import NotFoundException

        if permissions_boundary and permissions_boundary not in self.managed_policies:
            raise NotFoundException(f"Scope ARN: {permissions_boundary} does not exist or is not attachable.")
        return create_role(self, name, trust, path, permissions_boundary, *args, **more)

    return create
