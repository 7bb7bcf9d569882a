"""Limit the time of work that waits for a server of others."""

from __future__ import annotations

import threading
from collections.abc import Callable


def finishes_within(seconds: float, work: Callable[[], object]) -> bool:
    """Do some work, and return True once it is done; False if it goes on after a time, in the background.

    The timeout of a socket starts again with each byte, so a server that sends one now and then is never too late for
    it. What is left of the work ends with the process.

    Args:
        seconds: how long to wait.
        work: what to do; must not raise.
    """
    thread = threading.Thread(target=work, name="limited", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
