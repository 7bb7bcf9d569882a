"""The state of environments: releases, rollouts, alarms, monitors and responses. Read-only.

A part that cannot be read is not visible, with the reason; the other parts are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from pipelines.cluster.connection import connect
from pipelines.cluster.rollouts import Rollout, bundle_of, rollout_state
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.monitoring.monitor_findings import MonitorVerdict, alarming_checks
from pipelines.monitoring.monitor_reports import read_model_report, read_report, report_names
from pipelines.monitoring.response_policy import ResponseDecision
from pipelines.monitoring.response_records import read_decisions
from pipelines.registry.ledger import Ledger
from pipelines.registry.response_outcomes import ResponseOutcome, read_outcomes
from pipelines.targets import Target

RECENT = timedelta(days=14)
"""Alarms and responses of this time are shown."""

MOST_RESPONSES = 3

_AT_ONCE = 8

T = TypeVar("T")


@dataclass(frozen=True)
class MonitorRun:
    """The last run of a monitor.

    Attributes:
        at: when it started.
        verdict: its verdict.
        report: name of its report.
        alarms: the checks that are an alarm.
    """

    at: datetime
    verdict: MonitorVerdict
    report: str
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelStatus:
    """One model in one environment.

    Attributes:
        model: its name.
        declared: the bundle that this checkout names; None if it names none.
        live: the bundle that the ledger records as live; None if none is.
        served: the bundle that the Rollout names; None if there is no Rollout.
        rollout: the phase of the Rollout, with its message; "" if there is none.
        monitor: the last run of its monitor; None if there was none.
        open_alarms: alarms without a response yet, newest first.
        responses: the last responses to alarms, newest first.
        unseen: part → why it is not visible.
    """

    model: str
    declared: str | None
    live: str | None = None
    served: str | None = None
    rollout: str = ""
    monitor: MonitorRun | None = None
    open_alarms: Sequence[ResponseDecision] = ()
    responses: Sequence[ResponseOutcome] = ()
    unseen: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetStatus:
    """One dataset in the environment that ingests.

    Attributes:
        dataset: its name.
        monitor: the last run of its monitor; None if there was none.
        unseen: part → why it is not visible.
    """

    dataset: str
    monitor: MonitorRun | None = None
    unseen: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EnvironmentStatus:
    """One environment.

    Attributes:
        environment: its name.
        is_up: False if it was never brought up.
        models, datasets: what is in it.
        unseen: part → why it is not visible.
    """

    environment: str
    is_up: bool
    models: tuple[ModelStatus, ...] = ()
    datasets: tuple[DatasetStatus, ...] = ()
    unseen: dict[str, str] = field(default_factory=dict)


def read_status(target: Target, environment: str) -> EnvironmentStatus:
    """Read the state of an environment.

    Raises:
        MlopsError: the project declares no such environment.
    """
    target.project.stack(environment)
    unseen: dict[str, str] = {}
    descriptor = _seen("environment", unseen, lambda: _descriptor(target, environment), None)
    if descriptor is None:
        return EnvironmentStatus(environment, is_up=False, unseen=unseen)
    try:
        with target.using_cluster(environment):
            return _read_parts(target, descriptor, "")
    except MlopsError as error:  # the parts themselves never fail
        return _read_parts(target, descriptor, error.what.splitlines()[0])


def _read_parts(target: Target, descriptor: EnvironmentDescriptor, no_cluster: str) -> EnvironmentStatus:
    """Read the state of what is in an environment.

    Args:
        target: where the environment lives.
        descriptor: the environment.
        no_cluster: why its cluster cannot be reached; "" if it can.
    """
    now, project, environment = datetime.now(UTC), target.project, descriptor.name
    config = project.stack(environment).config.environment
    datasets = [name for name in project.dataset_names if config.monitors(project.contract(name))]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        models = pool.map(
            lambda name: read_model(descriptor, name, project.release(name, environment).bundle, no_cluster, now),
            project.model_names,
        )
        monitored = pool.map(lambda name: read_dataset(descriptor, name), datasets)
        return EnvironmentStatus(environment, True, tuple(models), tuple(monitored))


def read_model(
    descriptor: EnvironmentDescriptor, model: str, declared: str | None, no_cluster: str, now: datetime
) -> ModelStatus:
    """Read the state of a model.

    Args:
        descriptor: the environment.
        model: the model's name.
        declared: the bundle that the checkout names.
        no_cluster: why the cluster cannot be reached; "" if it can.
        now: the present time.
    """
    unseen: dict[str, str] = {}
    head = _seen("ledger", unseen, lambda: Ledger(descriptor, model).head(), None)
    shown: tuple[str | None, str] = (None, "")
    if not no_cluster:
        shown = _seen("rollout", unseen, lambda: _rollout(descriptor, model), shown)
    else:
        unseen["rollout"] = no_cluster
    decisions: list[ResponseDecision] = []
    decisions = _seen("alarms", unseen, lambda: read_decisions(descriptor, model)[0], decisions)
    outcomes: list[ResponseOutcome] = []
    outcomes = _seen(
        "responses", unseen, lambda: read_outcomes(descriptor, model, since=now - RECENT, most=100), outcomes
    )
    handled = {one.id for one in outcomes}
    is_known = "responses" not in unseen
    return ModelStatus(
        model,
        declared,
        live=head.event.live if head is not None else None,
        served=shown[0],
        rollout=shown[1],
        monitor=_seen("monitor", unseen, lambda: _model_run(descriptor, model), None),
        open_alarms=[one for one in decisions if is_known and one.id not in handled and one.decided > now - RECENT],
        responses=outcomes[:MOST_RESPONSES],
        unseen=unseen,
    )


def read_dataset(descriptor: EnvironmentDescriptor, dataset: str) -> DatasetStatus:
    """Read the state of a dataset."""
    unseen: dict[str, str] = {}
    return DatasetStatus(dataset, _seen("monitor", unseen, lambda: _data_run(descriptor, dataset), None), unseen)


def _descriptor(target: Target, environment: str) -> EnvironmentDescriptor | None:
    target.connect()
    output = target.outputs(environment).get("descriptor")
    return EnvironmentDescriptor.from_output(output, environment) if output else None


def _rollout(descriptor: EnvironmentDescriptor, model: str) -> tuple[str | None, str]:
    with connect(descriptor.namespace) as client:
        for one in client.list(Rollout):
            resource = one.to_dict()  # type: ignore[no-untyped-call]
            if resource["metadata"]["name"] == model:
                state = rollout_state(resource)
                share = f", {state.weight} % to the release on trial" if state.on_trial else ""
                return bundle_of(resource), ": ".join(filter(None, (state.phase + share, state.message)))
    return None, ""


def _model_run(descriptor: EnvironmentDescriptor, model: str) -> MonitorRun | None:
    names = report_names(descriptor, model, "models")
    if not names:
        return None
    report = read_model_report(descriptor, model, names[0])
    return MonitorRun(report.time, report.verdict, names[0], alarming_checks(report.findings))


def _data_run(descriptor: EnvironmentDescriptor, dataset: str) -> MonitorRun | None:
    names = report_names(descriptor, dataset)
    if not names:
        return None
    report = read_report(descriptor, dataset, names[0])
    return MonitorRun(report.created, report.verdict, names[0], alarming_checks(report.findings))


def _seen(part: str, unseen: dict[str, str], look: Callable[[], T], otherwise: T) -> T:
    """Return what a look finds; or `otherwise`, and note why the part is not visible."""
    try:
        return look()
    except MlopsError as error:
        unseen[part] = error.what.splitlines()[0]
    except (BotoCoreError, ClientError, OSError) as error:
        unseen[part] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")
    return otherwise
