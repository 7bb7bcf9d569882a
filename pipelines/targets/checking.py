"""Run the checks of `mlops doctor`: whatever fails is a finding, never a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pipelines.declarations.errors import MlopsError
from pipelines.targets.target import Finding

_LONGEST_REASON = 200


def check(name: str, fix: str, look: Callable[[], tuple[bool, str]]) -> Finding:
    """Return the finding of one check.

    Args:
        name: what is checked.
        fix: what to do if the requirement is not met.
        look: returns whether it is met, and the actual state. Any exception becomes a finding.
    """
    try:
        ok, found = look()
    except Exception as error:
        # Every library has its own exceptions, and one check must not hide the ones after it.
        return Finding(name, False, f"cannot be checked: {reason_of(error)}", _fix_of(error) or fix)
    return Finding(name, ok, found, fix)


def guarded(name: str, findings: Iterable[Finding], fix: str) -> Iterator[Finding]:
    """Yield findings; if their source fails, end with a finding that says so."""
    try:
        yield from findings
    except Exception as error:
        yield Finding(name, False, f"cannot be checked: {reason_of(error)}", _fix_of(error) or fix)


def reason_of(error: Exception) -> str:
    """Return the first line of an error, with its type unless it was written for people."""
    text = error.what if isinstance(error, MlopsError) else str(error)
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")[:_LONGEST_REASON]
    if isinstance(error, MlopsError):
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _fix_of(error: Exception) -> str:
    return error.fix if isinstance(error, MlopsError) else ""
