"""Fixtures of the pipelines' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.aws import EmulatedAccount, emulated_account


@pytest.fixture(scope="module")
def account() -> Iterator[EmulatedAccount]:
    """An emulated AWS account, of one module's tests; the SDKs of this process find it."""
    with emulated_account() as running:
        yield running
