"""Command line of the inference server: `python -m pipelines.serving --model NAME --bundle sha256:…`."""

from __future__ import annotations

import argparse
import os
import sys

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.serving.logs_bucket import logs_bucket
from pipelines.serving.server import run
from pipelines.serving.server_settings import ServerSettings


def main(arguments: list[str]) -> int:
    """Serve one bundle until a signal stops the process; return the exit status."""
    parser = argparse.ArgumentParser("python -m pipelines.serving", description="Serve one bundle of one model.")
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--bundle", required=True, help="digest of the bundle, sha256:…")
    given = parser.parse_args(arguments)
    try:
        settings = ServerSettings.from_environ(given.model, given.bundle, os.environ)
        descriptor = EnvironmentDescriptor.from_environ()
    except MlopsError as error:
        print(error, file=sys.stderr)
        return 1

    from pipelines.registry.evidence import verify_bundle

    return run(
        settings,
        lambda: verify_bundle(descriptor, settings.model, settings.bundle, all_runs=False),
        logs_bucket(descriptor.logs_bucket),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
