"""What trains a model: a job that reads one dataset and adds bundles with signed evidence to the registry."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from infra.components.grants import Statements, read_prefix, read_table, sign, write_prefix
from infra.components.identity import Workload, WorkloadArgs
from infra.components.job import JobArgs, cron_job
from infra.components.pod import PodArgs
from infra.components.registry import Registry
from infra.components.storage import Storage
from infra.environment import Environment
from pipelines.declarations.model import Model
from pipelines.declarations.names import table_name


@dataclass(frozen=True)
class TrainingArgs:
    """What is trained, on what, and where the result goes.

    Attributes:
        environment: where it runs.
        model: what is trained.
        storage: where its dataset is.
        registry: where its bundles go.
        namespace: the Kubernetes namespace.
        image: of training, by digest; None: the job is left out until one is pinned.
        descriptor: the environment's descriptor as JSON.
    """

    environment: Environment
    model: Model
    storage: Storage
    registry: Registry
    namespace: pulumi.Input[str]
    image: pulumi.Input[str] | None
    descriptor: pulumi.Input[str]


class Training(pulumi.ComponentResource):
    """The job `train-<model>` and its identity."""

    def __init__(self, model: str, args: TrainingArgs) -> None:
        super().__init__("mlops:training:Training", model)
        environment, training, name = args.environment, args.model.training, f"train-{model}"
        workload = Workload(name, WorkloadArgs(environment, args.namespace, _may(args), model=args.model), parent=self)
        digest = environment.config.images.training
        if args.image is not None and digest is not None:
            pod = PodArgs(
                environment,
                name="train",
                service_account=workload.name,
                image=args.image,
                digest=digest,
                command=["python", "-m", "pipelines.training", model],
                descriptor=args.descriptor,
                resources=training.resources,
                scratch="8Gi",
            )
            job = JobArgs(pod, args.namespace, training.deadline_seconds, training.schedule, args.model)
            cron_job(name, job, pulumi.ResourceOptions(parent=self, depends_on=[workload]))
        self.register_outputs({})


def _may(args: TrainingArgs) -> Statements:
    model, registry = args.model.name, args.registry
    table = table_name(args.model.contract)
    own = tuple(f"{kind}/{model}/" for kind in ("bundles", "evidence", "runs"))
    return [
        *read_table(args.environment, table),
        *read_prefix(args.storage.lake, f"{args.environment.catalog_database}/{table}/"),
        *read_prefix(registry.bucket, *own),
        *write_prefix(registry.bucket, *own),
        *sign(registry.signing_key.arn),
        *write_prefix(args.storage.logs, f"lineage/train-{model}/"),
    ]
