"""What takes the batches of a dataset in: a job that reads its landing prefix and writes its table, and no other's."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from infra.components.grants import Statements, commit_table, read_prefix, write_prefix
from infra.components.identity import Workload, WorkloadArgs
from infra.components.job import JobArgs, cron_job
from infra.components.pod import PodArgs
from infra.components.storage import Storage
from infra.environment import Environment
from pipelines.declarations.contract import Contract
from pipelines.declarations.model import Resources
from pipelines.declarations.names import table_name

_RESOURCES = Resources(cpu="1", memory="2Gi")
_DEADLINE_SECONDS = 3600


@dataclass(frozen=True)
class IngestionArgs:
    """What is taken in, and with what.

    Attributes:
        environment: where it runs.
        contract: of the dataset.
        storage: where batches arrive and the table is.
        namespace: the Kubernetes namespace.
        image: of training, by digest; None: the job is left out until one is pinned.
        descriptor: the environment's descriptor as JSON.
    """

    environment: Environment
    contract: Contract
    storage: Storage
    namespace: pulumi.Input[str]
    image: pulumi.Input[str] | None
    descriptor: pulumi.Input[str]


class Ingestion(pulumi.ComponentResource):
    """The job `ingest-<dataset>` and its identity."""

    def __init__(self, dataset: str, args: IngestionArgs) -> None:
        super().__init__("mlops:data:Ingestion", dataset)
        environment, name = args.environment, f"ingest-{dataset}"
        workload = Workload(name, WorkloadArgs(environment, args.namespace, _may(dataset, args)), parent=self)
        digest = environment.config.images.training
        if args.image is not None and digest is not None:
            pod = PodArgs(
                environment,
                name="ingest",
                service_account=workload.name,
                image=args.image,
                digest=digest,
                command=["python", "-m", "pipelines.data", "ingest", dataset],
                descriptor=args.descriptor,
                resources=_RESOURCES,
                scratch="4Gi",
            )
            job = JobArgs(pod, args.namespace, _DEADLINE_SECONDS)
            cron_job(name, job, pulumi.ResourceOptions(parent=self, depends_on=[workload]))
        self.register_outputs({})


def _may(dataset: str, args: IngestionArgs) -> Statements:
    table = table_name(dataset)
    storage = args.storage
    own = (f"{args.environment.catalog_database}/{table}/", f"quarantine/{dataset}/")
    return [
        *read_prefix(storage.landing, f"{dataset}/"),
        *read_prefix(storage.lake, *own),
        *write_prefix(storage.lake, *own),
        *commit_table(args.environment, table),
        *write_prefix(storage.logs, f"lineage/ingest-{dataset}/"),
    ]
