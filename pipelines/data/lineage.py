"""Emit OpenLineage events (https://openlineage.io/spec). A failure to emit is logged and never fails a job.

Events are written to the logs bucket under `lineage/<job>/`. They are also sent to the transport of OpenLineage's own
configuration, if there is one: `OPENLINEAGE_URL`, `OPENLINEAGE_CONFIG`, `OPENLINEAGE__TRANSPORT…` or `openlineage.yml`.
Set `OPENLINEAGE_DISABLED=true` to turn both off.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.glue_client import s3
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.names import table_name
from pipelines.registry import store

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import InputDataset, OutputDataset

PRODUCER = "urn:mlops:pipelines"

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
    """

    namespace: str
    name: str
    columns: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    rows: int | None = None
    assertions: Sequence[Assertion] = ()
    derived: Mapping[str, Sequence[tuple[str, str, str]]] = field(default_factory=dict)


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


class _Emitter:
    def __init__(self, descriptor: EnvironmentDescriptor, job: str) -> None:
        self.descriptor = descriptor
        self.job = job
        self.clients: list[OpenLineageClient] = []
        self.run_id = ""
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
            from openlineage.client.facet_v2 import error_message_run

            failure = error_message_run.ErrorMessageRunFacet(message=message or "", programmingLanguage="python")
            event = RunEvent(
                eventType=RunState[kind],
                eventTime=datetime.now(UTC).isoformat(),
                run=Run(runId=self.run_id, facets={} if message is None else {"errorMessage": failure}),
                job=Job(namespace=self.descriptor.namespace, name=self.job),
                producer=PRODUCER,
                inputs=[_as_input(data) for data in run.inputs],
                outputs=[_as_output(data) for data in run.outputs],
            )
        except Exception as error:
            _log.warning("the lineage event %s of %s was not recorded: %s", kind, self.job, error)
            return
        for client in self.clients:
            try:
                client.emit(event)
            except Exception as error:
                _log.warning("the lineage event %s of %s was not recorded: %s", kind, self.job, error)


def _is_configured() -> bool:
    by_name = any(key == "OPENLINEAGE_URL" or key == "OPENLINEAGE_CONFIG" for key in os.environ)
    by_part = any(key.startswith("OPENLINEAGE__TRANSPORT") for key in os.environ)
    return by_name or by_part or Path("openlineage.yml").is_file()


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

    facets: dict[str, Any] = {}
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
    return InputDataset(namespace=data.namespace, name=data.name, facets=_facets(data), inputFacets=facets)


def _as_output(data: Data) -> OutputDataset:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    facets: dict[str, Any] = {}
    if data.rows is not None:
        facets["outputStatistics"] = statistics.OutputStatisticsOutputDatasetFacet(rowCount=data.rows)
    return OutputDataset(namespace=data.namespace, name=data.name, facets=_facets(data), outputFacets=facets)
