"""The job that predicts by batch with a model: it reads an input and a bundle, and appends to the predictions."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from infra.components.grants import (
    Statements,
    make_and_commit_table,
    read_prefix,
    read_table,
    write_prefix,
)
from infra.components.job_component import JobArgs, JobComponent, JobContext
from infra.components.registry import Registry
from infra.components.storage import Storage
from pipelines.declarations.model import Model
from pipelines.declarations.names import prediction_job_name, predictions_name, table_name

_REFUSED = 3  # exit code of `python -m pipelines.prediction` if the input is refused


@dataclass(frozen=True, kw_only=True)
class BatchPredictionArgs:
    """Arguments of `BatchPredictionJob`.

    Attributes:
        context: the settings that all jobs share.
        model: the model.
        storage: holds the inputs and the table of predictions.
        registry: holds the bundles and their evidence.
    """

    context: JobContext
    model: Model
    storage: Storage
    registry: Registry


class BatchPredictionJob(JobComponent):
    """The job `predict-<model>`, which runs on request only.

    The job makes the table of predictions, so predictions outlive a model that is removed.
    """

    def __init__(self, model: str, args: BatchPredictionArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        settings = args.model.batch
        job = JobArgs(
            context=args.context,
            name=prediction_job_name(model),
            container="predict",
            command=["python", "-m", "pipelines.prediction", model],
            statements=_statements(args),
            resources=settings.resources,
            scratch="8Gi",
            deadline_seconds=settings.deadline_seconds,
            model=args.model,
            final_exit_code=_REFUSED,
        )
        super().__init__("mlops:prediction:BatchPrediction", model, job, opts)


def _statements(args: BatchPredictionArgs) -> Statements:
    environment, storage, model = args.context.environment, args.storage, args.model
    predictions = table_name(predictions_name(model.name))
    written = f"{environment.catalog_database}/{predictions}/"
    read = [table_name(dataset) for dataset in model.predicted_datasets]
    return [
        *read_prefix(storage.landing, f"{predictions_name(model.name)}/"),
        *read_prefix(storage.lake, written, *(f"{environment.catalog_database}/{table}/" for table in read)),
        *write_prefix(storage.lake, written),
        *(statement for table in read for statement in read_table(environment, table)),
        *make_and_commit_table(environment, predictions),
        *read_prefix(args.registry.bucket, f"bundles/{model.name}/", f"evidence/{model.name}/"),
        *write_prefix(storage.logs, f"lineage/{prediction_job_name(model.name)}/"),
    ]
