"""The training job of a model: reads one dataset, and adds bundles with signed evidence to the registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi

from infra.components.grants import Statements, add_to_prefix, read_prefix, read_table, sign, write_prefix
from infra.components.job_component import JobArgs, JobComponent, JobContext
from infra.components.pod import secret_variable
from infra.components.registry import Registry
from infra.components.spark_server import SparkAccess
from infra.components.storage import Storage
from infra.components.workload import egress_to
from pipelines.declarations.environment import MlflowTracking
from pipelines.declarations.model import Model
from pipelines.declarations.names import table_name, training_name


@dataclass(frozen=True, kw_only=True)
class TrainingArgs:
    """Arguments of `TrainingJob`.

    Attributes:
        context: the settings that all jobs share.
        model: the model to train.
        storage: holds the dataset.
        registry: receives the bundles.
        spark: leads to the Spark server that sorts the rows; None to read them in the job.
    """

    context: JobContext
    model: Model
    storage: Storage
    registry: Registry
    spark: SparkAccess | None = None


class TrainingJob(JobComponent):
    """The job `train-<model>`."""

    def __init__(self, model: str, args: TrainingArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        training, mlflow = args.model.training, args.context.environment.config.mlflow
        job = JobArgs(
            context=args.context,
            name=training_name(model),
            container="train",
            command=["python", "-m", "pipelines.training", model],
            statements=_statements(args),
            resources=training.resources,
            scratch=args.context.environment.config.spark.scratch if args.spark is not None else "8Gi",
            deadline_seconds=training.deadline_seconds,
            model=args.model,
            variables=[
                *(args.spark.variables if args.spark is not None else ()),
                *(_mlflow_variables(mlflow) if mlflow is not None else ()),
            ],
            egress=[
                *(args.spark.egress if args.spark is not None else ()),
                *(_mlflow_egress(mlflow) if mlflow is not None else ()),
            ],
        )
        super().__init__("mlops:training:Training", model, job, opts)


def _mlflow_variables(mlflow: MlflowTracking) -> list[dict[str, Any]]:
    """Return MLflow's standard variables. Without the Secret, the server refuses the copy, and the training goes on."""
    variables: list[dict[str, Any]] = [{"name": "MLFLOW_TRACKING_URI", "value": mlflow.url}]
    if mlflow.token is not None:
        variables.append(secret_variable("MLFLOW_TRACKING_TOKEN", mlflow.token))
    return variables


def _mlflow_egress(mlflow: MlflowTracking) -> list[dict[str, Any]]:
    """Return the egress rules to the server; none if it is on the same machine, as on the laptop."""
    return egress_to(mlflow.url, mlflow.pod_port) if mlflow.url.startswith("https://") else []


def _statements(args: TrainingArgs) -> Statements:
    environment, model, registry = args.context.environment, args.model.name, args.registry
    table = table_name(args.model.contract)
    prefixes = tuple(f"{kind}/{model}/" for kind in ("bundles", "evidence", "runs"))
    return [
        *read_table(environment, table),
        *read_prefix(args.storage.lake, f"{environment.catalog_database}/{table}/"),
        *read_prefix(registry.bucket, *prefixes),
        *add_to_prefix(registry.bucket, *prefixes),
        *sign(registry.signing_key.arn),
        *write_prefix(args.storage.logs, f"lineage/{training_name(model)}/"),
    ]
