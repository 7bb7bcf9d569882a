"""`python -m pipelines.training <model>`: what the CronJob `train-<model>` runs."""

from __future__ import annotations

import argparse
import sys

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.startup import relax_gc
from pipelines.training.job import Run, run_training


def main(arguments: list[str] | None = None) -> int:
    """Run the job; prints the bundle's digest as the last line."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.training", description=__doc__)
    parser.add_argument("model", help="a folder in models/")
    model = parser.parse_args(arguments).model
    try:
        descriptor = EnvironmentDescriptor.from_environ()
        run = Run.from_environ(model)
        digest = run_training(Project.find(), descriptor, model, run, lambda line: print(line, flush=True))
    except MlopsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(digest)
    return 0


if __name__ == "__main__":
    relax_gc()
    sys.exit(main())
