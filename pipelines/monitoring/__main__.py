"""Monitor jobs, which CronJobs run.

`python -m pipelines.monitoring data <dataset>` in `monitor-<dataset>`, `model <model>` in `observe-<model>`, and
`compact <model>` in `compact-<model>`.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
from pipelines.startup import relax_gc

if TYPE_CHECKING:
    from pipelines.monitoring.data_report import DataMonitorReport
    from pipelines.monitoring.model_report import ModelMonitorReport


def main(arguments: list[str] | None = None) -> int:
    """Run the monitor job.

    Returns:
        0 if a report was written, whatever its verdict, or the log was compacted; 1 if the job failed and another
        attempt may succeed.
    """
    parser = argparse.ArgumentParser(prog="python -m pipelines.monitoring", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    about_data = commands.add_parser("data", help="monitor a dataset")
    about_data.add_argument("name", help="name of a contract in data-contracts/")
    about_model = commands.add_parser("model", help="monitor a model")
    about_model.add_argument("name", help="name of a folder in models/")
    about_log = commands.add_parser("compact", help="compact the inference log of a model")
    about_log.add_argument("name", help="name of a folder in models/")
    about_log.set_defaults(monitor=_compact_log)
    for command, monitor in ((about_data, _monitor_dataset), (about_model, _monitor_model)):
        command.add_argument("--namespace", default="", help="CloudWatch namespace of the metrics; none for no metrics")
        command.set_defaults(monitor=monitor)
    about_model.add_argument(
        "--send-alarms", action="store_true", help="send alarms to EventBridge, in the name of the namespace"
    )
    given = parser.parse_args(arguments)
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        given.monitor(given)
    except (BotoCoreError, ClientError, OSError) as error:
        print(f"error: the job of {given.name} stopped: {error}", file=sys.stderr)
        print("fix: check the permissions of the job's role, and run it again", file=sys.stderr)
        return 1
    except MlopsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _monitor_dataset(given: argparse.Namespace) -> None:
    from pipelines.monitoring.data_monitor import run_data_monitor

    contract, descriptor = Project.find().contract(given.name), EnvironmentDescriptor.from_environ()
    _print(*run_data_monitor(descriptor, contract, given.namespace))


def _monitor_model(given: argparse.Namespace) -> None:
    """Judge a model, then respond to what was found: the report is there before anything follows from it."""
    from datetime import UTC, datetime

    from pipelines.monitoring.model_monitor import run_model_monitor
    from pipelines.monitoring.send_alarm import respond_to_newest

    declared, descriptor = Project.find().model(given.name), EnvironmentDescriptor.from_environ()
    _print(*run_model_monitor(descriptor, declared, given.namespace))
    prefix = given.namespace if given.send_alarms else ""
    respond_to_newest(descriptor, declared, prefix, datetime.now(UTC), lambda line: print(line, flush=True))


def _compact_log(given: argparse.Namespace) -> None:
    from datetime import UTC, datetime

    from pipelines.data.lineage import lineage
    from pipelines.declarations.names import compaction_name
    from pipelines.monitoring.log_compaction import LogCompaction
    from pipelines.monitoring.monitor_lineage import log_data

    descriptor, compacted, removed = EnvironmentDescriptor.from_environ(), 0, 0
    log = log_data(descriptor, given.name)
    with lineage(descriptor, compaction_name(given.name), [log], [log]):
        for hour in LogCompaction(descriptor, given.name).run(datetime.now(UTC)):
            print(hour, flush=True)
            compacted, removed = compacted + hour.compacted, removed + hour.removed
    print(f"{given.name}: {compacted:,} objects compacted, {removed:,} compacted objects removed", flush=True)


def _print(report: DataMonitorReport | ModelMonitorReport, name: str) -> None:
    from pipelines.monitoring.report_lines import report_lines

    for line in (*report_lines(report), f"report {name}"):
        print(line, flush=True)


if __name__ == "__main__":
    relax_gc()
    sys.exit(main())
