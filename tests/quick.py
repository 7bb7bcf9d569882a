"""A plugin of pytest, as `tests.mutation` runs it: in the quickest way to a test that fails.

The account is in memory; what was found to notice most comes first, and what tries many inputs last; tests that kill
processes, which such an account could not outlive, are left out.
"""

from __future__ import annotations

from typing import Any

import pytest

import tests.aws
from tests.memory import account_in_memory

tests.aws.emulated_account = account_in_memory  # before any fixture takes it by its name


def pytest_collection_modifyitems(config: pytest.Config, items: list[Any]) -> None:
    """Order the tests as they stand in their files; mutmut names them in any order."""
    kept = [item for item in items if "killed" not in item.name]
    config.hook.pytest_deselected(items=[item for item in items if "killed" in item.name])
    places = {file: place for place, file in enumerate(config.getini("quickest_first"))}

    def rank(item: Any) -> tuple[bool, int, int]:
        tries_many = hasattr(item.obj, "hypothesis")
        return tries_many, places.get(item.location[0], len(places)), item.location[1] or 0

    items[:] = sorted(kept, key=rank)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The files of tests, quickest first."""
    parser.addini("quickest_first", "files of tests", type="linelist")
