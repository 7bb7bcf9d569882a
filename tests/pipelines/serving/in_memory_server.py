"""A server process without AWS: its bundle is made in memory, and its inference log goes to a folder.

`python -m tests.pipelines.serving.in_memory_server <folder> <kind>`: the kind is `good`, or names a fault. With
`bucket`, the log goes to the bucket `logs` at `AWS_ENDPOINT_URL_S3`, with little patience and a small buffer.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

from pipelines.declarations.errors import MlopsError
from pipelines.serving.inference_log import Limits
from pipelines.serving.logs_bucket import logs_bucket
from pipelines.serving.server import run
from pipelines.serving.server_settings import ServerSettings
from tests.pipelines.serving.bundles import MadeBundle, linear_bundle, with_file

SMALL_BUFFER = 20_000
"""Memory for about 30 records of a small request, in bytes."""


def main(folder: Path, kind: str) -> int:
    """Serve until a signal; return the exit status."""
    bundle = linear_bundle(expected=0.0 if kind == "bad-golden" else 59.0 + 32.1)
    if kind == "bad-model":
        bundle = with_file(bundle, "model.onnx", b"not ONNX")

    def load() -> MadeBundle:
        if kind == "slow":
            threading.Event().wait()
        if kind == "broken-registry":
            raise MlopsError("the registry cannot be reached", fix="try again")
        return bundle

    def write(key: str, content: bytes) -> None:
        if kind == "failing-log":
            raise OSError("no bucket today")
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    digest = "sha256:" + "f" * 64 if kind == "other-digest" else bundle.digest
    settings = ServerSettings.from_environ(bundle.manifest.model, digest, os.environ)
    limits = Limits(seconds=0.2, first_pause=0.05, closing_seconds=1.0)
    if kind == "bucket":
        impatient = replace(limits, attempts=3, buffer_bytes=SMALL_BUFFER, closing_seconds=10.0)
        return run(settings, load, logs_bucket("logs"), limits=impatient)
    return run(settings, load, write, limits=limits)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
