"""Start-up of short-lived processes."""

from __future__ import annotations

import atexit
import gc
import sys


def relax_gc() -> None:
    """Relax the garbage collector for short-lived commands and jobs.

    The SDKs and scientific libraries define thousands of classes, none of them garbage. Scanning them during imports
    and again at exit takes a quarter of the time of a command that runs for seconds.
    """
    gc.set_threshold(100_000)
    atexit.register(_skip_the_last_collection)


def _skip_the_last_collection() -> None:
    # If duckdb's types are not collected at exit, nanobind prints a leak warning for each.
    if "duckdb" not in sys.modules:
        gc.freeze()
