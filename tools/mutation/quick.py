"""pytest plugin for `tools.mutation`: run the tests that fail soonest first, with an AWS account in memory.

It deselects property tests, which are slow, and tests that kill processes, which would lose the account. Hence the
reported score is a lower bound.
"""

from __future__ import annotations

from typing import Any

import pytest

import tests.aws
from tools.mutation.memory import account_in_memory

tests.aws.emulated_account = account_in_memory  # before a fixture imports it


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    """Order the tests by file and line; mutmut passes them in any order."""
    slow = [item for item in items if "killed" in item.originalname or hasattr(item.obj, "hypothesis")]
    config.hook.pytest_deselected(items=slow)
    places = {file: place for place, file in enumerate(config.getini("quickest_first"))}
    kept = [item for item in items if item not in slow]
    items[:] = sorted(kept, key=lambda item: (places.get(item.location[0], len(places)), item.location[1] or 0))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option with the test files, quickest first."""
    parser.addini("quickest_first", "files of tests", type="linelist")
