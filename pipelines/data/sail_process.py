"""Process that becomes Sail, and ends when its parent does.

`python -m pipelines.data.sail_process HOST PORT` is a server, and `… worker` is a worker of one.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)


def find_sail() -> str | None:
    """Return the path of the program, which is beside Python's or on the PATH; None if it is not installed."""
    return shutil.which("sail", path=str(Path(sys.executable).parent)) or shutil.which("sail")


def endpoint_of_s3(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which Sail finds an endpoint of S3 other than AWS's, as boto3 finds it."""
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or ""
    if not endpoint:
        return {}
    return {"AWS_ENDPOINT": endpoint, "AWS_ALLOW_HTTP": str(endpoint.startswith("http:")).lower()}


def sail_command(program: str, arguments: Sequence[str]) -> list[str]:
    """Return the command of a server (`HOST PORT`) or of a worker (`worker`)."""
    if list(arguments) == ["worker"]:
        return [program, "worker"]
    host, port = arguments
    return [program, "spark", "server", "--ip", host, "--port", port]


def addresses(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which a worker listens at its own address only, not at every address of its machine."""
    own = environ.get("SAIL_CLUSTER__WORKER_EXTERNAL_HOST", "")
    return {"SAIL_CLUSTER__WORKER_LISTEN_HOST": own} if own else {}


def main() -> None:
    """Ask the kernel to end this process with its parent, then run Sail in it; exit with 1 if there is none."""
    program = find_sail()
    if program is None:
        print("error: the program sail is not installed: expected it on the PATH, found none", file=sys.stderr)
        print("fix: run an image that was built after a contract says engine: spark; or make spark", file=sys.stderr)
        sys.exit(1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    command = sail_command(program, sys.argv[1:])
    os.execve(program, command, {**os.environ, **endpoint_of_s3(os.environ), **addresses(os.environ)})  # noqa: S606


if __name__ == "__main__":
    main()
