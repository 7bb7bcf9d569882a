"""Where moto departs from AWS in a way that would mislead, set right. Each has a test, and goes when moto does it."""

from __future__ import annotations

from typing import Any


def correct_moto() -> None:
    """Applies the corrections to moto in this process."""
    from moto.s3.models import FakeBucket, S3Backend

    FakeBucket.get_permission = _no_opinion  # type: ignore[method-assign,assignment]
    S3Backend.put_object_lock_configuration = _lock  # type: ignore[method-assign]


def _no_opinion(*_: Any) -> Any:
    """The gate judges bucket policies, conditions and all.

    moto's own look at them skips conditions, so that a statement against plain HTTP would refuse every write.
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
    """The default retention of a bucket can change while it holds objects; moto wants it empty."""
    from moto.s3.exceptions import InvalidBucketState

    bucket = self.get_bucket(bucket_name)
    if not bucket.is_versioned:
        raise InvalidBucketState("Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration")
    bucket.object_lock_enabled = bucket.object_lock_enabled or lock_enabled
    bucket.default_lock_mode, bucket.default_lock_days, bucket.default_lock_years = mode, days, years
