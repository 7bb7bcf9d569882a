"""Batch prediction job: `python -m pipelines.prediction MODEL`, as the CronJob `predict-MODEL` runs it."""

from __future__ import annotations

import argparse
import logging
import sys

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.outside_errors import explain
from pipelines.declarations.project import Project
from pipelines.startup import relax_gc

REFUSED = 3
"""Exit status if the input is refused: another attempt would end the same way."""


def main(arguments: list[str] | None = None) -> int:
    """Run the job and print the snapshot with the predictions as the last line; return the exit status."""
    from pipelines.prediction.prediction_inputs import RefusedInputError
    from pipelines.prediction.prediction_job import run_prediction
    from pipelines.prediction.prediction_request import requested_prediction

    parser = argparse.ArgumentParser(
        prog="python -m pipelines.prediction", description="Predict a file or a dataset version."
    )
    parser.add_argument("model", help="name of a folder in models/")
    model = parser.parse_args(arguments).model
    # The role may not delete the files of a lost commit. Table maintenance does; do not warn about them.
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)
    try:
        descriptor, request = EnvironmentDescriptor.from_environ(), requested_prediction()
        snapshot = run_prediction(Project.find(), descriptor, model, request, lambda line: print(line, flush=True))
    except Exception as error:
        outside = explain(error)
        if outside is None:
            raise
        print(f"error: {outside}", file=sys.stderr)
        return REFUSED if isinstance(error, RefusedInputError) else 1
    print(f"snapshot {snapshot}")
    return 0


if __name__ == "__main__":
    relax_gc()
    sys.exit(main())
