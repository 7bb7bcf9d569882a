"""The state of environments as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from pipelines.declarations.markdown import short_digest
from pipelines.declarations.names import model_monitor_name, monitor_name
from pipelines.declarations.printable import printable
from pipelines.promotion.status import DatasetStatus, EnvironmentStatus, ModelStatus, MonitorRun


def status_lines(status: EnvironmentStatus) -> list[str]:
    """Return the state of an environment as lines: first the environment, then what is in it, indented."""
    state = "up" if status.is_up else "not visible" if status.unseen else "not up"
    lines = [f"{status.environment}: {state}"]
    lines += _not_visible(status.unseen, "  ")
    for model in status.models:
        lines += _model_lines(model, status.environment)
    for dataset in status.datasets:
        lines += _dataset_lines(dataset, status.environment)
    return [printable(line) for line in lines]  # objects of buckets and of the cluster can hold anything


def status_json(statuses: Sequence[EnvironmentStatus]) -> list[Any]:
    """Return the state of environments as a JSON value."""
    return [_plain(status) for status in statuses]


def _model_lines(one: ModelStatus, environment: str) -> Iterator[str]:
    yield f"  {one.model}"
    if "ledger" not in one.unseen:
        yield f"    live       {short_digest(one.live)}"
        if one.declared != one.live:
            remedy = "run git pull; if it still differs, run mlops audit"
            yield f"    declared   {short_digest(one.declared)} in this checkout: {remedy}"
    if "rollout" not in one.unseen and (one.rollout or one.live is not None):
        named = f"{short_digest(one.served)}, " if one.served != one.live else ""
        yield f"    rollout    {named}{one.rollout or 'none'}"
    if "monitor" not in one.unseen and (one.live is not None or one.monitor is not None):
        yield f"    monitor    {_run(one.monitor)}"
        yield from _next_steps(one.monitor, f"{one.model} --kind model", model_monitor_name(one.model), environment)
    for alarm in one.open_alarms:
        yield f"    alarm      {_time(alarm.decided)} {alarm.response}: {alarm.reason} (open, {alarm.id})"
    for done in one.responses:
        yield f"    response   {_time(done.at)} {done.response}, {done.outcome}: {done.detail}"
    yield from _not_visible(one.unseen, "    ")


def _dataset_lines(one: DatasetStatus, environment: str) -> Iterator[str]:
    yield f"  {one.dataset} (dataset)"
    if "monitor" not in one.unseen:
        yield f"    monitor    {_run(one.monitor)}"
        yield from _next_steps(one.monitor, f"{one.dataset} --kind data", monitor_name(one.dataset), environment)
    yield from _not_visible(one.unseen, "    ")


def _run(run: MonitorRun | None) -> str:
    if run is None:
        return "no run yet"
    alarms = f": {', '.join(run.alarms)}" if run.alarms else ""
    return f"{run.verdict}{alarms}, {_time(run.at)}{', overdue' if run.is_overdue else ''}"


def _next_steps(run: MonitorRun | None, about: str, job: str, environment: str) -> Iterator[str]:
    """Yield the commands that say more about the last run of a monitor."""
    if run is not None and run.verdict == "alarm":
        yield f"               what it found: mlops monitor show {about} --env {environment}"
    if run is not None and run.is_overdue:
        yield f"               why it does not run: mlops logs {job} --env {environment}"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _not_visible(unseen: dict[str, str], indent: str) -> Iterator[str]:
    for part, why in unseen.items():
        yield f"{indent}{part:<10} not visible: {why}"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
