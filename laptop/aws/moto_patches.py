"""Patches for differences between moto and AWS. Each has a test and is removed once moto behaves like AWS."""

from __future__ import annotations

from typing import Any


def patch_moto() -> None:
    """Patch moto in this process."""
    from moto.ecr.models import ECRBackend
    from moto.iam.models import IAMBackend
    from moto.s3.models import FakeBucket, S3Backend

    FakeBucket.get_permission = _no_opinion  # type: ignore[method-assign,assignment]
    S3Backend.put_object_lock_configuration = _lock  # type: ignore[method-assign]
    ECRBackend.put_image = _scanned_on_push(ECRBackend.put_image)  # type: ignore[method-assign]
    ECRBackend.describe_image_scan_findings = _without_an_invented_finding(  # type: ignore[method-assign]
        ECRBackend.describe_image_scan_findings
    )
    IAMBackend.create_role = _with_a_boundary_that_exists(IAMBackend.create_role)  # type: ignore[method-assign]


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


def _scanned_on_push(put_image: Any) -> Any:
    """Scan a pushed image if its repository says so, as ECR does. moto scans on request only."""

    def put(self: Any, repository_name: str, *args: Any, **more: Any) -> Any:
        from datetime import datetime

        image = put_image(self, repository_name, *args, **more)
        if self.repositories[repository_name].image_scanning_configuration.get("scanOnPush"):
            image.last_scan = image.last_scan or datetime.today()
        return image

    return put


def _without_an_invented_finding(describe: Any) -> Any:
    """Return no finding where moto invents one. The laptop's images hold files of the project and nothing to scan.

    Findings that were planted through moto's API are returned.
    """

    def describe_findings(self: Any, *args: Any, **more: Any) -> Any:
        answer = describe(self, *args, **more)
        found = answer["imageScanFindings"]
        if [finding["name"] for finding in found.get("findings", [])] == ["CVE-9999-9999"]:
            return {**answer, "imageScanFindings": {**found, "findings": [], "findingSeverityCounts": {}}}
        return answer

    return describe_findings
