"""Fixtures: a clone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clones import make_clone


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a clone of a bare origin with one commit."""
    return make_clone(tmp_path)
