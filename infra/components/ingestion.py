"""The ingestion job of a dataset: reads its landing files, writes its table and quarantines bad rows."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from infra.components.grants import Statements, commit_table, read_prefix, read_table, write_prefix
from infra.components.job_component import JobArgs, JobComponent, JobContext
from infra.components.storage import Storage
from pipelines.declarations.contract import Contract
from pipelines.declarations.model import Resources
from pipelines.declarations.names import table_name

_RESOURCES = Resources(cpu="1", memory="2Gi")
_DEADLINE_SECONDS = 3600
_REFUSED = 3  # exit code of `python -m pipelines.data` if a file is rejected


@dataclass(frozen=True, kw_only=True)
class IngestionArgs:
    """Arguments of `Ingestion`.

    Attributes:
        context: the settings that all jobs share.
        contract: the dataset's contract.
        storage: holds the landing files and the table.
    """

    context: JobContext
    contract: Contract
    storage: Storage


class Ingestion(JobComponent):
    """The job `ingest-<dataset>`. The contract's `frequency` is its schedule; without one it runs on request only."""

    def __init__(self, dataset: str, args: IngestionArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        job = JobArgs(
            context=args.context,
            name=f"ingest-{dataset}",
            container="ingest",
            command=["python", "-m", "pipelines.data", "ingest", dataset],
            statements=_statements(dataset, args),
            resources=_RESOURCES,
            scratch="4Gi",
            deadline_seconds=_DEADLINE_SECONDS,
            schedule=args.contract.ingest_schedule,
            final_exit_code=_REFUSED,
        )
        super().__init__("mlops:data:Ingestion", dataset, job, opts)


def _statements(dataset: str, args: IngestionArgs) -> Statements:
    environment, storage = args.context.environment, args.storage
    table = table_name(args.contract.name)
    prefixes = (f"{environment.catalog_database}/{table}/", f"quarantine/{dataset}/")
    # Foreign keys and SQL checks read the tables of other datasets.
    others = [table_name(name) for name in args.contract.datasets_read if name != dataset]
    return [
        *read_prefix(storage.landing, f"{dataset}/"),
        *read_prefix(storage.lake, *prefixes, *(f"{environment.catalog_database}/{other}/" for other in others)),
        *write_prefix(storage.lake, *prefixes),
        *commit_table(environment, table),
        *(statement for other in others for statement in read_table(environment, other)),
        *write_prefix(storage.logs, f"lineage/ingest-{dataset}/"),
    ]
