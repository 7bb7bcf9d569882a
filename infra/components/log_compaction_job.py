"""The job that compacts the inference log of a model."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from infra.components.grants import Statements, add_to_prefix, delete_from_prefix, read_prefix, write_prefix
from infra.components.job_component import JobArgs, JobComponent, JobContext
from infra.components.registry import Registry
from infra.components.storage import Storage
from pipelines.declarations.model import Model, Resources
from pipelines.declarations.model_monitoring import log_compaction_schedule
from pipelines.declarations.names import compaction_name

_RESOURCES = Resources(cpu="1", memory="2Gi")
_DEADLINE_SECONDS = 3000


@dataclass(frozen=True, kw_only=True)
class LogCompactionJobArgs:
    """Arguments of `LogCompactionJob`.

    Attributes:
        context: the settings that all jobs share.
        model: the model.
        storage: holds the inference log.
        registry: holds the request schemas of the bundles.
    """

    context: JobContext
    model: Model
    storage: Storage
    registry: Registry


class LogCompactionJob(JobComponent):
    """The job `compact-<model>`, which replaces the objects of finished hours by Parquet files.

    It is the only job that may delete records, and only those that servers wrote as lines.
    """

    def __init__(self, model: str, args: LogCompactionJobArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        job = JobArgs(
            context=args.context,
            name=compaction_name(model),
            container="compact",
            command=["python", "-m", "pipelines.monitoring", "compact", model],
            statements=_statements(args),
            resources=_RESOURCES,
            scratch="1Gi",
            deadline_seconds=_DEADLINE_SECONDS,
            schedule=log_compaction_schedule(model, args.model.monitoring),
            model=args.model,
        )
        super().__init__("mlops:monitoring:LogCompactionJob", model, job, opts)


def _statements(args: LogCompactionJobArgs) -> Statements:
    log, records = args.storage.logs, f"inference/{args.model.name}/"
    return [
        *read_prefix(log, records),
        *add_to_prefix(log, records, ending=".parquet"),
        *delete_from_prefix(log, records, ending=".jsonl"),
        *read_prefix(args.registry.bucket, f"bundles/{args.model.name}/"),
        *write_prefix(log, f"lineage/{compaction_name(args.model.name)}/"),
    ]
