"""Monitor job: `python -m pipelines.monitoring data <dataset>`, run by the CronJob `monitor-<dataset>`."""

from __future__ import annotations

import argparse
import sys

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.startup import relax_gc


def main(arguments: list[str] | None = None) -> int:
    """Run the monitor job.

    Returns:
        0 if a report was written, whatever its verdict; 1 if the job failed and another attempt may succeed.
    """
    parser = argparse.ArgumentParser(prog="python -m pipelines.monitoring", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    command = commands.add_parser("data", help="monitor a dataset")
    command.add_argument("dataset", help="name of a contract in data-contracts/")
    command.add_argument("--namespace", default="", help="CloudWatch namespace of the metrics; none to publish none")
    given = parser.parse_args(arguments)
    try:
        return _monitor(given.dataset, given.namespace)
    except MlopsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _monitor(dataset: str, namespace: str) -> int:
    from botocore.exceptions import BotoCoreError, ClientError

    from pipelines.monitoring.data_monitor import run_data_monitor
    from pipelines.monitoring.report_lines import report_lines

    contract, descriptor = Project.find().contract(dataset), EnvironmentDescriptor.from_environ()
    try:
        report, name = run_data_monitor(descriptor, contract, namespace)
    except (BotoCoreError, ClientError, OSError) as error:
        raise MlopsError(
            f"the monitor of {dataset} in {descriptor.name} stopped: {error}",
            fix="check the permissions of the job's role, and run it again",
        ) from error
    for line in (*report_lines(report), f"report {name}"):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    relax_gc()
    sys.exit(main())
