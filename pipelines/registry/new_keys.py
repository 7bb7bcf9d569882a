"""Retry requests that a new KMS key denies, because AWS applies its tags late.

A change of a key's tags can take up to five minutes to affect who may use the key (AWS KMS developer guide, "ABAC for
AWS KMS"), and requests about a new key can fail for some time ("Programming with eventual consistency"). A denial by an
older key is final.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

LATE = timedelta(minutes=6)
"""Age up to which a key's denial may be due to tags that do not count yet."""

PAUSE_SECONDS = 5.0
"""Seconds between attempts."""

_DENIED = ("AccessDenied", "AccessDeniedException")
_KEY = re.compile(r"kms:\w+ on resource: (arn:[\w-]+:kms:[\w-]+:\d+:key/[\w-]+)")
_log = logging.getLogger(__name__)

Describe = Callable[[str], datetime | None]
"""Return when a key, given by its ARN, was created; None if that cannot be read."""


def denying_key(answer: dict[str, Any]) -> str | None:
    """Return the ARN of the KMS key that denied a request; None if the request was not denied by one.

    Args:
        answer: the parsed answer. S3 names the key and the action of KMS, too, when a key denies it.
    """
    error = answer.get("Error") or {}
    found = _KEY.search(str(error.get("Message", ""))) if error.get("Code") in _DENIED else None
    return found[1] if found else None


class NewKeyRetries:
    """Handler of botocore's event `needs-retry`.

    Args:
        created: tells when a key was created.
        now: the time.
    """

    def __init__(self, created: Describe, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._created = created
        self._now = now
        self._named: set[str] = set()
        self._asking = threading.local()

    def __call__(self, response: tuple[Any, dict[str, Any]] | None, **_: Any) -> float | None:
        """Return the seconds until the request is sent again; None to let it fail.

        Args:
            response: the HTTP answer and the parsed one; None if there was no answer.
        """
        key = denying_key(response[1]) if response is not None else None
        if key is None or getattr(self._asking, "active", False):
            return None
        self._asking.active = True
        try:
            created = self._created(key)
        finally:
            self._asking.active = False
        if created is None or self._now() - created >= LATE:
            return None
        if key not in self._named:
            self._named.add(key)
            until = created + LATE
            _log.warning("the new key %s denies access: trying again until %s", key, f"{until:%H:%M:%S} UTC")
        return PAUSE_SECONDS


def creation_time(kms: Callable[[str], Any]) -> Describe:
    """Return a function that asks KMS when a key was created.

    Args:
        kms: returns the KMS client of a region.
    """

    def describe(arn: str) -> datetime | None:
        try:
            found: datetime = kms(arn.split(":")[3]).describe_key(KeyId=arn)["KeyMetadata"]["CreationDate"]
        except (BotoCoreError, ClientError):
            return None
        return found

    return describe
