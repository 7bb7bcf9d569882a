"""Reports of monitors in the logs bucket: `monitoring/data/<dataset>/<time>-<snapshot>.json`, with a page for each.

Reports of models are `monitoring/models/<model>/<time>-<first digits of the bundle>.json`.

The JSON is written last, once, and never replaced: a report without it does not count. A killed run leaves a page that
nothing refers to.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from typing import Literal, TypeVar

from pydantic import ValidationError

from pipelines.data.glue_client import s3
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.monitoring.data_report import DataMonitorReport
from pipelines.monitoring.model_report import ModelMonitorReport
from pipelines.registry import store

LARGEST_REPORT = 8 << 20
"""Size limit of a report, in bytes."""

ReportKind = Literal["data", "models"]
"""What a report is about, and the folder that it is in."""

_DIGITS = 12

_Report = TypeVar("_Report", DataMonitorReport, ModelMonitorReport)


def report_prefix(name: str, kind: ReportKind = "data") -> str:
    """Return the key prefix of the reports about a dataset or a model."""
    return f"monitoring/{kind}/{name}/"


def report_name(created: datetime, version: str | None) -> str:
    """Return the name of a report. Names sort by time.

    Args:
        created: when the run started.
        version: the snapshot, or the first digits of the bundle; None if there is none.
    """
    return f"{created:%Y%m%dT%H%M%SZ}-{version or 'empty'}"


def write_report(descriptor: EnvironmentDescriptor, report: DataMonitorReport | ModelMonitorReport, page: bytes) -> str:
    """Write a report and its page; return the report's name.

    Two runs that look at the same version in the same second write the same report once.
    """
    if isinstance(report, DataMonitorReport):
        name, prefix = report_name(report.created, report.snapshot), report_prefix(report.dataset)
    else:
        digits = report.bundle.removeprefix("sha256:")[:_DIGITS] if report.bundle else None
        name, prefix = report_name(report.time, digits), report_prefix(report.model, "models")
    key, client = prefix + name, s3(descriptor)
    content = (json.dumps(report.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()
    store.put(descriptor.logs_bucket, f"{key}.html", page, content_type="text/html; charset=utf-8", client=client)
    with suppress(store.PreconditionFailedError):
        store.put_new(descriptor.logs_bucket, f"{key}.json", content, client=client)
    return name


def report_names(descriptor: EnvironmentDescriptor, about: str, kind: ReportKind = "data") -> list[str]:
    """Return the names of the reports about a dataset or a model, the newest first.

    Raises:
        AccessDeniedError: the caller may not list them.
    """
    prefix = report_prefix(about, kind)
    keys = [listed.key for listed in store.listing(descriptor.logs_bucket, prefix, client=s3(descriptor))]
    names = [key.removeprefix(prefix).removesuffix(".json") for key in keys if key.endswith(".json")]
    return sorted((name for name in names if "/" not in name), reverse=True)


def find_report(descriptor: EnvironmentDescriptor, about: str, name: str = "", kind: ReportKind = "data") -> str:
    """Return the name of a report: the newest, or the one that starts with `name`.

    Raises:
        MlopsError: there is no such report, or `name` fits several.
    """
    names = report_names(descriptor, about, kind)
    fitting = [each for each in names if each.startswith(name)]
    if not names:
        raise MlopsError(
            f"{about} has no monitor report in {descriptor.name}",
            fix=_run_command(descriptor, about, kind),
        )
    if not fitting or (name and len(fitting) > 1 and name not in fitting):
        found = ", ".join(fitting[:5] or names[:5])
        raise MlopsError(f"expected the name of one report of {about}, found {name!r}", fix=f"use one of: {found}")
    return name if name in fitting else fitting[0]


def _run_command(descriptor: EnvironmentDescriptor, about: str, kind: ReportKind) -> str:
    """Return the command that runs a monitor. A dataset and a model can have the same name, so it says which it is."""
    return f"mlops monitor run {about} --kind {kind.removesuffix('s')} --env {descriptor.name}"


def read_report(descriptor: EnvironmentDescriptor, dataset: str, name: str) -> DataMonitorReport:
    """Read a report about a dataset.

    Raises:
        NotFoundError, AccessDeniedError: it cannot be read.
        MlopsError: it is not valid.
    """
    return _read(descriptor, dataset, name, "data", DataMonitorReport)


def read_model_report(descriptor: EnvironmentDescriptor, model: str, name: str) -> ModelMonitorReport:
    """Read a report about a model.

    Raises:
        NotFoundError, AccessDeniedError: it cannot be read.
        MlopsError: it is not valid.
    """
    return _read(descriptor, model, name, "models", ModelMonitorReport)


def _read(descriptor: EnvironmentDescriptor, about: str, name: str, kind: ReportKind, form: type[_Report]) -> _Report:
    key = f"{report_prefix(about, kind)}{name}.json"
    found = store.get(descriptor.logs_bucket, key, limit=LARGEST_REPORT, client=s3(descriptor))
    try:
        return form.model_validate_json(found.content)
    except ValidationError as error:
        raise MlopsError(
            f"s3://{descriptor.logs_bucket}/{key} is not a monitor report: {error.errors()[0]['msg']}",
            fix=f"run the monitor again: {_run_command(descriptor, about, kind)}",
        ) from None


def read_page(descriptor: EnvironmentDescriptor, about: str, name: str, kind: ReportKind = "data") -> bytes:
    """Read the page of a report.

    Raises:
        NotFoundError, AccessDeniedError: it cannot be read.
    """
    key = f"{report_prefix(about, kind)}{name}.html"
    return store.get(descriptor.logs_bucket, key, limit=LARGEST_REPORT, client=s3(descriptor)).content
