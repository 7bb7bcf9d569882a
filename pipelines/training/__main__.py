"""Command line of the training job: `python -m pipelines.training MODEL`, as the CronJob `train-MODEL` runs it."""

from __future__ import annotations

import argparse
import sys

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.outside_errors import explain
from pipelines.declarations.project import Project
from pipelines.startup import relax_gc
from pipelines.training.training_run import TrainingRun, run_training


def main(arguments: list[str] | None = None) -> int:
    """Run the job and print the digest of the bundle as the last line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.training", description="Train a model and register a signed bundle."
    )
    parser.add_argument("model", help="name of a folder in models/")
    model = parser.parse_args(arguments).model
    try:
        descriptor = EnvironmentDescriptor.from_environ()
        run = TrainingRun.from_environ(model)
        digest = run_training(Project.find(), descriptor, model, run, lambda line: print(line, flush=True))
    except Exception as error:
        outside = explain(error)
        if outside is None:
            raise
        print(f"error: {outside}", file=sys.stderr)
        return 1
    print(digest)
    return 0


if __name__ == "__main__":
    relax_gc()
    sys.exit(main())
