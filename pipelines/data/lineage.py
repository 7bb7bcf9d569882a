"""Emit OpenLineage events (https://openlineage.io/spec). A failure to emit is logged and never fails a job.

Events are written to the logs bucket under `lineage/<job>/`. They are also sent to the transport of OpenLineage's own
configuration, if there is one: `OPENLINEAGE_URL`, `OPENLINEAGE_CONFIG`, `OPENLINEAGE__TRANSPORT…`, or the file
`openlineage.yml` in the working directory or in `~/.openlineage/`. `openlineage` in `Pulumi.<environment>.yaml` sets
it for jobs. Set `OPENLINEAGE_DISABLED=true` to turn both off.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.glue_client import s3
from pipelines.declarations.contract import Contract
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.names import table_name
from pipelines.declarations.time_limits import finishes_within
from pipelines.registry import store

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent

PRODUCER = "urn:mlops:pipelines"

LONGEST_EMIT = 60.0
"""Seconds after which an event is given up, whatever the server sends. OpenLineage's own attempts take less."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Assertion:
    """Result of a rule on a dataset.

    Attributes:
        rule: name of the rule.
        column: name of the column, or None.
        kept: True if every row keeps the rule.
    """

    rule: str
    column: str | None
    kept: bool


@dataclass(frozen=True)
class Data:
    """Input or output of a job.

    Attributes:
        namespace, name: identify the data, by OpenLineage's naming conventions.
        columns: name → type.
        version: version of the data: a digest or an Iceberg snapshot.
        rows: number of rows, or None if unknown.
        assertions: results of the rules on the data.
        derived: column → the columns of inputs that its values come from, as (namespace, name, column).
        contract: the contract that the data follows. Events name its version, purpose and owner.
        sample: share of the rows of an input that were used, chosen by a hash of their keys; None for all.
    """

    namespace: str
    name: str
    columns: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    rows: int | None = None
    assertions: Sequence[Assertion] = ()
    derived: Mapping[str, Sequence[tuple[str, str, str]]] = field(default_factory=dict)
    contract: Contract | None = None
    sample: float | None = None


def from_columns(source: Data, columns: Sequence[str]) -> list[tuple[str, str, str]]:
    """Name columns of an input, for `Data.derived`."""
    return [(source.namespace, source.name, column) for column in columns]


def bundle_data(descriptor: EnvironmentDescriptor, model: str, **facts: Any) -> Data:
    """Describe the bundles of a model in the registry; `facts` are further attributes of `Data`."""
    return Data(f"s3://{descriptor.registry_bucket}", f"bundles/{model}", **facts)


def endpoint_data(descriptor: EnvironmentDescriptor, model: str, **facts: Any) -> Data:
    """Describe the endpoint of a model; `facts` are further attributes of `Data`."""
    return Data(f"kubernetes://{descriptor.cluster}", f"{descriptor.namespace}/{model}", **facts)


def landing_data(descriptor: EnvironmentDescriptor, key: str, **facts: Any) -> Data:
    """Describe an object in the landing bucket; `facts` are further attributes of `Data`."""
    return Data(f"s3://{descriptor.landing_bucket}", key, **facts)


def table_data(descriptor: EnvironmentDescriptor, dataset: str, **facts: Any) -> Data:
    """Describe a table in the catalogue; `facts` are further attributes of `Data`."""
    namespace = f"arn:aws:glue:{descriptor.region}:{descriptor.account}"
    return Data(namespace, f"table/{descriptor.catalog_database}/{table_name(dataset)}", **facts)


@dataclass
class LineageRun:
    """Run of a job. Created by `lineage`; the job sets the attributes.

    Attributes:
        inputs, outputs: data read and written, for the last event.
        failed: why the run failed without an exception; None if it did not.
    """

    inputs: list[Data]
    outputs: list[Data]
    failed: str | None = None


@contextmanager
def lineage(
    descriptor: EnvironmentDescriptor, job: str, inputs: Sequence[Data], outputs: Sequence[Data]
) -> Iterator[LineageRun]:
    """Emit a START event, and COMPLETE at the end of the block, or FAIL if the block raises or sets `failed`.

    Args:
        descriptor: the environment; its Kubernetes namespace is the namespace of the job.
        job: name of the job.
        inputs, outputs: data that the job reads and writes; the block may replace them in the yielded run.
    """
    run = LineageRun(list(inputs), list(outputs))
    emitter = _Emitter(descriptor, job)
    emitter.emit("START", run, None)
    try:
        yield run
    except BaseException as error:
        emitter.emit("FAIL", run, str(error) or type(error).__name__)
        raise
    emitter.emit("COMPLETE" if run.failed is None else "FAIL", run, run.failed)


@dataclass(frozen=True)
class ParentRun:
    """Parent of a job's run: a Job of the cluster, a workflow run, or the one that `OPENLINEAGE_PARENT_ID` names.

    Attributes:
        namespace, name: identify the parent's job, by OpenLineage's naming conventions.
        run: id of its run.
    """

    namespace: str
    name: str
    run: str


def parent_run(descriptor: EnvironmentDescriptor, job: str, environ: Mapping[str, str]) -> ParentRun | None:
    """Return what started the run of a job; None if nothing is known about it.

    Pods of the same Job have the same parent, and so have the files that one pod ingests.

    Args:
        descriptor: the environment.
        job: name of the job.
        environ: environment variables of the process.
    """
    given = environ.get("OPENLINEAGE_PARENT_ID", "").rsplit("/", 2)  # namespace/name/run; a namespace may have slashes
    if len(given) == 3 and all(given):
        try:
            return ParentRun(given[0], given[1], str(uuid.UUID(given[2])))
        except ValueError:
            _log.warning("OPENLINEAGE_PARENT_ID is ignored: expected namespace/name/uuid, found %r", "/".join(given))
    started, _, suffix = environ.get("HOSTNAME", "").rpartition("-")  # <CronJob>-<time>-<suffix>
    if started.startswith(f"{job}-") and suffix:
        namespace = f"kubernetes://{descriptor.cluster}/{descriptor.namespace}"
        return ParentRun(namespace, job, str(uuid.uuid5(uuid.NAMESPACE_URL, f"{namespace}/jobs/{started}")))
    server, repository, run = (environ.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID"))
    if server and repository and run:
        attempt = f"{server}/{repository}/actions/runs/{run}/attempts/{environ.get('GITHUB_RUN_ATTEMPT') or 1}"
        name = environ.get("GITHUB_WORKFLOW") or "workflow"
        return ParentRun(f"{server}/{repository}", name, str(uuid.uuid5(uuid.NAMESPACE_URL, attempt)))
    return None


class _Emitter:
    def __init__(self, descriptor: EnvironmentDescriptor, job: str) -> None:
        self.descriptor = descriptor
        self.job = job
        self.clients: list[OpenLineageClient] = []
        self.run_id = ""
        self.parent = parent_run(descriptor, job, os.environ)
        if os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true":
            return
        try:
            from openlineage.client import OpenLineageClient
            from openlineage.client.uuid import generate_new_uuid

            self.run_id = str(generate_new_uuid())
            self.clients.append(OpenLineageClient(transport=_bucket(descriptor, job, self.run_id)))
            if _is_configured():
                self.clients.append(OpenLineageClient())
        except Exception as error:
            _log.warning("lineage is not recorded: %s", error)

    def emit(self, kind: str, run: LineageRun, message: str | None) -> None:
        if not self.clients:
            return
        try:
            from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
            from openlineage.client.facet_v2 import error_message_run, parent_run

            facets: dict[str, Any] = {}
            if message is not None:
                facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(message, programmingLanguage="python")
            if self.parent is not None:
                facets["parent"] = parent_run.ParentRunFacet(
                    run=parent_run.Run(runId=self.parent.run),
                    job=parent_run.Job(namespace=self.parent.namespace, name=self.parent.name),
                )
            event = RunEvent(
                eventType=RunState[kind],
                eventTime=datetime.now(UTC).isoformat(),
                run=Run(runId=self.run_id, facets=facets),
                job=Job(namespace=self.descriptor.namespace, name=self.job),
                producer=PRODUCER,
                inputs=[_as_input(data) for data in run.inputs],
                outputs=[_as_output(data) for data in run.outputs],
            )
        except Exception as error:
            _log.warning("the lineage event %s of %s was not recorded: %s", kind, self.job, error)
            return
        for client in tuple(self.clients):
            if not finishes_within(LONGEST_EMIT, partial(self._emit, client, event)):
                _log.warning("the lineage event %s of %s was not recorded: no end of the answer", kind, self.job)
                self.clients.remove(client)

    def _emit(self, client: OpenLineageClient, event: RunEvent) -> None:
        try:
            client.emit(event)
        except Exception as error:
            kind = event.eventType.name if event.eventType is not None else ""
            _log.warning("the lineage event %s of %s was not recorded: %s", kind, self.job, error)


def _is_configured() -> bool:
    by_name = any(key == "OPENLINEAGE_URL" or key == "OPENLINEAGE_CONFIG" for key in os.environ)
    by_part = any(key.startswith("OPENLINEAGE__TRANSPORT") for key in os.environ)
    home = os.environ.get("HOME")
    files = [Path("openlineage.yml"), *([Path(home, ".openlineage", "openlineage.yml")] if home else [])]
    return by_name or by_part or any(file.is_file() for file in files)


def _bucket(descriptor: EnvironmentDescriptor, job: str, run_id: str) -> Any:
    """Make a transport that writes each event to an object in the logs bucket."""
    from openlineage.client.serde import Serde
    from openlineage.client.transport import Transport

    class BucketTransport(Transport):
        kind = "bucket"

        def emit(self, event: Any) -> None:
            key = f"lineage/{job}/{run_id}-{event.eventType.name}.json"
            content = Serde.to_json(event).encode()
            store.put(descriptor.logs_bucket, key, content, content_type="application/json", client=s3(descriptor))

    return BucketTransport()


def _facets(data: Data) -> dict[str, Any]:
    from openlineage.client.facet_v2 import column_lineage_dataset, dataset_version_dataset, schema_dataset

    facets: dict[str, Any] = _contract_facets(data.contract) if data.contract is not None else {}
    if data.columns:
        fields = [schema_dataset.SchemaDatasetFacetFields(name=n, type=kind) for n, kind in data.columns.items()]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(fields=fields)
    if data.derived:
        facets["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(
            fields={
                name: column_lineage_dataset.Fields(
                    inputFields=[
                        column_lineage_dataset.InputField(namespace=namespace, name=source, field=column)
                        for namespace, source, column in sources
                    ]
                )
                for name, sources in data.derived.items()
            }
        )
    if data.version is not None:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=data.version)
    return facets


def _contract_facets(contract: Contract) -> dict[str, Any]:
    """Describe the contract of data with the standard's facets: tags, documentation and ownership."""
    from openlineage.client.facet_v2 import documentation_dataset, ownership_dataset, tags_dataset

    from pipelines.data.contract_page import owner_of

    tags = {"dataContract": contract.name, "dataContractVersion": contract.version, "status": contract.status}
    fields = [
        tags_dataset.TagsDatasetFacetFields(key=key, value=value, source="CONTRACT") for key, value in tags.items()
    ]
    facets: dict[str, Any] = {"tags": tags_dataset.TagsDatasetFacet(tags=fields)}
    purpose, owner = str((contract.description or {}).get("purpose") or ""), owner_of(contract)
    if purpose:
        facets["documentation"] = documentation_dataset.DocumentationDatasetFacet(description=purpose)
    if owner:
        named = ownership_dataset.Owner(name=f"team:{owner}", type="OWNER")
        facets["ownership"] = ownership_dataset.OwnershipDatasetFacet(owners=[named])
    return facets


def _as_input(data: Data) -> InputDataset:
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import data_quality_assertions_dataset as quality
    from openlineage.client.facet_v2 import data_quality_metrics_input_dataset as metrics

    facets: dict[str, Any] = {}
    if data.assertions:
        facets["dataQualityAssertions"] = quality.DataQualityAssertionsDatasetFacet(
            assertions=[quality.Assertion(assertion=a.rule, success=a.kept, column=a.column) for a in data.assertions]
        )
    if data.rows is not None:
        facets["dataQualityMetrics"] = metrics.DataQualityMetricsInputDatasetFacet(columnMetrics={}, rowCount=data.rows)
    if data.sample is not None:
        facets["subset"] = _sample(data.sample)
    return InputDataset(namespace=data.namespace, name=data.name, facets=_facets(data), inputFacets=facets)


def _sample(share: float) -> Any:
    from openlineage.client.facet_v2 import base_subset_dataset as subset

    # The hash of a key, as a share of all hashes.
    field, limit = subset.FieldBaseCompareExpression("hash(primaryKey)"), subset.LiteralCompareExpression(str(share))
    condition = subset.CompareSubsetCondition(left=field, right=limit, comparison="LESS_THAN")
    return subset.InputSubsetInputDatasetFacet(inputCondition=condition)


def _as_output(data: Data) -> OutputDataset:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    facets: dict[str, Any] = {}
    if data.rows is not None:
        facets["outputStatistics"] = statistics.OutputStatisticsOutputDatasetFacet(rowCount=data.rows)
    return OutputDataset(namespace=data.namespace, name=data.name, facets=_facets(data), outputFacets=facets)
