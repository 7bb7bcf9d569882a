"""A plugin of pytest, as `tools.mutation` runs it: in the quickest way to a test that fails.

The account is in memory. Left out are tests that try hundreds of inputs, and tests that kill processes, which such an
account could not outlive; so the score is rather too low than too high.
"""

from __future__ import annotations

from typing import Any

import pytest

import tests.aws
from tools.mutation.memory import account_in_memory

tests.aws.emulated_account = account_in_memory  # before any fixture takes it by its name


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    """Order the tests as they stand in their files; mutmut names them in any order."""
    slow = [item for item in items if "killed" in item.originalname or hasattr(item.obj, "hypothesis")]
    config.hook.pytest_deselected(items=slow)
    places = {file: place for place, file in enumerate(config.getini("quickest_first"))}
    kept = [item for item in items if item not in slow]
    items[:] = sorted(kept, key=lambda item: (places.get(item.location[0], len(places)), item.location[1] or 0))


def pytest_addoption(parser: pytest.Parser) -> None:
    """The files of tests, quickest first."""
    parser.addini("quickest_first", "files of tests", type="linelist")
