"""Jobs of a dataset, which CronJobs run.

`python -m pipelines.data ingest <dataset>` in `ingest-<dataset>`, and `maintain <dataset>` in `maintain-<dataset>`.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder

from pipelines.declarations.contract import Contract
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.outside_errors import explain
from pipelines.declarations.project import Project

REFUSED = 3
"""Exit status if a file is rejected: another attempt would end the same way."""


class FilesRejectedError(MlopsError):
    """Some landing files were rejected."""


def main(arguments: list[str] | None = None) -> int:
    """Run a job.

    Returns:
        0 if every new file was ingested, with or without quarantined rows, or the table was maintained; 3 if a file was
        rejected; 1 if the job failed and another attempt may succeed.
    """
    parser = argparse.ArgumentParser(prog="python -m pipelines.data", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    ingesting = commands.add_parser("ingest", help="ingest the landing files of a dataset")
    maintaining = commands.add_parser("maintain", help="maintain the table of a dataset")
    ingesting.add_argument("dataset", help="name of a contract in data-contracts/")
    maintaining.add_argument("dataset", help="name of a contract in data-contracts/, or MODEL-predictions")
    maintaining.add_argument("--namespace", default="", help="CloudWatch namespace of the metrics; none for no metrics")
    maintaining.add_argument(
        "--predicting", action="append", default=[], help="model whose batch predictions read the table"
    )
    ingesting.set_defaults(namespace=None)
    given = parser.parse_args(arguments)
    # Ingestion may not delete the files of a lost commit. Table maintenance does; do not warn about them.
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)
    try:
        project = Project.find()
        if given.namespace is None:
            contract = project.contract(given.dataset)
            return _ingest(EnvironmentDescriptor.from_environ(), contract)
        contract = project.dataset_contract(given.dataset)
        return _maintain(EnvironmentDescriptor.from_environ(), contract, given.predicting, given.namespace)
    except Exception as error:
        outside = explain(error)
        if outside is None:
            raise
        print(f"error: {outside}", file=sys.stderr)
        return REFUSED if isinstance(error, FilesRejectedError) else 1


def _ingest(descriptor: EnvironmentDescriptor, contract: Contract) -> int:
    from botocore.exceptions import BotoCoreError, ClientError

    from pipelines.data.ingest import drop, ingest
    from pipelines.data.landing import DROP_REASON, LANDING_ACTION, LANDING_FILE
    from pipelines.data.table_changes import make_change, requested_change

    try:
        if (change := requested_change()) is not None:
            make_change(descriptor, contract, change, lambda line: print(line, flush=True))
            return 0
        only, action = os.environ.get(LANDING_FILE, ""), os.environ.get(LANDING_ACTION, "ingest")
        if action == "drop":
            record = drop(descriptor, contract, only, os.environ.get(DROP_REASON, ""))
            print(f"{only}: dropped: {record.dropped}", flush=True)
            return 0
        replay = action == "release"
        records = ingest(descriptor, contract, lambda line: print(line, flush=True), only=only, replay=replay)
    except (BotoCoreError, ClientError, OSError) as error:
        reason = explain(error) or MlopsError(str(error))
        raise MlopsError(
            f"ingest of {contract.name} in {descriptor.name} stopped: {reason.what}",
            fix=f"{reason.fix or 'check the permissions of the role'}; then run the job again, which resumes where it "
            "stopped",
        ) from error
    refused = [record.file for record in records if record.verdict == "refused"]
    if refused:
        raise FilesRejectedError(
            f"{len(refused)} of {len(records)} files rejected: {', '.join(refused)}",
            fix=f"land corrected files under other names (mlops land), or correct the contract and replay them: "
            f"mlops data release {contract.name} FILE --env {descriptor.name}",
        )
    return 0


def _maintain(descriptor: EnvironmentDescriptor, contract: Contract, predicting: Sequence[str], namespace: str) -> int:
    from datetime import UTC, datetime

    from botocore.exceptions import BotoCoreError, ClientError

    from pipelines.data.table_maintenance import maintain_table, publish_figures

    now = datetime.now(UTC)
    try:
        figures = maintain_table(descriptor, contract, predicting, now, lambda line: print(line, flush=True))
    except (BotoCoreError, ClientError, OSError) as error:
        reason = explain(error) or MlopsError(str(error))
        raise MlopsError(
            f"the maintenance of {contract.name} in {descriptor.name} stopped: {reason.what}",
            fix=f"{reason.fix or 'check the permissions of the role'}; then run the job again",
        ) from error
    if not any(figures[name] for name in ("RemovedFiles", "RemovedRows", "JoinedFiles", "ExpiredVersions")):
        print(f"{contract.name}: nothing to do", flush=True)
    if namespace:
        publish_figures(descriptor, contract.name, namespace, figures, now)
    return 0


class _HiddenPandas(MetaPathFinder):
    """Hide pandas, which training needs in the same image: Arrow imports it although this job never converts to it.

    This saves 0.3 s of CPU per job. `sys.modules["pandas"] = None` does not work: Arrow's compiled code ignores it.
    """

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ImportError(name)


LIBRARIES = (
    "boto3",
    "openlineage.client",
    "pyarrow.compute",
    "pyiceberg.catalog.glue",
    "pipelines.data.data_files",
    "pipelines.data.ingest",
)
"""Libraries that the job needs in any case, except duckdb."""


def _relax_gc() -> None:
    """Import the libraries, and exclude them from garbage collection: it takes 0.4 s of CPU and finds nothing.

    duckdb must be imported later. If its types are not collected at exit, nanobind prints a leak warning for each.
    """
    gc.set_threshold(100_000)
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()


if __name__ == "__main__":
    sys.meta_path.insert(0, _HiddenPandas())
    _relax_gc()
    sys.exit(main())
