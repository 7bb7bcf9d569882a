"""Start the laptop for a journey: as quick as it can be, or as late and strict as AWS."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from laptop import delays, lifecycle
from laptop.lifecycle import Laptop

REALISTIC = "MLOPS_TEST_REALISTIC"
"""Variable with the time scale of a realistic laptop; `make test-realistic` sets it."""

_SCALE = float(os.environ.get(REALISTIC) or 0)  # now: journeys remove the variables of this project


def start_laptop(home: Path, root: Path, patch: pytest.MonkeyPatch) -> Laptop:
    """Start a laptop that ends with this process. The process is its administrator."""
    if not _SCALE:
        return lifecycle.start(home, root, attached=True)
    patch.setenv(lifecycle.ADMINISTRATOR, "1")
    chosen = delays.realistic(time_scale=_SCALE)
    return lifecycle.start(home, root, attached=True, time_scale=1 / _SCALE, delays=chosen)
