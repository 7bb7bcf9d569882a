"""Process that becomes a Sail server, and ends when its parent does: `sail_process PROGRAM PORT`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main() -> None:
    """Ask the kernel to end this process with its parent, then run the server in it."""
    program, port = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.execv(program, [program, "spark", "server", "--ip", "127.0.0.1", "--port", port])  # noqa: S606


if __name__ == "__main__":
    main()
