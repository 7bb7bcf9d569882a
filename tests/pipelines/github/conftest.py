"""Fixtures of the tests of git and GitHub."""

from tests.pipelines.promotion.conftest import clone

__all__ = ["clone"]
