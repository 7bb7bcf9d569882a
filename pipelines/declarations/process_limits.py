"""Limits of a process that runs what others wrote."""

from __future__ import annotations

from contextlib import suppress


def limit_memory(most: int) -> None:
    """Limit the private memory of this process, and let it write no core dump.

    Systems other than Linux accept the limit of memory, but may not enforce it.

    Args:
        most: bytes.
    """
    import resource

    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
