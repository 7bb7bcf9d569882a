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

from pipelines.cluster.canary_logs import reason_of_check
from pipelines.cluster.connection import connect
from pipelines.cluster.rollouts import Rollout, bundle_of, rollout_state
from pipelines.declarations.contract import Contract
from pipelines.declarations.data_monitoring import longest_silence_hours
from pipelines.declarations.environment import EnvironmentDescriptor
from pipelines.declarations.errors import MlopsError
from pipelines.declarations.project import Project
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
        is_overdue: True if there should have been another run since.
    """

    at: datetime
    verdict: MonitorVerdict
    report: str
    alarms: tuple[str, ...] = ()
    is_overdue: bool = False


@dataclass(frozen=True)
class ModelStatus:
    """One model in one environment.

    Attributes:
        model: its name.
        declared: the bundle that this checkout names; None if it names none.
        live: the bundle that the ledger records as live; None if none is.
        served: the bundle that the Rollout names; None if there is no Rollout.
        rollout: the phase of the Rollout, with its message, and what the newest check of a release on trial waits for;
            "" if there is none.
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
        return _read_parts(target, descriptor, _why(error))


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

    def model_status(name: str) -> ModelStatus:
        silence = model_silence(project, name) if config.monitoring.models else None
        declared = project.release(name, environment).bundle
        return read_model(descriptor, name, declared, no_cluster, now, silence=silence)

    def dataset_status(name: str) -> DatasetStatus:
        return read_dataset(descriptor, name, now - data_silence(project.contract(name)))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        models = pool.map(model_status, project.model_names)
        monitored = pool.map(dataset_status, datasets)
        return EnvironmentStatus(environment, True, tuple(models), tuple(monitored))


def model_silence(project: Project, model: str) -> timedelta | None:
    """Return how long the monitor of a model may be silent; None if it is off, or its declaration is not valid."""
    try:
        settings = project.model(model).monitoring
    except MlopsError:
        return None
    return timedelta(hours=settings.longest_silence_hours) if settings.enabled else None


def data_silence(contract: Contract) -> timedelta:
    """Return how long the monitor of a dataset may be silent."""
    return timedelta(hours=longest_silence_hours(contract.service_levels))


def read_model(
    descriptor: EnvironmentDescriptor,
    model: str,
    declared: str | None,
    no_cluster: str,
    now: datetime,
    *,
    silence: timedelta | None = None,
) -> ModelStatus:
    """Read the state of a model.

    Args:
        descriptor: the environment.
        model: the model's name.
        declared: the bundle that the checkout names.
        no_cluster: why the cluster cannot be reached; "" if it can.
        now: the present time.
        silence: time after the last run of the monitor from which the next one is overdue; None if none is expected.
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
    is_live = head is not None and head.event.live is not None
    expected = now - silence if silence is not None and is_live else None
    return ModelStatus(
        model,
        declared,
        live=head.event.live if head is not None else None,
        served=shown[0],
        rollout=shown[1],
        monitor=_seen("monitor", unseen, lambda: _model_run(descriptor, model, expected), None),
        open_alarms=[one for one in decisions if is_known and one.id not in handled and one.decided > now - RECENT],
        responses=outcomes[:MOST_RESPONSES],
        unseen=unseen,
    )


def read_dataset(descriptor: EnvironmentDescriptor, dataset: str, expected: datetime) -> DatasetStatus:
    """Read the state of a dataset, whose monitor is overdue if its last run started before a time."""
    unseen: dict[str, str] = {}
    run = _seen("monitor", unseen, lambda: _data_run(descriptor, dataset, expected), None)
    return DatasetStatus(dataset, run, unseen)


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
                bundle = bundle_of(resource)
                share = f", {state.weight} % to the release on trial" if state.on_trial else ""
                said = ": ".join(filter(None, (state.phase + share, state.message)))
                awaited = reason_of_check(descriptor.namespace, model, bundle, "inconclusive") if state.on_trial else ""
                return bundle, said + (f"; newest check: {awaited}" if awaited else "")
    return None, ""


def _model_run(descriptor: EnvironmentDescriptor, model: str, expected: datetime | None) -> MonitorRun | None:
    names = report_names(descriptor, model, "models")
    if not names:
        return None
    report = read_model_report(descriptor, model, names[0])
    is_overdue = expected is not None and report.time < expected
    return MonitorRun(report.time, report.verdict, names[0], alarming_checks(report.findings), is_overdue)


def _data_run(descriptor: EnvironmentDescriptor, dataset: str, expected: datetime) -> MonitorRun | None:
    names = report_names(descriptor, dataset)
    if not names:
        return None
    report = read_report(descriptor, dataset, names[0])
    checks = alarming_checks(report.findings)
    return MonitorRun(report.created, report.verdict, names[0], checks, report.created < expected)


def _why(error: MlopsError) -> str:
    """Return an error on one line, with its fix."""
    return error.what.splitlines()[0] + (f"; fix: {' '.join(error.fix.split())}" if error.fix else "")


def _seen(part: str, unseen: dict[str, str], look: Callable[[], T], otherwise: T) -> T:
    """Return what a look finds; or `otherwise`, and note why the part is not visible."""
    try:
        return look()
    except MlopsError as error:
        unseen[part] = _why(error)
    except (BotoCoreError, ClientError, OSError) as error:
        unseen[part] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")
    return otherwise
