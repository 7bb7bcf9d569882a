"""Report a user's mistakes without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pulumi

from pipelines.declarations.errors import MlopsError


@contextmanager
def reported() -> Iterator[None]:
    """Turn an error that a person can act on into `pulumi.RunError`, which Pulumi shows without a traceback.

    A context manager for a program, and a decorator for a function that an output is applied to: Pulumi calls that
    function after the program has ended.

    Raises:
        pulumi.RunError: an `MlopsError` was raised; it has the same text.
    """
    try:
        yield
    except MlopsError as error:
        raise pulumi.RunError(str(error)) from error
