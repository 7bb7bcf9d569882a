"""Start-up of short-lived processes."""

from __future__ import annotations

import atexit
import gc
import os
import sys

QUIET = {
    "DO_NOT_TRACK": "1",
    "GH_NO_EXTENSION_UPDATE_NOTIFIER": "1",
    "GH_NO_UPDATE_NOTIFIER": "1",
    "GH_TELEMETRY": "false",
    "ORT_DISABLE_TELEMETRY": "1",
    "PULUMI_SKIP_UPDATE_CHECK": "true",
}
"""Variables that turn off telemetry and update checks of the programs and libraries that commands use."""


def report_nothing() -> None:
    """Turn off telemetry and update checks in this process and its children. A variable that is set keeps its value."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


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
